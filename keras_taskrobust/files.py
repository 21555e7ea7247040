"""Files that are either the old ones or the new ones, never half of one, and their folders."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file beside its place, then moves it there. Makes the folder if it is missing.

    Args:
        path: where the file goes.
        content: bytes. All of it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def make_folder(directory: str | os.PathLike) -> None:
    """Makes a folder for results if it is missing, and tries whether it can be written to.

    Args:
        directory: path of the folder.

    Raises:
        ValueError: it cannot be made or written to.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=os.fspath(directory)).close()
    except OSError as error:
        raise ValueError(
            "The output must be a folder that can be written to. "
            f"Received: {directory}: {error.strerror}"
        ) from error
