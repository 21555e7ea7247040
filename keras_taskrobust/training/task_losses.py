"""Predictions to per-task totals and counts: one loss per output, or one loss split by groups."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.losses.loss import squeeze_or_expand_to_same_rank

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.gradients import add
from keras_taskrobust.weighting.base import PACKAGE


class TaskTotals(NamedTuple):
    """The sums over one batch, from which task losses are formed.

    Attributes:
        totals: `(K,)` float32, the summed loss of each task's elements.
        counts: `(K,)` float32, the number (or the summed sample weight) of those elements.
        auxiliary: float32 scalar, the auxiliary losses, already averaged; `None` if there are none.
    """

    totals: Any
    counts: Any
    auxiliary: Any


@keras.saving.register_keras_serializable(PACKAGE)
class GroupedLoss:
    """One loss over one output, split into K tasks by a group id per element.

    The output's `y_true` is `{"labels": ..., "groups": ...}`: `groups` are integers with the shape
    of the loss's elements, or of its leading axes. Elements of group -1 belong to no task. An id
    outside `-1 ... K-1` is an error where `fit` receives arrays, and makes the losses NaN where it
    arrives inside a data set.

    Args:
        loss: a Keras loss: name, function or instance. Its own reduction is ignored.
        groups: the K group names, distinct strings.

    Example:

    >>> import keras, numpy as np
    >>> loss = GroupedLoss("sparse_categorical_crossentropy", groups=("noun", "verb"))
    >>> loss.task_names
    ('noun', 'verb')
    """

    def __init__(self, loss, groups):
        names = tuple(groups) if not isinstance(groups, str) else ()
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "`groups` must be a tuple of at least one name, all distinct. "
                f"Received: groups={groups!r}"
            )
        _check_names(names)
        self.loss = _elementwise(loss)
        self.task_names = names

    def totals_and_counts(self, y_true, y_pred, sample_weight=None):
        """Sums the loss over each group's elements.

        Args:
            y_true: `{"labels": ..., "groups": ...}`.
            y_pred: the output.
            sample_weight: `None`, or weights that broadcast to the elements from the left.

        Returns:
            `totals` and `counts`, each `(K,)` float32.
        """
        labels = _finite_where(ops.less(y_true["groups"], 0), y_true["labels"])
        values, weights = _values_and_weights(self.loss, labels, y_pred, sample_weight)
        groups = _align(ops.cast(y_true["groups"], "int32"), values, "groups")
        number = len(self.task_names)
        member = ops.expand_dims(groups, -1) == ops.arange(number, dtype="int32")
        shares = ops.cast(member, "float32")
        if weights is not None:
            shares = ops.where(member, ops.expand_dims(weights, -1), 0.0)
        counts = ops.sum(shares, axis=tuple(range(len(values.shape))))
        in_range = ops.all(ops.logical_and(groups >= -1, groups < number))
        totals = backend.sum_by_group(values, member)
        return totals + ops.where(in_range, 0.0, float("nan")), counts

    def check_groups(self, groups) -> None:
        """Raises a `ValueError` if an id in the array `groups` is outside `-1 ... K-1`."""
        number = len(self.task_names)
        smallest, largest = int(ops.min(groups)), int(ops.max(groups))
        if smallest < -1 or largest >= number:
            raise ValueError(
                f"`groups` must lie between -1 (no task) and {number - 1} for the groups "
                f"{self.task_names}. Received: values from {smallest} to {largest}"
            )

    def get_config(self):
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "groups": list(self.task_names),
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]), config["groups"])


class OutputLoss:
    """One task: one loss over one output."""

    def __init__(self, loss, name: str):
        _check_names((name,))
        self.loss = _elementwise(loss)
        self.task_names = (name,)

    def totals_and_counts(self, y_true, y_pred, sample_weight=None):
        """The summed loss and the summed weight, each `(1,)` float32."""
        values, weights = _values_and_weights(self.loss, y_true, y_pred, sample_weight)
        weights = ops.ones_like(values) if weights is None else weights
        return ops.reshape(ops.sum(values), (1,)), ops.reshape(ops.sum(weights), (1,))


class TaskLosses:
    """Knows which output belongs to which tasks.

    Args:
        loss: a `GroupedLoss` for the only output, or a dict of output names to losses and
            `GroupedLoss`es.
        auxiliary: dict of output names to losses outside the weighting, or `None`.
        output_names: the names of a network whose outputs are a list or tuple, or `None`.
    """

    def __init__(self, loss, auxiliary=None, output_names=None):
        self._single = isinstance(loss, GroupedLoss)
        self._output_names = output_names
        if not self._single and not (isinstance(loss, Mapping) and loss):
            raise ValueError(
                "`loss` must be a GroupedLoss, or a dict of at least one output name to a loss "
                f"or GroupedLoss. Received: loss={loss!r}"
            )
        if self._single and auxiliary:
            raise ValueError(
                "`auxiliary` needs `loss` as a dict of output names. "
                f"Received: loss={loss!r}, auxiliary={auxiliary!r}"
            )
        outputs: dict[Any, Any] = {None: loss} if self._single else dict(loss)
        self.losses = {
            name: value if isinstance(value, GroupedLoss) else OutputLoss(value, name)
            for name, value in outputs.items()
            if value is not None
        }
        self.auxiliary = {name: OutputLoss(v, name) for name, v in (auxiliary or {}).items()}
        both = sorted(set(self.losses) & set(self.auxiliary))
        if both:
            raise ValueError(f"An output cannot be a task and auxiliary. Received both for: {both}")
        self.task_names = tuple(n for loss in self.losses.values() for n in loss.task_names)

    def __call__(self, y, y_pred, sample_weight=None) -> TaskTotals:
        outputs = self._by_output(y_pred, "outputs")
        targets = self._by_output(y, "targets")
        totals, counts = [], []
        for name, loss in self.losses.items():
            total, count = self._evaluate(name, loss, targets, outputs, sample_weight)
            totals.append(total)
            counts.append(count)
        auxiliary = None
        for name, loss in self.auxiliary.items():
            total, count = self._evaluate(name, loss, targets, outputs, sample_weight)
            auxiliary = add(auxiliary, ops.sum(total / ops.where(count > 0, count, 1.0)))
        return TaskTotals(ops.concatenate(totals), ops.concatenate(counts), auxiliary)

    def outputs_of_tasks(self, y_pred) -> list:
        """The outputs that carry tasks, in the order of `losses`."""
        outputs = self._by_output(y_pred, "outputs")
        return [outputs[name] for name in self.losses]

    def tasks_per_output(self) -> list[int]:
        """The number of tasks in each of `outputs_of_tasks`."""
        return [len(loss.task_names) for loss in self.losses.values()]

    def check_groups(self, y) -> None:
        """Raises a `ValueError` if the arrays `y` hold a group id outside its loss's range."""
        targets = self._by_output(y, "targets")
        for name, loss in self.losses.items():
            if isinstance(loss, GroupedLoss):
                loss.check_groups(_grouped_target(name, targets)["groups"])

    def expand_weights(self, sample_weight: Mapping) -> dict:
        """Weights by output in the structure of the targets, in which Keras wants arrays."""
        return {
            name: {"labels": weight, "groups": weight}
            if isinstance(self.losses.get(name), GroupedLoss) and not isinstance(weight, Mapping)
            else weight
            for name, weight in sample_weight.items()
        }

    def for_metrics(self, y, y_pred, sample_weight=None):
        """What Keras's compiled metrics see: task outputs, and labels instead of groups.

        Returns:
            `y`, `y_pred` and `sample_weight`; a grouped output's weight is 0 outside its groups.
        """
        outputs = self._by_output(y_pred, "outputs")
        targets = self._by_output(y, "targets")
        names = [*self.losses, *self.auxiliary]
        labels = {name: _labels(targets[name]) for name in names}
        weights = {name: self._metric_weight(name, targets, sample_weight) for name in names}
        if len(names) == 1:
            return labels[names[0]], outputs[names[0]], weights[names[0]]
        return labels, {name: outputs[name] for name in names}, weights

    def _metric_weight(self, name, targets, sample_weight):
        weight = self._weight_of(name, sample_weight)
        if not isinstance(self.losses.get(name), GroupedLoss):
            return weight
        inside = ops.cast(targets[name]["groups"] >= 0, "float32")
        return inside if weight is None else inside * _align(weight, inside, "sample_weight")

    def _evaluate(self, name, loss, targets, outputs, sample_weight):
        target = targets[name]
        if isinstance(loss, GroupedLoss):
            target = _grouped_target(name, targets)
        return loss.totals_and_counts(target, outputs[name], self._weight_of(name, sample_weight))

    def _weight_of(self, name, sample_weight):
        weight = sample_weight
        if isinstance(weight, list | tuple):
            weight = dict(zip(self._output_names, weight, strict=True))
        if isinstance(weight, Mapping) and name in weight:
            weight = weight[name]
        elif isinstance(weight, Mapping) and "labels" not in weight:
            return None
        return weight["labels"] if isinstance(weight, Mapping) else weight

    def _check_output_names(self):
        names = self._output_names
        if len(set(names)) < len(names):
            raise ValueError(
                "The outputs in a list must have distinct names; give them in a dict instead. "
                f"Received: {names}"
            )

    def _by_output(self, structure, what: str) -> dict:
        expected = [*self.losses, *self.auxiliary]
        listed = isinstance(structure, list | tuple)
        if what == "outputs" and listed and len(expected) == 1 and not self._output_names:
            raise ValueError(
                "The outputs of a network that is not functional must be one tensor or a dict. "
                f"Received: outputs as a {type(structure).__name__}"
            )
        if expected == [None]:
            return {None: structure}
        if isinstance(structure, Mapping):
            found = dict(structure)
        elif listed and self._output_names:
            self._check_output_names()
            found = dict(zip(self._output_names, structure, strict=True))
        elif len(expected) == 1:
            found = {expected[0]: structure}
        else:
            raise ValueError(
                f"Expected {what} as a dict with the keys {expected}. "
                f"Received: {type(structure).__name__}"
            )
        if len(expected) == 1 and set(found) == {"labels", "groups"} and what == "targets":
            found = {expected[0]: found}
        missing = [name for name in expected if name not in found]
        if missing:
            raise ValueError(
                f"The keys of `loss` and `auxiliary` must be among the {what} of the network. "
                f"Received: no {what} for {missing}, only for {sorted(found)}"
            )
        return found


def _elementwise(loss):
    """Resolves a loss to something with `call(y_true, y_pred)`, before any reduction."""
    if isinstance(loss, GroupedLoss | Mapping | list | tuple) or loss is None:
        raise ValueError(f"A loss must be a Keras loss name, function or Loss. Received: {loss!r}")
    return keras.losses.get(loss)


def _values_and_weights(loss, y_true, y_pred, sample_weight):
    """Per-element losses times their weights, and the weights or `None`; float32, same shape."""
    y_pred = _cast_float(y_pred)
    if sample_weight is not None:
        y_true = _finite_where(ops.equal(sample_weight, 0), y_true)
    y_true = ops.convert_to_tensor(y_true) if _takes_indices(loss) else _cast_float(y_true)
    if isinstance(loss, keras.losses.Loss):
        values = _cast_float(loss.call(y_true, y_pred))
    else:
        values = _cast_float(loss(*squeeze_or_expand_to_same_rank(y_true, y_pred)))
    masks = [mask for mask in map(get_keras_mask, (y_pred, values)) if mask is not None]
    if len(values.shape) == 0:
        values = ops.broadcast_to(values, ops.shape(y_pred)[:1])
    weights = (
        None
        if sample_weight is None
        else _align(ops.cast(sample_weight, "float32"), values, "sample_weight")
    )
    for mask in masks:
        mask = _align(ops.cast(mask, "float32"), values, "mask")
        weights = mask if weights is None else weights * mask
    if weights is None:
        return values, None
    return ops.where(weights != 0, values * weights, 0.0), weights


def _finite_where(excluded, labels):
    """Labels with 0 for what is not finite at `excluded` elements, or elements of leading axes.

    To leave out the loss of such an element is not enough: its gradient would be 0 * NaN.
    """
    labels = ops.convert_to_tensor(labels)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(labels.dtype)):
        return labels
    rank = len(labels.shape)
    if len(excluded.shape) == rank + 1 and excluded.shape[-1] == 1:
        excluded = ops.squeeze(excluded, axis=-1)
    excluded = ops.reshape(excluded, (*ops.shape(excluded), *[1] * (rank - len(excluded.shape))))
    sizes = zip(excluded.shape, labels.shape, strict=False)
    if len(excluded.shape) > rank or any(e not in (1, n) and n is not None for e, n in sizes):
        return labels  # A loss whose elements are not those of the labels.
    broken = ops.logical_and(excluded, ops.logical_not(ops.isfinite(labels)))
    return ops.where(broken, ops.zeros_like(labels), labels)


def _takes_indices(loss) -> bool:
    """Whether class indices may stay integers; all other losses get floats, as from Keras."""
    return (
        type(loss) is keras.losses.SparseCategoricalCrossentropy
        or loss is keras.losses.sparse_categorical_crossentropy
    )


def _cast_float(x):
    """Casts to float32, keeping a Keras mask."""
    cast, mask = ops.cast(x, "float32"), get_keras_mask(x)
    if mask is not None and cast is not x:
        set_keras_mask(cast, mask)
    return cast


def _align(x, values, name: str):
    """Broadcasts `x` to the shape of `values` from the left: `(B,)` to `(B, T)`, for example."""
    x = ops.convert_to_tensor(x)
    if len(x.shape) == len(values.shape) + 1 and x.shape[-1] == 1:
        x = ops.squeeze(x, axis=-1)
    if len(x.shape) > len(values.shape):
        raise ValueError(
            f"`{name}` must have the shape {tuple(values.shape)} of the losses' elements, or of "
            f"their leading axes. Received: shape {tuple(x.shape)}"
        )
    if tuple(x.shape) == tuple(values.shape):
        return x
    while len(x.shape) < len(values.shape):
        x = ops.expand_dims(x, -1)
    return ops.broadcast_to(x, ops.shape(values))


def _labels(target):
    return target["labels"] if isinstance(target, Mapping) else target


def _grouped_target(name, targets):
    target = targets[name]
    if not (isinstance(target, Mapping) and {"labels", "groups"} <= set(target)):
        raise ValueError(
            "The target of a GroupedLoss must be a dict with the keys 'labels' and 'groups'. "
            f"Received for output {name!r}: "
            f"{sorted(target) if isinstance(target, Mapping) else type(target).__name__}"
        )
    return target


def _check_names(names) -> None:
    bad = [n for n in names if not isinstance(n, str) or not n]
    if bad:
        raise ValueError(f"Task names must be non-empty strings. Received: {bad}")


def check_log_names(names) -> None:
    """Raises a `ValueError` if the logs of the tasks `names` would share a name."""
    logs = [log for name in names for log in (f"{name}_loss", f"{name}_weight")]
    logs += ["loss", "worst_loss", "mean_loss"]
    logs += [f"val_{log}" for log in logs]
    clashing = sorted({log for log in logs if logs.count(log) > 1})
    if clashing:
        raise ValueError(
            "Task names must be distinct, and leave the log names 'loss', 'worst_loss' and "
            f"'mean_loss' free. Received: tasks {names}, which share the logs {clashing}"
        )
