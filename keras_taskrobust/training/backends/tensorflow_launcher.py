"""Devices of TensorFlow, by `tf.distribute`."""

import contextlib
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
        raise ValueError(
            "`processes` must be 1 under TensorFlow, whose devices are those of one process: "
            "`devices`. For several machines take JAX or PyTorch. "
            f"Received: processes={devices.processes}"
        )
    _started.clear()
    if devices.devices in (None, 1):
        return
    names = _names(devices.devices)
    if len(names) > 1:
        _started.append(tf.distribute.MirroredStrategy(names))


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
    return 1


def rank() -> int:
    return 0


def replicas() -> int:
    strategy = _started[0] if _started else tf.distribute.get_strategy()
    return strategy.num_replicas_in_sync


def model_parallel() -> int:
    return 1


def part() -> tuple[int, int]:
    return 0, 1


def scope() -> contextlib.AbstractContextManager:
    return _started[0].scope() if _started else contextlib.nullcontext()


def alone() -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def whole(variables: Any) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def is_scoped() -> bool:
    return replicas() > 1


def for_fit(open_batches):
    """Under a strategy Keras would lose the batches of a generator that it looks at."""
    number = replicas()
    if number == 1:
        return open_batches()
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
    return [payload]
