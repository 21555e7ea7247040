"""What metrics have accumulated, as JSON."""

import base64
from typing import Any

import keras
import numpy as np


def pack_metrics(model: keras.Model) -> list[dict[str, Any]]:
    """The values of all variables of a model's metrics, to the bit.

    Args:
        model: a compiled model.

    Returns:
        list of dicts that JSON can hold, one a variable.
    """
    packed = []
    for variable in model.metrics_variables:
        values = keras.ops.convert_to_numpy(variable)
        data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
        packed.append({"dtype": values.dtype.name, "shape": list(values.shape), "data": data})
    return packed


def unpack_metrics(model: keras.Model, packed: list[dict[str, Any]]) -> None:
    """Gives the metrics of a model the values of before.

    Args:
        model: the model, with the metrics of that time.
        packed: what `pack_metrics` gave.

    Raises:
        ValueError: its metrics have other variables.
    """
    variables = model.metrics_variables
    shapes = [tuple(one["shape"]) for one in packed]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            "The model must be compiled with the metrics of before, since the epoch goes on. "
            f"Received: {len(variables)} variables of metrics in place of {len(packed)}, or of "
            "other shapes"
        )
    for variable, one, shape in zip(variables, packed, shapes, strict=True):
        values = np.frombuffer(base64.b64decode(one["data"]), one["dtype"])
        variable.assign(values.reshape(shape))
