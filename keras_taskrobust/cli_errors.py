"""What `taskrobust` says of errors, and the statuses that it exits with."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

from keras_taskrobust import distribution

#: The exit status if some runs or cells failed, and the rest is done.
SOME_FAILED = 3
#: The exit status after SIGTERM or SIGINT: EX_TEMPFAIL, "try again later".
INTERRUPTED = 75
#: The part of the help that is about errors.
HELP = f"""
--debug with any of them shows the tracebacks of errors.

eval "$(taskrobust --tyro-print-completion bash)" completes commands and flags in this shell; zsh,
fish and tcsh are known, too.

Exit status: 0, all is done; 1, an error; 2, wrong usage; {SOME_FAILED}, done and reported, but some
runs or cells failed: their tracebacks lie beside them, and the same command tries them again;
{INTERRUPTED}, interrupted by Ctrl-C or SIGTERM: training is saved, and the same command goes on."""


@contextlib.contextmanager
def said_in_a_sentence(program: str, debug: bool, in_flags: Callable[[str], str]) -> Iterator[None]:
    """A body whose errors end the process with a sentence on standard error.

    Args:
        program: string. What the sentence is said by.
        debug: bool. Whether errors are raised as they are, and those that are got over logged.
        in_flags: from what an error says to the same with flags in place of arguments.
    """
    if debug:
        logging.basicConfig()
        logging.getLogger("keras_taskrobust").setLevel(logging.DEBUG)
    try:
        yield
    except KeyboardInterrupt:
        if distribution.is_main():
            print(f"\n{program}: interrupted, go on with the same command", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except distribution.FailedElsewhereError:
        if debug:
            raise
        sys.exit(1)  # the process that failed says why
    except BrokenPipeError:
        raise  # `cli_output.ending_with_reader` knows what it means
    except Exception as error:
        if debug:
            raise
        if not distribution.is_main():
            program = f"{program}, process {distribution.process_id()}"
        from keras_taskrobust.recipes.failures import is_sentence, reason

        where = "" if is_sentence(error) else " (--debug shows where)"
        sys.exit(f"{program}: {in_flags(reason(error))}{where}")


def exit_if_failed(number: int, program: str) -> None:
    """Ends the process if runs or cells failed.

    Args:
        number: int. How many did.
        program: string. What says so on standard error.
    """
    if number:
        print(
            f"{program}: {number} runs or cells failed. Their tracebacks are beside them, in "
            "*.traceback.txt; the same command tries them again.",
            file=sys.stderr,
        )
        sys.exit(SOME_FAILED)
