"""Devices of JAX, of one process or several, by `keras.distribution`."""

import contextlib
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from keras_taskrobust.training.layouts import layout_map

_started: list[keras.distribution.DataParallel | keras.distribution.ModelParallel] = []


def processes_for(devices: Any) -> int:
    return 1


def start(devices: Any) -> None:
    if isinstance(devices.devices, int):
        with contextlib.suppress(RuntimeError):  # once JAX computes, its devices are what they are
            jax.config.update("jax_num_cpu_devices", devices.devices)
    if devices.are_several_processes and not jax.distributed.is_initialized():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        address = None if devices.coordinator == "auto" else devices.addresses[0]
        keras.distribution.initialize(address, devices.processes, devices.process_id)
    _started.clear()
    names = [f"{device.platform}:{device.id}" for device in _chosen(devices)]
    if devices.model_parallel > 1:
        _started.append(_model_parallel(names, devices.model_parallel))
    elif len(names) > 1:
        _started.append(keras.distribution.DataParallel(devices=names, auto_shard_dataset=False))


def _model_parallel(names: list[str], number: int) -> keras.distribution.ModelParallel:
    if len(names) % number:
        raise ValueError(
            f"`model_parallel` must divide the number of devices, {len(names)}. "
            f"Received: model_parallel={number}"
        )
    mesh = keras.distribution.DeviceMesh((len(names) // number, number), ("batch", "model"), names)
    return keras.distribution.ModelParallel(
        layout_map=layout_map(mesh), batch_dim_name="batch", auto_shard_dataset=False
    )


def _chosen(devices: Any) -> list[jax.Device]:
    """The devices, those of a process one after the other."""
    number = devices.devices
    if number is None:
        number = "all" if devices.are_several_processes or devices.model_parallel > 1 else 1
    there = jax.local_device_count()
    if number != "all" and number > there:
        raise ValueError(
            f"`devices` must be at most {there}: so many {jax.default_backend().upper()}s are "
            f"there. Received: devices={number}"
        )
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    some = slice(None) if number == "all" else slice(number)
    return [device for _, found in sorted(by_process.items()) for device in found[some]]


def _current() -> Any:
    return keras.distribution.distribution() or (_started[0] if _started else None)


def count() -> int:
    return jax.process_count() if jax.distributed.is_initialized() else 1


def rank() -> int:
    return jax.process_index() if jax.distributed.is_initialized() else 0


def replicas() -> int:
    distribution = _current()
    return 1 if distribution is None else distribution.num_model_replicas


def model_parallel() -> int:
    distribution = _current()
    return 1 if distribution is None else distribution.device_mesh.devices.size // replicas()


def part() -> tuple[int, int]:
    distribution = _current()
    if distribution is None:
        return 0, 1
    return distribution.data_shard_id, min(count(), distribution.num_model_replicas)


def scope() -> contextlib.AbstractContextManager:
    return _started[0].scope() if _started else contextlib.nullcontext()


@contextlib.contextmanager
def alone():
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def whole(variables):
    cut = [
        v for v in variables if not (v.value.is_fully_addressable or v.value.is_fully_replicated)
    ]
    values = [variable.value for variable in cut]
    for variable in cut:
        variable._value = multihost_utils.process_allgather(variable.value, tiled=True)
    try:
        yield
    finally:
        for variable, value in zip(cut, values, strict=True):
            variable._value = value


def is_scoped() -> bool:
    return _current() is not None


def for_fit(open_batches):
    return open_batches()


def gather(payload: bytes) -> list[bytes]:
    lengths = multihost_utils.process_allgather(np.array([len(payload)], "int32")).ravel()
    padded = np.zeros(lengths.max(), "uint8")
    padded[: len(payload)] = np.frombuffer(payload, "uint8")
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
