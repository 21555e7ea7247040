"""Predictions to per-task totals and counts: one loss per output, or one loss split by groups."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras import ops

from keras_taskrobust.training.gradients import add
from keras_taskrobust.training.loss_values import align
from keras_taskrobust.training.output_losses import GroupedLoss, OutputLoss


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
        return inside if weight is None else inside * align(weight, inside, "sample_weight")

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
