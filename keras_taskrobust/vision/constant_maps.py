"""The best predictions of a masked autoencoder that does not look at the visible patches."""

from typing import Any

import numpy as np
from keras import ops

from keras_taskrobust.training.constants import Constant, Mean, Median
from keras_taskrobust.vision.embeddings import Patches, cut
from keras_taskrobust.vision.losses import normalize_patches
from keras_taskrobust.vision.modalities import Task, tasks_of
from keras_taskrobust.vision.network import MultiModalNetwork


class ConstantMaps:
    """The best constant for each pixel of each task, over all patches, masked or not.

    Every sample counts the same, however many valid pixels it has, as in the losses.

    Args:
        network: `MultiModalNetwork`.
    """

    def __init__(self, network: MultiModalNetwork):
        self._network = network
        self._constants: dict[str, Constant] = {}
        self._patches: dict[str, np.ndarray] = {}

    def add(self, x: Any, y: Any, sample_weight: Any) -> None:
        """Takes a batch of maps into account."""
        for task in tasks_of(self._network.modalities):
            modality = task.modality
            if modality.name in x:
                maps = ops.convert_to_tensor(x[modality.name])
                patches = cut(modality, maps, self._network.patch_size_of(modality))
                patches = normalize_patches(patches) if task.normalized else patches
                constant = self._constants.setdefault(task.name, _constant(task))
                constant.add(*_elements(task, patches, sample_weight))
        self._patches = {}

    def predict(self, x: Any, y: Any) -> dict[str, Any]:
        """As the network's outputs: patches, and masks under which every patch counts."""
        if not self._patches:
            tasks = tasks_of(self._network.modalities)
            self._patches = {
                task.name: self._in_patches(task) for task in tasks if task.name in self._constants
            }
        samples = len(next(iter(x.values())))
        patches = {
            name: ops.convert_to_tensor(np.broadcast_to(one, (samples, *one.shape)))
            for name, one in self._patches.items()
        }
        grid, inputs = self._network.grid, len(self._network.input_names)
        return {"patches": patches, "masks": ops.ones((samples, inputs, grid[0] * grid[1]))}

    def _in_patches(self, task: Task) -> np.ndarray:
        """`(N, C * P)` float32, channel first inside a patch."""
        grid = self._network.grid
        value = self._constants[task.name].value()
        value = np.log(value) if task.modality.is_labels else value
        value = value.reshape(grid[0] * grid[1], -1, value.shape[-1])
        return np.moveaxis(value, 2, 1).reshape(len(value), -1).astype("float32")


def _constant(task: Task) -> Constant:
    if task.modality.is_labels:
        classes = task.modality.output_channels
        return Mean(classes=classes, prior=1.0 / classes)
    return Mean() if task.loss == "mse" else Median()


def _elements(
    task: Task, patches: Patches, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, weights and groups of a batch, as `Constant.add` takes them."""
    samples, positions = len(patches.valid), int(np.prod(patches.valid.shape[1:]))
    values, valid = ops.convert_to_numpy(patches.values), ops.convert_to_numpy(patches.valid)
    valid = valid.reshape(samples, positions).astype("float64")
    if task.modality.is_labels:
        values = values.reshape(samples, positions)
        valid = np.where(values < task.modality.output_channels, valid, 0.0)
        values = np.where(valid > 0, values, 0)
    else:
        channels = values.shape[-1] // patches.valid.shape[-1]
        values = values.reshape(samples, patches.valid.shape[1], channels, -1)
        values = np.moveaxis(values, 2, 3).reshape(samples, positions, channels)
    weights = valid / np.maximum(valid.sum(1, keepdims=True), 1.0)
    if sample_weight is not None:
        weights = weights * np.asarray(sample_weight, "float64")[:, None]
    return values, weights, np.zeros(weights.shape, int)
