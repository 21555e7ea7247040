"""Several devices and processes that train together: how they start, and who does what.

A process reads its part of every batch, and all take one step. The main process, that of number 0,
writes; the others wait where they need what it wrote.
"""

import contextlib
import errno
import functools
import itertools
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_taskrobust.devices import Devices as Devices
from keras_taskrobust.locks import held_elsewhere, locked, locks_directory

_SHOWN = 60
#: Below what systems give to outgoing connections, one of which could take a port that was free.
_PORTS = range(10_000, 32_768)


class FailedElsewhereError(RuntimeError):
    """Another process has failed, and says why."""


def start(
    devices: int | Literal["all"] | None = None,
    model_parallel: int = 1,
    processes: int | None = None,
    process_id: int | None = None,
    coordinator: str | None = None,
) -> None:
    """Starts an engine on several devices, before any Keras object is made.

    What is not given comes from the environment: for PyTorch that of torchrun, for TensorFlow
    `TF_CONFIG`, for any `KERAS_DISTRIBUTION_*`. Models are then made and trained under `scope()`.

    Args:
        devices: int or `"all"`. The devices of this process that share each batch; by default one,
            or with `processes` all. PyTorch has one a process: start it by torchrun.
        model_parallel: int. The devices that share the weights of one model, under JAX.
        processes: int. The processes that train together, each started by its own command.
        process_id: int. Which of them this is, from 0.
        coordinator: string. `"HOST:PORT"` of process 0, on which a port is free; `"auto"` where JAX
            finds all three by itself: on TPU machines, and under Slurm. Under TensorFlow the
            addresses of all processes, joined by commas.

    Raises:
        ValueError: an argument is not as said, or there are not so many devices, or the address is
            in use.

    Example:

    ```python
    ktr.distribution.start(devices="all")
    with ktr.distribution.scope():
        model = make_model()
        model.fit(data)
    ```
    """
    start_devices(Devices(devices, model_parallel, processes, process_id, coordinator))


def start_devices(devices: Devices) -> None:
    """`start`, of settings."""
    import keras

    from keras_taskrobust.training.backends import launcher

    devices = devices.with_environment(keras.backend.backend(), os.environ)
    if devices.process_id == 0 and devices.are_several_processes:
        _check_free(devices.addresses[0])
    launcher.start(devices)


def processes_to_start(devices: Devices) -> int:
    """How many processes of this command, one a device, the engine needs; 0 if it needs no others.

    Args:
        devices: the settings.

    Raises:
        ValueError: there are not so many devices.
    """
    import keras

    from keras_taskrobust.training.backends import launcher

    devices = devices.with_environment(keras.backend.backend(), os.environ)
    number = 0 if devices.coordinator is not None else launcher.processes_for(devices)
    return number if number > 1 else 0


def _check_free(address: str) -> None:
    port = int(address.rpartition(":")[2])
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun itself listens there
        return
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return
            raise ValueError(
                "`coordinator` must be an address that is free on the machine of process 0. "
                f"Received: {address}, where port {port} is in use: choose another port"
            ) from error


def free_addresses(number: int) -> list[str]:
    """Different addresses of this machine that are free now."""
    ports = secrets.SystemRandom().sample(_PORTS, len(_PORTS))
    return [f"127.0.0.1:{port}" for port in itertools.islice(filter(_is_free, ports), number)]


def _is_free(port):
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def processes() -> int:
    """The number of processes that train together."""
    return _launcher().count() if _is_loaded() else 1


def process_id() -> int:
    """Which of the processes this is, from 0."""
    return _launcher().rank() if _is_loaded() else 0


def is_main() -> bool:
    """Whether this is the process that writes: the first one, or the only one."""
    return process_id() == 0


def replicas() -> int:
    """The number of models that have a part of each batch."""
    return _launcher().replicas() if _is_loaded() else 1


def model_parallel() -> int:
    """The number of devices that share the weights of one model."""
    return _launcher().model_parallel() if _is_loaded() else 1


def part() -> tuple[int, int]:
    """`(i, n)`: of n equal parts of each batch this process reads the i-th, from 0."""
    return _launcher().part() if _is_loaded() else (0, 1)


def scope() -> contextlib.AbstractContextManager:
    """A body that makes and trains models on all the devices that `start` named."""
    return _launcher().scope() if _is_loaded() else contextlib.nullcontext()


def alone() -> contextlib.AbstractContextManager:
    """A body, in a `scope` or not, whose models are those of this process, on one device."""
    return _launcher().alone() if _is_loaded() else contextlib.nullcontext()


def whole(variables: Sequence[Any]) -> contextlib.AbstractContextManager:
    """A body that may read variables of which other processes have a part. All must come to it.

    Args:
        variables: sequence of `keras.Variable`.
    """
    return _launcher().whole(variables)


def is_scoped() -> bool:
    """Whether models that are made here are on several devices of this process."""
    return _is_loaded() and _launcher().is_scoped()


def for_fit(open_batches: Callable[[], Iterator[tuple]]) -> Any:
    """What `fit` takes of this process.

    Args:
        open_batches: from nothing to the batches of its `part()`, at every call anew.
    """
    return _launcher().for_fit(open_batches)


def gather(value: Any) -> list[Any]:
    """What all processes give, by their numbers. All must call it, at the same place.

    Args:
        value: what JSON can hold.

    Returns:
        list, the same in all processes.
    """
    if processes() == 1:
        return [value]
    return [json.loads(one) for one in _launcher().gather(json.dumps(value).encode())]


def barrier() -> None:
    """Waits until all processes are here."""
    gather(None)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """A body that the main process goes through first, and the others after it.

    It must not wait for the others inside.

    Raises:
        FailedElsewhereError: in the others, the body failed in the main process.

    Example:

    ```python
    with ktr.distribution.main_first():
        data = prepare()  # written by the main process, opened by the others
    ```
    """
    if processes() == 1:
        yield
        return
    if not is_main():
        (failure, *_) = gather(None)
        if failure is not None:
            raise FailedElsewhereError(f"The main process has failed: {failure}")
        yield
        return
    failure = "it was interrupted"
    try:
        yield
        failure = None
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        gather(failure)


@contextlib.contextmanager
def locked_by_main(directory: str | Path) -> Iterator[None]:
    """A body that all processes go through, whose folder is the main one's.

    Args:
        directory: the folder, as in `locks.locked`.

    Raises:
        ValueError: in the main process, another one is in it, or it cannot be written to.
        FailedElsewhereError: in the others, the same.
    """
    with contextlib.ExitStack() as stack:
        with main_first():
            stack.enter_context(locked(directory) if is_main() else held_elsewhere())
        yield


#: As `locks.locks_directory`, in all processes.
main_locks_directory = functools.partial(locks_directory, lock=locked_by_main)


def check_alike(what: str, facts: Mapping[str, Any]) -> None:
    """Refuses processes that began with something else than the main one.

    Args:
        what: string. What the facts are, such as "settings".
        facts: names to what JSON can hold.

    Raises:
        ValueError: in the main process, another one has other facts.
        FailedElsewhereError: in the others, the same.
    """
    if processes() == 1:
        return
    first, *others = gather(facts)
    differences = [
        f"{name} {_short(first.get(name))} in process 0, {_short(other.get(name))} in process {at}"
        for at, other in enumerate(others, start=1)
        for name in sorted({*first, *other})
        if first.get(name) != other.get(name)
    ]
    if differences:
        refuse(
            f"All processes must have the same {what}: start them with the same command. "
            f"Received: {'; '.join(differences)}"
        )


def check_batch(batch_size: int) -> None:
    """Refuses a batch that cannot be cut into equal parts, one a replica.

    Args:
        batch_size: int. The samples of the whole batch.

    Raises:
        ValueError: in the main process, it cannot.
        FailedElsewhereError: in the others, the same.
    """
    number = replicas()
    if batch_size % number:
        refuse(
            f"`batch_size` must be a multiple of {number}: that many devices share each batch. "
            f"Received: batch_size={batch_size}"
        )


def refuse(message: str) -> None:
    """Raises what all processes find alike, and the main one says."""
    raise (ValueError if is_main() else FailedElsewhereError)(message)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_loaded() -> bool:
    """Whether an engine runs. Before that a process is by itself."""
    return "keras_taskrobust.training.backends" in sys.modules


def _launcher() -> Any:
    from keras_taskrobust.training.backends import launcher

    return launcher
