"""What metrics have accumulated, as JSON."""

import base64

import keras
import numpy as np

from keras_taskrobust.training.skipped_steps import SkippedSteps


def pack_metrics(model: keras.Model) -> dict[str, list]:
    """The values of all variables of a model's metrics, to the bit.

    Args:
        model: a compiled model.

    Returns:
        dict that JSON can hold, from the names of the metrics to the values of their variables.
    """
    return {metric.name: [_packed(one) for one in metric.variables] for metric in model.metrics}


def unpack_metrics(model: keras.Model, packed: dict[str, list]) -> None:
    """Gives the metrics of a model the values of before.

    Args:
        model: the model, with the metrics of that time. Skipped steps may be counted from now on.
        packed: what `pack_metrics` gave.

    Raises:
        ValueError: its metrics are others.
    """
    counts = {metric.name for metric in model.metrics if isinstance(metric, SkippedSteps)}
    metrics = {metric.name: metric.variables for metric in model.metrics}
    if _shapes(packed) != {
        name: [list(variable.shape) for variable in variables]
        for name, variables in metrics.items()
        if name in packed or name not in counts
    }:
        raise ValueError(
            "The model must be compiled with the metrics of before, since the epoch goes on. "
            f"Received: {', '.join(metrics)} in place of {', '.join(packed)}, or variables of "
            "other shapes"
        )
    for name, values in packed.items():
        for variable, one in zip(metrics[name], values, strict=True):
            array = np.frombuffer(base64.b64decode(one["data"]), one["dtype"])
            variable.assign(array.reshape(one["shape"]))


def _packed(variable):
    values = keras.ops.convert_to_numpy(variable)
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def _shapes(packed):
    return {name: [one["shape"] for one in values] for name, values in packed.items()}
