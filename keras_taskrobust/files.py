"""Files that are either the old ones or the new ones, never half of one, and their folders."""

import contextlib
import difflib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import struct
import tempfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

#: All that readers of arrays, archives, pictures and JSON raise for a damaged file.
READING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

#: Seconds after which a partial file that nothing wrote to is that of a dead process.
_ABANDONED = 24 * 3600.0
#: The most folders of a name, and the most bytes of each: file systems have no room for more.
_DEEPEST = 10
_LONGEST = 255
#: Bytes that are left to a name beside others in the same one.
_LONGEST_PART = 80


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file beside its place, then moves it there. Makes the folder if it is missing.

    When it returns, file and folder are on the disk. A symbolic link at `path` is replaced, not
    followed.

    Args:
        path: where the file goes.
        content: bytes. All of it.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """For what writes to a path by itself: `write_atomically` with a body in place of the bytes.

    Args:
        path: where the file goes.

    Yields:
        `Path` of an empty file in the same folder. Its name cannot be guessed, and ends in that of
        `path`. If the body raises, it goes, and the file of before stays.

    Example:

    ```python
    with replacing("run/checkpoint.weights.h5") as partial:
        model.save_weights(partial)
    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_once(path.parent.absolute())
    partial = path.with_name(f".{secrets.token_hex(8)}.partial-{path.name}")
    try:
        partial.open("xb").close()
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def link_or_copy(source: Path, path: Path) -> None:
    """Puts a file at a second path, whole or not at all: by a hard link, or a copy if none can be.

    Args:
        source: the file, which nothing may write into: it is replaced, as `write_atomically` does.
        path: where it goes, too.
    """
    with replacing(path) as partial:
        partial.unlink()
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)


def remove_partial_files(directory: str | os.PathLike, seconds: float = _ABANDONED) -> None:
    """Removes what killed processes left of `replacing` and `write_atomically` in a folder.

    The first write of a process to a folder does this by itself.

    Args:
        directory: the folder. Those in it are left alone.
        seconds: float. How long nothing has been written to a partial file that goes; 0 is for who
            alone writes to the folder.
    """
    latest = time.time() - seconds
    for path in Path(directory).glob(".*.partial-*"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if path.lstat().st_mtime <= latest:
                path.unlink()


def sync_files(directory: str | os.PathLike) -> None:
    """Brings all files below a folder to the disk, whoever wrote them.

    Args:
        directory: the folder.
    """
    for folder, _, names in os.walk(os.fspath(directory)):
        for path in (Path(folder, name) for name in names):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(Path(folder))


def file_name(name: str) -> str:
    """A name that anybody chose as a part of a file's: of up to 80 bytes, none of them odd.

    Example:

    >>> file_name("minimax alpha=3"), file_name("../a/b")
    ('minimax-alpha=3', '--a-b')
    """
    safe = re.sub(r"^\.+|[^\w.=-]+", "-", name)
    if len(safe.encode()) <= _LONGEST_PART:
        return safe
    digest = hashlib.sha256(safe.encode()).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_PART - 9].decode(errors='ignore')}-{digest}"


def path_inside(directory: str | os.PathLike, name: str) -> Path:
    """The path of a name that was read from a file, if it stays in the folder.

    Args:
        directory: the folder.
        name: string. A path from there, with `/` between its parts.

    Returns:
        `Path`.

    Raises:
        ValueError: it is no such name, or leads out of the folder.

    Example:

    >>> path_inside("runs", "uniform-0/scores.npz").as_posix()
    'runs/uniform-0/scores.npz'
    >>> path_inside("runs", "../scores.npz")
    Traceback (most recent call last):
    ValueError: A name must stay in its folder, runs. Received: '../scores.npz'
    """
    is_inside = (
        isinstance(name, str)
        and name.isprintable()  # neither "\0" nor half a character either
        and 0 < len(PurePosixPath(name).parts) <= _DEEPEST
        and all(len(os.fsencode(part)) <= _LONGEST for part in PurePosixPath(name).parts)
        and ".." not in PureWindowsPath(name).parts  # "/" and "\\" separate
        and not PureWindowsPath(name).anchor
        and not PureWindowsPath(name).drive
    )
    if not is_inside:
        raise ValueError(f"A name must stay in its folder, {directory}. Received: {name!r}")
    return Path(directory, name)


def path_to_write(directory: str | os.PathLike, name: str) -> Path:
    """`path_inside`, for a file that will be written: no symbolic link may lie on the way.

    Args:
        directory: the folder. It may itself be a link.
        name: string. A path from there, with `/` between its parts.

    Returns:
        `Path`.

    Raises:
        ValueError: it leads out of the folder, or passes or is a symbolic link.
    """
    path = path_inside(directory, name)
    for part in [path, *path.parents][: len(PurePosixPath(name).parts)]:
        _refuse_link(part)
    return path


def folder_to_write(directory: str | os.PathLike, name: str) -> Path:
    """`path_to_write`, for a folder that others write into: no link may lie in it either.

    Args:
        directory: the folder that it lies in.
        name: string. A path from there, with `/` between its parts.

    Returns:
        `Path`. The folder need not be there.

    Raises:
        ValueError: it leads out of `directory`, or it is, passes or holds a symbolic link.
    """
    folder = path_to_write(directory, name)
    for parent, folders, names in os.walk(folder):
        for entry in [*folders, *names]:
            _refuse_link(Path(parent, entry))
    return folder


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


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(
            "Nothing is written through a symbolic link: replace it by a folder or file. "
            f"Received: {path}, which leads to {os.readlink(path)}"
        )


@functools.cache
def _clear_once(directory: Path) -> None:
    remove_partial_files(directory)


def _sync_folder(directory: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(folder)


def nearest_path(path: Path) -> Path | None:
    """The path that exists whose names are most like those of one that does not.

    Args:
        path: path.

    Returns:
        path, or `None` if one of its names is like none that is there.
    """
    found = Path(path.anchor)
    for name in path.relative_to(path.anchor).parts:
        if not (found / name).exists():
            names = [one.name for one in found.iterdir()] if found.is_dir() else []
            close = difflib.get_close_matches(name, names, n=1)
            if not close:
                return None
            name = close[0]
        found /= name
    return found
