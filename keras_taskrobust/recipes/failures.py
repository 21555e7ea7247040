"""What fails while the rest of a grid goes on: marked, said in a sentence, its traceback kept."""

import contextlib
import gc
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

from keras_taskrobust import distribution
from keras_taskrobust.files import path_to_write, write_atomically
from keras_taskrobust.plain_text import one_line

#: Errors whose text is a sentence by itself.
_SENTENCES = (ValueError, FloatingPointError, OSError, ImportError, RuntimeError)
#: What backends and the system say when memory is at an end.
_OUT_OF_MEMORY = ("resource_exhausted", "out of memory", "out_of_memory", "allocate memory")
_OUT_OF_MEMORY_TYPES = ("OutOfMemoryError", "ResourceExhaustedError")
_LONGEST = 1000

_logger = logging.getLogger(__name__)


class Failure:
    """Whether what was tried failed.

    Attributes:
        reason: string. Why, in one line; "" if it did not.
    """

    reason = ""


@contextlib.contextmanager
def tried(directory: Path, name: str, hint: str = "") -> Iterator[Failure]:
    """A body that may fail, with any exception but an interruption, while what follows goes on.

    Args:
        directory: the folder of the grid.
        name: string. The file in it that keeps the traceback; a former one goes.
        hint: string. What to lower if memory runs out, as flags.

    Yields:
        `Failure`, which is filled when the body has ended.
    """
    failure = Failure()
    path = path_to_write(directory, name)
    is_main = distribution.is_main()
    try:
        yield failure
    except Exception as error:
        _logger.debug("%s", name, exc_info=True)
        failure.reason = reason(error, hint)
        if is_main:
            write_atomically(path, traceback.format_exc().encode("utf-8", "replace"))
        traceback.clear_frames(error.__traceback__)  # they hold the arrays of what failed
        if is_out_of_memory(error):
            gc.collect()
    else:
        if is_main:
            path.unlink(missing_ok=True)
    _agree(failure)


def _agree(failure: Failure) -> None:
    """What the main process says, where all have failed; processes that part cannot go on."""
    of_all = distribution.gather(failure.reason)
    failure.reason = of_all[0]
    failed = {number: one for number, one in enumerate(of_all) if one}
    if len(failed) not in (0, len(of_all)):
        number, one = next(iter(failed.items()))
        raise RuntimeError(f"All processes must go on together. Received: process {number}: {one}")


def reason(error: BaseException, hint: str = "--batch-size") -> str:
    """What an error says, in one line.

    Args:
        error: the error.
        hint: string. What to lower if memory ran out, as flags.

    Returns:
        string.

    Example:

    >>> reason(ValueError("`a` must\\n be 1.")), reason(KeyError("a"))
    ('`a` must be 1.', "KeyError: 'a'")
    >>> reason(MemoryError())
    'Out of memory: lower --batch-size. Received: MemoryError'
    """
    text, kind = one_line(str(error)), type(error).__name__
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ..."
    if is_out_of_memory(error):
        return f"Out of memory: lower {hint}. Received: {text or kind}"
    if is_sentence(error):
        return text
    return f"{kind}: {text}" if text else kind


def is_sentence(error: BaseException) -> bool:
    """Whether an error was written for who runs a command, and says what to do by itself."""
    is_written = isinstance(error, _SENTENCES) and not isinstance(error, UnicodeError)
    return is_out_of_memory(error) or (is_written and bool(str(error).strip()))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that memory is at an end, on any backend."""
    while error is not None:
        text = str(error).lower()
        if (
            isinstance(error, MemoryError)
            or type(error).__name__ in _OUT_OF_MEMORY_TYPES
            or (
                isinstance(error, RuntimeError | OSError)
                and any(word in text for word in _OUT_OF_MEMORY)
            )
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
