"""How much a command says, beside what it is asked for."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator

from keras_taskrobust.keras_start import CHATTER
from keras_taskrobust.plain_text import one_line

#: The part of the help that is about it.
HELP = """
--quiet with any of them leaves only warnings and errors; --verbose also shows what the libraries
below say."""


@contextlib.contextmanager
def saying(quiet: bool, verbose: bool, in_flags: Callable[[str], str] = str) -> Iterator[None]:
    """A body that says its warnings in a line each, on standard error.

    Args:
        quiet: bool. Whether neither bars nor figures are shown.
        verbose: bool. Whether libraries say what they like, and warnings say where they come from.
        in_flags: gives a text the flags of the command in place of arguments of Python.
    """
    with contextlib.ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        if verbose:
            stack.enter_context(_heard())
        else:
            stack.enter_context(warnings.catch_warnings())
            for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", kind)
            warnings.showwarning = functools.partial(_say, in_flags)
        yield


@contextlib.contextmanager
def ending_with_reader() -> Iterator[None]:
    """A body that ends in silence, with status 1, once what reads its output has gone.

    `taskrobust pretrain text --help | head` is such a case.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is left would be written as Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def _heard():
    before = os.environ.get(CHATTER)
    os.environ[CHATTER] = "0"
    try:
        yield
    finally:
        del os.environ[CHATTER]
        if before is not None:
            os.environ[CHATTER] = before


def _say(in_flags, message, category, filename, lineno, file=None, line=None):
    print(f"Warning: {in_flags(one_line(str(message)))}", file=sys.stderr, flush=True)
