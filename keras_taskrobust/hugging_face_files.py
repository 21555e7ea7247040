"""Folders of Hugging Face's Transformers: a JSON, and arrays in PyTorch's layout as safetensors."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_taskrobust.files import READING_ERRORS, write_atomically

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
#: Where a Keras variable's name does not end in that of a bias.
_WEIGHT, _BIAS = "weight", "bias"


def transformers_name(path: str, layers: Mapping[str, str]) -> str:
    """What Transformers calls a variable.

    Args:
        path: string. The Keras path of the variable.
        layers: Keras paths of layers to the names of their counterparts.

    Example:

    >>> transformers_name("pooled_dense/kernel", {"pooled_dense": "bert.pooler.dense"})
    'bert.pooler.dense.weight'
    """
    layer, _, variable = path.rpartition("/")
    return f"{layers[layer]}.{_BIAS if variable.endswith(('bias', 'beta')) else _WEIGHT}"


def to_pytorch(path: str, array: np.ndarray) -> np.ndarray:
    """A Keras variable in PyTorch's layout.

    Args:
        path: string. The Keras path of the variable.
        array: its value. Kernels are those of dense layers, of attention, with an axis for the
            heads, or of convolutions over images.

    Returns:
        float32 array. A kernel has its outputs first, a bias one axis.

    Example:

    >>> to_pytorch("self_attention/query/kernel", np.zeros((8, 2, 3))).shape
    (6, 8)
    >>> to_pytorch("self_attention/attention_output/kernel", np.zeros((2, 3, 8))).shape
    (8, 6)
    """
    array = np.asarray(array, "float32")
    if path.endswith("bias"):
        array = array.ravel()
    elif path.endswith("kernel") and array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif path.endswith("kernel"):
        inputs = array.shape[:-1] if path.endswith("attention_output/kernel") else array.shape[:1]
        array = array.reshape(math.prod(inputs), -1).T
    return array


def to_keras(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `to_pytorch` for a variable of a shape.

    Raises:
        ValueError: `array` is of no such variable.
    """
    expected = to_pytorch(path, np.zeros(shape)).shape
    if array.shape != expected:
        raise ValueError(
            f"The weights must have the sizes of their {CONFIG}: for `{path}` {expected}. "
            f"Received: an array of shape {array.shape}"
        )
    if path.endswith("kernel"):
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array.reshape(shape)


def write_model(folder: Path, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a model: `config.json` and `model.safetensors`, each whole or not at all.

    Args:
        folder: where they go. It is made if it is missing.
        config: what `transformers` reads as the configuration.
        arrays: names of parameters to arrays.
    """
    write_arrays(folder / WEIGHTS, arrays)
    write_json(folder / CONFIG, config)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as safetensors, whole or not at all."""
    from safetensors.numpy import save

    # It writes the memory of an array as it is, whatever the order of its axes.
    found = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, save(found, metadata={"format": "pt"}))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads safetensors.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, *READING_ERRORS) as error:
        raise _not_of_transformers(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    try:
        return dict(json.loads(path.read_bytes()))
    except READING_ERRORS as error:
        raise _not_of_transformers(path, error) from error


def _not_of_transformers(path, error):
    return ValueError(
        "The folder must be one that `save_pretrained(folder)` of Transformers wrote, with "
        f"{CONFIG} and {WEIGHTS}. Received: {path}: {' '.join(str(error).split())}"
    )
