"""Outputs that are constant, under the losses of `TaskLosses`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_taskrobust.training.constants import KerasConstant, has_best_constant
from keras_taskrobust.training.keras_internals import get_keras_mask, set_keras_mask
from keras_taskrobust.training.loss_values import align, takes_indices, values_and_weights
from keras_taskrobust.training.output_losses import GroupedLoss, in_output
from keras_taskrobust.training.task_losses import TaskLosses


class ConstantOutputs:
    """The best constants in the place of the outputs that carry tasks.

    An output of images, `(B, H, W, C)`, has a constant for each pixel; one of sequences,
    `(B, T, C)`, the same at all places. The groups of an output share its constant. An output whose
    loss has no known best constant stays as it is.

    Args:
        task_losses: `TaskLosses`.
        compute_outputs: function of the inputs of a batch to the outputs of the network, of which
            the shapes and the masks are used.
    """

    def __init__(self, task_losses: TaskLosses, compute_outputs: Callable[[Any], Any]):
        self._task_losses = task_losses
        self._compute_outputs = compute_outputs
        self._constants: dict[str, KerasConstant] = {}
        self._values: dict[str, np.ndarray] = {}

    def add(self, x: Any, y: Any, sample_weight: Any) -> None:
        """Takes a batch into account."""
        outputs = self._compute_outputs(x)
        for name, loss, target, output, weight in self._task_losses.by_output(
            y, outputs, sample_weight
        ):
            if not has_best_constant(loss.loss):
                continue
            if name not in self._constants:
                units = output.shape[-1] if len(output.shape) > 1 else 1
                self._constants[name] = KerasConstant(loss.loss, len(loss.task_names), units)
            with in_output(name):
                self._constants[name].add(*_elements(loss, target, output, weight))
        self._values = {}

    def of_groups(self, name: str) -> np.ndarray:
        """`(G, P, D)`: of an output the means or frequencies of each group by itself."""
        return self._constants[name].of_groups()

    def predict(self, x: Any, y: Any) -> dict[str, Any]:
        """The outputs by name."""
        if not self._values:
            self._values = {name: one.value() for name, one in self._constants.items()}
        outputs = self._task_losses.outputs_by_name(self._compute_outputs(x))
        return {name: self._constant_like(name, output) for name, output in outputs.items()}

    def _constant_like(self, name, output):
        if name not in self._values:
            return output
        value = self._values[name]  # (positions, units)
        inner = tuple(output.shape)[1:]
        value = np.reshape(value, inner if len(value) > 1 else inner[-1:])
        constant = ops.convert_to_tensor(np.broadcast_to(value, output.shape), dtype="float32")
        mask = get_keras_mask(output)
        if mask is not None:
            set_keras_mask(constant, mask)
        return constant


class LastOutputs:
    """The outputs of a network, which is called again only for inputs of another shape.

    Outputs with a Keras mask depend on more than that.

    Args:
        network: function of the inputs.
    """

    def __init__(self, network: Callable[[Any], Any]):
        self._network = network
        self._shapes: Any = None
        self._outputs: Any = None

    def __call__(self, x: Any) -> Any:
        shapes = keras.tree.map_structure(lambda leaf: tuple(leaf.shape), x)
        if self._outputs is None or shapes != self._shapes:
            self._outputs, self._shapes = self._network(x), shapes
        outputs = self._outputs
        if any(get_keras_mask(output) is not None for output in keras.tree.flatten(outputs)):
            self._outputs = None
        return outputs


def _elements(loss, target, output, weight):
    """Labels, weights and groups of one output of a batch, as `Constant.add` takes them."""
    is_grouped = isinstance(loss, GroupedLoss)
    labels = target["labels"] if is_grouped else target
    groups = ops.cast(target["groups"], "int32") if is_grouped else None
    inside = None if groups is None else groups >= 0
    values, weights = values_and_weights(loss.loss, labels, output, weight, inside)
    weights = ops.ones_like(values) if weights is None else weights
    groups = ops.zeros_like(values, "int32") if groups is None else align(groups, values, "groups")
    labels, weights, groups = map(ops.convert_to_numpy, (labels, weights, groups))
    positions = int(np.prod(values.shape[1:])) if len(output.shape) > 3 else 1
    weights = weights.astype("float64").reshape(-1, positions)
    groups = groups.reshape(-1, positions)
    if takes_indices(loss.loss):
        labels = labels.astype("int64").reshape(weights.shape)
        return np.where(weights != 0, labels, 0), weights, groups
    if labels.size != np.prod(output.shape):
        labels = np.broadcast_to(labels, output.shape)
    labels = labels.reshape((*weights.shape, -1))
    return np.where(weights[..., None] != 0, labels, 0.0), weights, groups
