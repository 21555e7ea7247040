"""Signals that ask to stop: at once, or once it is saved, and the handlers of before afterwards."""

import os
import signal
import threading

import pytest

from keras_taskrobust.interruption import (
    Interrupted,
    is_asked_to_stop,
    saving_first,
    stopping_at_signals,
)

pytestmark = pytest.mark.backend_free
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers():
    """Those of before, whatever a test does; in it, marks of its own."""
    former = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_body_and_the_handlers_are_given_back(number):
    with pytest.raises(Interrupted, match=number.name), stopping_at_signals():
        os.kill(os.getpid(), number)
    assert all(signal.getsignal(one) is signal.default_int_handler for one in SIGNALS)


def test_it_is_saved_first_unless_asked_twice():
    with stopping_at_signals(), saving_first():
        assert not is_asked_to_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_asked_to_stop()
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    assert not is_asked_to_stop()


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping_at_signals():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_other_threads_install_nothing():
    found = []

    def run():
        with stopping_at_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
