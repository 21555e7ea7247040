"""One process at a time in a folder."""

import contextlib
import contextvars
import functools
import inspect
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

from keras_taskrobust.files import READING_ERRORS, make_folder, remove_partial_files

_NAME = ".lock"
#: What the start of a run writes before there is any result.
_OF_A_START = (_NAME, "recipe.json", "fingerprints.json")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
#: Whether another process holds all folders for this one, too.
_HELD_ELSEWHERE: contextvars.ContextVar[bool] = contextvars.ContextVar("held", default=False)


@contextlib.contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of a folder. Makes the folder if it is missing.

    The lock is the system's and ends with the process, however that ends; the file `.lock` stays,
    and says nothing. Who holds a folder may take it again. A new folder goes if the body fails
    before it has left more there than its settings.

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
    if _HELD_ELSEWHERE.get():
        yield
        return
    folder = Path(directory).resolve()
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(directory)
    path = folder / _NAME
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
        stack.enter_context(_gone_if_failed(made))
        yield


@contextlib.contextmanager
def held_elsewhere() -> Iterator[None]:
    """A body in a process whose folders another one holds, and alone writes to."""
    token = _HELD_ELSEWHERE.set(True)
    try:
        yield
    finally:
        _HELD_ELSEWHERE.reset(token)


@contextlib.contextmanager
def _gone_if_failed(made: Sequence[Path]) -> Iterator[None]:
    """Removes a folder and its parents that were made for a body which fails to fill it."""
    try:
        yield
    except BaseException:
        if made and not any(map(_is_result, made[0].rglob("*"))):
            shutil.rmtree(made[0], ignore_errors=True)
            with contextlib.suppress(OSError):  # of a parent with something else in it
                for parent in made[1:]:
                    parent.rmdir()
        raise


def _is_result(path: Path) -> bool:
    """Whether it is more than the settings of a start that failed."""
    if path.is_symlink():
        return True
    return path.is_file() and path.name not in _OF_A_START and path.stat().st_size > 0


def locks_directory(
    function: Callable[_Arguments, _Result],
    lock: Callable[[str | Path], contextlib.AbstractContextManager] = locked,
) -> Callable[_Arguments, _Result]:
    """Decorates a function that writes to its argument `directory`: it is `locked` meanwhile."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def alone(*positional: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        with lock(signature.bind(*positional, **named).arguments["directory"]):
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
