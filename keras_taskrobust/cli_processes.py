"""A command on several devices: which processes run it, and what each of them says."""

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from keras_taskrobust import distribution
from keras_taskrobust.cli_parsing import field_names, flag, flags_of
from keras_taskrobust.data_loading import end_with_parent

#: Seconds that processes have to end by themselves after one has failed, and again when told to.
_GRACE = 15.0
_LOOK = 0.05


def refuse_devices(words: Collection[str], program: str) -> None:
    """Refuses a command that trains one model after the other, each on one device.

    Args:
        words: those of the command.
        program: string. What it is called.

    Raises:
        ValueError: it is to run on several devices.
    """
    names = {flag(name) for name in field_names(distribution.Devices)}
    several = [*sorted(names & flags_of(words))]
    if os.environ.get("WORLD_SIZE", "1") != "1":
        several.append("a start by torchrun")
    if several:
        raise ValueError(
            f"{program} trains one model after the other, each on one device. Start it once a "
            "device, with `--seeds` and `--output` of its own. "
            f"Received: {', '.join(several)}"
        )


def start_devices(devices: distribution.Devices) -> int:
    """Starts the devices of a command, unless other processes are to run it.

    Args:
        devices: the settings.

    Returns:
        int. How many processes are to run it in place of this one; 0 if it goes on.

    Raises:
        ValueError: as `distribution.start`.
    """
    number = distribution.processes_to_start(devices)
    if not number:
        distribution.start_devices(devices)
    return number


@contextlib.contextmanager
def quiet_beside_main() -> Iterator[None]:
    """A body in which only the main process prints and warns."""
    with contextlib.ExitStack() as stack:
        if not distribution.is_main():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield


def run_by_processes(main: Callable[[list[str]], None], number: int, words: Sequence[str]) -> int:
    """Runs a command by several processes of this machine, which train together.

    Args:
        main: what runs a command, given its words.
        number: int. How many processes.
        words: those of the command.

    Returns:
        int. The exit status of the first that failed; 0 if none did.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    (address,) = distribution.free_addresses(1)
    context = get_context("spawn")
    started = [
        context.Process(target=_run, args=(main, rank, number, address, list(words)))
        for rank in range(number)
    ]
    for one in started:
        one.start()
    with _passing_on_signals(started):
        while not any(one.exitcode for one in started) and any(one.is_alive() for one in started):
            time.sleep(_LOOK)
        failed = [one.exitcode for one in started if one.exitcode]
        _end(started)
    return next((status if status > 0 else 128 - status for status in failed), 0)


def _run(
    main: Callable[[list[str]], None], rank: int, number: int, address: str, words: list[str]
) -> None:
    """The command in one of the processes."""
    end_with_parent()
    with contextlib.suppress(OSError):  # so that Ctrl-C comes once, by the parent
        os.setpgid(0, 0)
    host, _, port = address.rpartition(":")
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(number),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
    main(words)


@contextlib.contextmanager
def _passing_on_signals(processes: Sequence[BaseProcess]) -> Iterator[None]:
    def pass_on(number, frame):
        for one in processes:
            if one.pid is not None and one.is_alive():
                os.kill(one.pid, number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, pass_on) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Waits for what is left after one has failed, then ends it."""
    for end in (None, BaseProcess.terminate, BaseProcess.kill):
        for one in processes:
            if end is not None and one.is_alive():
                end(one)
        deadline = time.monotonic() + _GRACE
        for one in processes:
            one.join(max(0.0, deadline - time.monotonic()))
