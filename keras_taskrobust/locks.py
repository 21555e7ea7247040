"""One process at a time in a folder."""

import contextlib
import functools
import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

from keras_taskrobust.files import READING_ERRORS, make_folder, remove_partial_files

_NAME = ".lock"
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of a folder. Makes the folder if it is missing.

    The lock is the system's and ends with the process, however that ends; the file `.lock` stays,
    and says nothing. Who holds a folder may take it again.

    Args:
        directory: the folder.

    Raises:
        ValueError: another process is in it, or it cannot be written to.

    Example:

    ```python
    with locked("runs/mine"):
        ...  # writes to the folder
    ```
    """
    make_folder(directory)
    path = Path(directory).resolve() / _NAME
    lock = FileLock(path, timeout=0, is_singleton=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except Timeout as error:
            raise ValueError(
                f"A folder must have one process at a time. Received: {directory}, in use by "
                f"{_holder(path)}. Wait for its end, or choose another folder"
            ) from error
        if lock.lock_counter == 1:
            path.write_text(json.dumps(_this_process()))
            remove_partial_files(directory, seconds=0)
        yield


def locks_directory(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorates a function that writes to its argument `directory`: it is `locked` meanwhile."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def alone(*positional: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        with locked(signature.bind(*positional, **named).arguments["directory"]):
            return function(*positional, **named)

    return alone


def _this_process() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": platform.node(), "since": since}


def _holder(path: Path) -> str:
    try:
        return "process {process} on {host} since {since}".format(**json.loads(path.read_text()))
    except READING_ERRORS:  # it has only just come
        return "another process"
