"""Devices of TensorFlow, by `tf.distribute`."""

import contextlib
import json
import os
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_started: list[tf.distribute.Strategy] = []


def processes_for(devices: Any) -> int:
    return 1


def start(devices: Any) -> None:
    if devices.model_parallel > 1:
        raise ValueError(
            "`model_parallel` needs JAX: KERAS_BACKEND=jax. "
            f"Received: model_parallel={devices.model_parallel} under TensorFlow"
        )
    if devices.are_several_processes:
        if not _started:
            _started.append(_join(devices))
        return
    _started.clear()
    if devices.devices in (None, 1):
        return
    names = _names(devices.devices)
    if len(names) > 1:
        _started.append(tf.distribute.MirroredStrategy(names))


def _join(devices: Any) -> tf.distribute.Strategy:
    """The strategy of several workers, each with all its devices."""
    if len(devices.addresses) != devices.processes:
        raise ValueError(
            "`coordinator` must have the HOST:PORT of each process under TensorFlow, joined by "
            f"commas. Received: coordinator={devices.coordinator!r}, processes={devices.processes}"
        )
    there = max(len(tf.config.list_physical_devices("GPU")), 1)
    if devices.devices not in (None, "all", there):
        raise ValueError(
            f"`devices` must be {there}, all of this machine, with several processes under "
            f"TensorFlow. Received: devices={devices.devices}"
        )
    task = {"type": "worker", "index": devices.process_id}
    cluster = {"cluster": {"worker": devices.addresses}, "task": task}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _names(number: Any) -> list[str]:
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU" and number != "all":
        _divide_processor(number)
    there = len(tf.config.list_logical_devices(kind))
    if number != "all" and number > there:
        raise ValueError(
            f"`devices` must be at most {there}: so many {kind}s are there. "
            f"Received: devices={number}"
        )
    return [f"{kind}:{index}" for index in range(there if number == "all" else number)]


def _divide_processor(number: int) -> None:
    processor, *_ = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * number
    with contextlib.suppress(RuntimeError):  # once TensorFlow computes, they are what they are
        tf.config.set_logical_device_configuration(processor, parts)


def count() -> int:
    return len(_cluster().get("worker", ())) or 1


def rank() -> int:
    return _started[0].cluster_resolver.task_id if _cluster() else 0


def _cluster() -> dict[str, list[str]]:
    """The addresses of the workers, if there are several."""
    if not _started or not isinstance(_started[0], tf.distribute.MultiWorkerMirroredStrategy):
        return {}
    return _started[0].cluster_resolver.cluster_spec().as_dict()


def replicas() -> int:
    strategy = _started[0] if _started else tf.distribute.get_strategy()
    return strategy.num_replicas_in_sync


def model_parallel() -> int:
    return 1


def part() -> tuple[int, int]:
    return rank(), count()


def scope() -> contextlib.AbstractContextManager:
    return _started[0].scope() if _started else contextlib.nullcontext()


@contextlib.contextmanager
def alone():
    # What a thread of its own would have: TensorFlow leaves no scope before its end.
    graph = tf.compat.v1.get_default_graph()
    entered, graph._thread_local = graph._thread_local, threading.local()
    try:
        yield
    finally:
        graph._thread_local = entered


@contextlib.contextmanager
def whole(variables):
    # Workers sum these when they are read.
    shared = [v for v in variables if count() > 1 and v.synchronization == "on_read"]
    values = [variable.value for variable in shared]
    for variable in shared:
        variable._value = tf.constant(variable.numpy())
    try:
        yield
    finally:
        for variable, value in zip(shared, values, strict=True):
            variable._value = value


def is_scoped() -> bool:
    return replicas() > 1


def for_fit(open_batches):
    """Under a strategy Keras would lose the batches of a generator that it looks at."""
    if replicas() == 1:
        return open_batches()
    number = replicas() // count()
    # Keras averages the replicas' first batches, which fails for booleans.
    first = keras.tree.map_structure(_without_booleans, next(iter(open_batches())))
    rows = keras.tree.flatten(first)[0].shape[0] // number
    specification = keras.tree.map_structure(
        lambda array: tf.TensorSpec((rows, *array.shape[1:]), array.dtype), first
    )

    def parts():
        for batch in open_batches():
            for start in range(0, number * rows, rows):
                cut = slice(start, start + rows)
                yield keras.tree.map_structure(
                    lambda array, cut=cut: _without_booleans(array[cut]), batch
                )

    def of_worker(context):
        return tf.data.Dataset.from_generator(parts, output_signature=specification).prefetch(
            2 * number
        )

    strategy = _started[0] if _started else tf.distribute.get_strategy()
    return strategy.distribute_datasets_from_function(of_worker)


def _without_booleans(array: np.ndarray) -> np.ndarray:
    return array.astype("int32") if array.dtype == bool else array


def gather(payload: bytes) -> list[bytes]:
    if count() == 1:
        return [payload]
    lengths = _rows_of_all(np.array([[len(payload)]], "int32"))[:, 0]
    padded = np.zeros((1, lengths.max()), "uint8")
    padded[0, : len(payload)] = np.frombuffer(payload, "uint8")
    # Whole numbers that collectives have on every device.
    rows = _rows_of_all(padded.astype("int32")).astype("uint8")
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def _rows_of_all(row: np.ndarray) -> np.ndarray:
    """`(1, N)` of each worker, one below the other."""
    # Each replica of a worker has given its row.
    return _gathered(row).numpy()[:: replicas() // count()]


@tf.function(input_signature=[tf.TensorSpec((1, None), tf.int32)])
def _gathered(row: tf.Tensor) -> tf.Tensor:
    strategy = _started[0]

    def of_replica():
        return tf.distribute.get_replica_context().all_gather(tf.identity(row), axis=0)

    return strategy.experimental_local_results(strategy.run(of_replica))[0]
