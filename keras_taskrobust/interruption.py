"""Signals that ask a process to stop, which saves first.

Preempted machines, batch systems and Ctrl-C send SIGTERM or SIGINT, and end what has not ended some
time later.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop. What was done is saved."""


class _State:
    """What the handler knows. A process has one, as it has one handler."""

    saves_first = False
    asked = False


_state = _State()


@contextlib.contextmanager
def stopping_at_signals() -> Iterator[None]:
    """A body that SIGTERM and SIGINT end with `Interrupted`; in `saving_first`, when it is saved.

    A second signal ends it at once. Afterwards the handlers are those of before. Signals that are
    ignored stay so; in another thread than the main one, all are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    # `None` is a handler that Python cannot put back.
    mine = [number for number, one in former.items() if one not in (signal.SIG_IGN, None)]
    _state.asked = False
    try:
        for number in mine:
            signal.signal(number, _handle)
        yield
    finally:
        for number in mine:
            signal.signal(number, former[number])
        _state.asked = False


@contextlib.contextmanager
def saving_first() -> Iterator[None]:
    """A body that asks `is_asked_to_stop` again and again, saves and raises `Interrupted`."""
    _state.saves_first = True
    try:
        yield
    finally:
        _state.saves_first = False


def is_asked_to_stop() -> bool:
    """Whether there was a signal in `saving_first`."""
    return _state.asked


def _handle(number: int, frame: FrameType | None) -> None:
    if not _state.saves_first or _state.asked:
        raise Interrupted(signal.Signals(number).name)
    _state.asked = True
