"""Archives of arrays, written whole, and read as if anybody had written them."""

import io
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from keras_taskrobust.files import READING_ERRORS, write_atomically


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a compressed `.npz` archive, whole or not at all."""
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **arrays)
    write_atomically(path, archive.getvalue())


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` archive. Objects in it are refused, not run.

    Args:
        path: the archive.

    Returns:
        dict of names to arrays.

    Raises:
        ValueError: it is damaged, or no archive.
        FileNotFoundError: there is none.
    """
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except READING_ERRORS as error:
        fault = str(error) or type(error).__name__
        raise ValueError(
            f"`path` must be an .npz archive that is whole. Received: {path}: {fault}"
        ) from error
