"""Predictions to per-task totals and counts: one loss per output, or one loss split by groups."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_taskrobust.training.loss_values import takes_indices, with_rank
from keras_taskrobust.training.output_losses import (
    GroupedLoss,
    OutputLoss,
    check_known,
    in_output,
)
from keras_taskrobust.training.outputs import by_name, weights_by_target
from keras_taskrobust.training.tasks import TaskTotals


class TaskLosses:
    """Knows which output belongs to which tasks.

    Args:
        loss: a loss or `GroupedLoss` for the only output; a list with one for each output; or a
            dict of output names to them, nested as the outputs are. `None` for an output that is
            meant to have none.
        auxiliary: dict of output names to losses outside the weighting, or `None`.
        output_names: the names of the network's outputs, or `None` if only a call can tell them.
        names_in_logs: dict of output names to those in the logs of metrics, where they differ.

    Attributes:
        losses: dict of output names to `OutputLoss`es and `GroupedLoss`es.
        auxiliary: dict of output names to `OutputLoss`es.
        task_names: the K names.
        are_of_different_kinds: bool. Whether outputs have different functions as losses.
        leaves_some_untrained: bool. Whether an output is meant to have no loss.
    """

    def __init__(self, loss, auxiliary=None, output_names=None, names_in_logs=None):
        self._output_names = output_names
        self._names_in_logs = names_in_logs or {}
        self._is_single = _is_one_loss(loss)
        if self._is_single and auxiliary:
            raise ValueError(
                "`auxiliary` needs `loss` as a dict of output names. "
                f"Received: loss={loss!r}, auxiliary={auxiliary!r}"
            )
        outputs = _losses_by_output(loss, output_names)
        self.losses = {
            name: value if isinstance(value, GroupedLoss) else OutputLoss(value, name)
            for name, value in outputs.items()
            if value is not None
        }
        self.auxiliary = {name: OutputLoss(v, name) for name, v in by_name(auxiliary or {}).items()}
        both = sorted(set(self.losses) & set(self.auxiliary))
        if both:
            raise ValueError(f"An output cannot be a task and auxiliary. Received both for: {both}")
        self._scored = [*self.losses, *self.auxiliary]
        self._named = [*dict.fromkeys([*outputs, *self.auxiliary])]
        self.leaves_some_untrained = len(self._named) > len(self._scored)
        functions = {getattr(one.loss, "fn", one.loss) for one in self.losses.values()}
        self.are_of_different_kinds = len(functions) > 1
        self._has_looked_for_others = False
        self.task_names = tuple(n for loss in self.losses.values() for n in loss.task_names)

    def __call__(self, y: Any, y_pred: Any, sample_weight: Any = None) -> TaskTotals:
        self._warn_of_others(self._outputs(y_pred))
        batch = y, y_pred, sample_weight
        totals, counts = self._sums(self.losses, *batch)
        auxiliary = self._sums(self.auxiliary, *batch) if self.auxiliary else None
        return TaskTotals(totals, counts, auxiliary)

    def by_output(self, y: Any, y_pred: Any, sample_weight: Any) -> Iterator[tuple]:
        """Name, loss, target, output and sample weight (or `None`) of each output with tasks."""
        return self._by_output(self.losses, y, y_pred, sample_weight)

    def outputs_by_name(self, y_pred: Any) -> dict[str, Any]:
        """All outputs."""
        return self._outputs(y_pred)

    def outputs_of_tasks(self, y_pred: Any) -> list:
        """The outputs that carry tasks, in the order of `losses`."""
        outputs = self._outputs(y_pred)
        return [outputs[name] for name in self.losses]

    def tasks_per_output(self) -> list[int]:
        """The number of tasks in each of `outputs_of_tasks`."""
        return [len(loss.task_names) for loss in self.losses.values()]

    def target_of(self, name: str, y: Any) -> Any:
        """What the targets `y` hold for the output `name`, which has a loss."""
        return self._targets(y, self._named)[name]

    def check_groups(self, y: Any) -> None:
        """Raises a `ValueError` if the arrays `y` hold a group id outside its loss's range."""
        targets = self._targets(y, self._named)
        for name, loss in self.losses.items():
            if isinstance(loss, GroupedLoss):
                loss.check_groups(_grouped_target(name, targets)["groups"])

    def check_labels(self, y: Any, sample_weight: Any) -> None:
        """Raises a `ValueError` if a label in the arrays `y` is NaN, and its weight not 0."""
        targets = self._targets(y, self._named)
        weights = self._weights(sample_weight, self._named)
        for name, loss in self.losses.items():
            if isinstance(loss, OutputLoss):
                check_known(name, loss.loss, targets[name], weights.get(name))

    def weights_like_targets(self, y, sample_weight):
        """Weights in the structure of the targets `y`, in which Keras wants arrays."""
        if isinstance(sample_weight, Mapping) and isinstance(y, Mapping):
            return weights_by_target(y, sample_weight)
        if isinstance(sample_weight, Mapping) and isinstance(y, list | tuple):
            targets = self._by_position(y, "targets")
            return [*weights_by_target(targets, sample_weight).values()]
        is_one = not isinstance(sample_weight, Mapping | list | tuple | None)
        if is_one and len(self._scored) == 1 and isinstance(y, Mapping | list | tuple):
            return keras.tree.map_structure(lambda target: sample_weight, y)
        return sample_weight

    def weights_of_classes(self, y: Any, class_weight: Mapping) -> np.ndarray | None:
        """The sample weights that `class_weight` means for the only loss.

        Args:
            y: the targets as arrays, or `None` for those of a data set.
            class_weight: dict of class indices to weights; 1 for all others.

        Returns:
            float32 array with the shape of the labels, or `None` where Keras forms the weights: for
            the labels of samples, which are not split into groups.

        Raises:
            ValueError: if there is more than one loss, or a `GroupedLoss` whose labels are not
                arrays of class indices.
        """
        if len(self._scored) > 1:
            raise ValueError(
                "`class_weight` needs a model with one loss; give `sample_weight` by output "
                f"instead. Received: losses for {self._scored}"
            )
        ((name, loss),) = self.losses.items()
        if y is not None and takes_indices(loss.loss):
            labels = ops.convert_to_numpy(_labels(self._targets(y, self._named)[name]))
            table = np.ones(max(class_weight) + 1, "float32")
            table[list(class_weight)] = list(class_weight.values())
            known = (labels >= 0) & (labels < len(table))
            return np.where(known, table[np.where(known, labels, 0).astype(int)], np.float32(1))
        if isinstance(loss, GroupedLoss) or isinstance(y, Mapping | list | tuple):
            raise ValueError(
                "`class_weight` needs labels that are arrays of class indices, and a sparse "
                "categorical cross-entropy; give `sample_weight` instead. "
                f"Received: the loss {loss.loss!r} for {'a data set' if y is None else 'arrays'}"
            )
        return None

    def for_metrics(self, y, y_pred, sample_weight=None):
        """What Keras's compiled metrics see: all outputs, and labels instead of groups.

        Returns:
            `y`, `y_pred` and `sample_weight`, with `None` for what an output has not; a grouped
            output's weight is 0 outside its groups.
        """
        outputs = self._outputs(y_pred)
        targets = self._targets(y, outputs)
        given = self._weights(sample_weight, outputs)

        def like_outputs(value_of):
            if isinstance(y_pred, Mapping):
                return {self._names_in_logs.get(n, n): value_of(n) for n in outputs}
            values = [value_of(name) for name in outputs]
            return values if isinstance(y_pred, list | tuple) else values[0]

        return (
            like_outputs(lambda name: _labels(targets.get(name))),
            like_outputs(outputs.__getitem__),
            like_outputs(lambda name: self._metric_weight(name, targets, given)),
        )

    def check_metrics(self, metrics: Any, y: Any, y_pred: Any, argument: str) -> None:
        """Raises a `ValueError` for metrics of unknown outputs, or of outputs without targets.

        Args:
            metrics: what `compile` was given.
            y: the targets.
            y_pred: the network's outputs.
            argument: its name in `compile`.
        """
        if not metrics:
            return
        outputs = self._outputs(y_pred)
        asked = [*outputs]
        if isinstance(metrics, Mapping):
            asked = [name for name, metric in by_name(metrics).items() if metric]
        elif any("/" in name for name in outputs) and len(outputs) > 1:
            raise ValueError(
                f"`{argument}` of outputs in nested dicts must be a dict nested as they are. "
                f"Received: {argument}={metrics!r}"
            )
        elif len(metrics) == len(outputs) > 1:
            asked = [name for name, metric in zip(outputs, metrics, strict=True) if metric]
        known = by_name(y_pred) if isinstance(y_pred, Mapping) else self._output_names or ()
        unknown = [name for name in asked if name not in outputs and name not in known]
        if unknown:
            raise ValueError(
                f"The keys of `{argument}` must be among the outputs of the network. "
                f"Received: {unknown}, for the outputs {sorted(outputs)}"
            )
        targets = self._targets(y, outputs)
        missing = [name for name in asked if name in outputs and targets.get(name) is None]
        if missing:
            raise ValueError(
                f"`{argument}` need targets of their outputs. Received: no targets for {missing}"
            )

    def _metric_weight(self, name, targets, weights):
        weight = weights.get(name)
        if not isinstance(self.losses.get(name), GroupedLoss):
            return weight
        inside = ops.cast(targets[name]["groups"] >= 0, "float32")
        if weight is None:
            return inside
        rank = max(len(inside.shape), len(weight.shape))
        return with_rank(inside, rank) * with_rank(ops.cast(weight, "float32"), rank)

    def _sums(self, losses, *batch):
        totals, counts = [], []
        for name, loss, *elements in self._by_output(losses, *batch):
            with in_output(name):
                total, count = loss.totals_and_counts(*elements)
            totals.append(total)
            counts.append(count)
        return ops.concatenate(totals), ops.concatenate(counts)

    def _by_output(self, losses, y, y_pred, sample_weight):
        outputs = self._outputs(y_pred)
        targets = self._targets(y, outputs)
        weights = self._weights(sample_weight, outputs)
        for name, loss in losses.items():
            is_grouped = isinstance(loss, GroupedLoss)
            target = _grouped_target(name, targets) if is_grouped else targets[name]
            yield name, loss, target, outputs[name], weights.get(name)

    def _outputs(self, y_pred: Any) -> dict:
        """All outputs by name."""
        if isinstance(y_pred, Mapping):
            found = self._renamed(by_name(y_pred))
        elif isinstance(y_pred, list | tuple):
            found = self._listed(y_pred)
        elif len(self._named) == 1:
            return {self._named[0]: y_pred}
        else:
            raise _expected_dict("outputs", self._named, y_pred)
        return _with_all("outputs", self._named, found)

    def _listed(self, y_pred: Any) -> dict:
        names = self._output_names
        if not names:
            raise ValueError(
                "The outputs of a network that is not functional must be one tensor or a dict. "
                f"Received: outputs as a {type(y_pred).__name__}"
            )
        _check_distinct(names)
        if len(names) != len(y_pred):
            raise ValueError(
                "Outputs in nested lists have no names: give them in a dict instead. "
                f"Received: {len(y_pred)} outputs in a {type(y_pred).__name__}, named {names}"
            )
        return self._renamed(dict(zip(names, y_pred, strict=True)))

    def _targets(self, y: Any, names: Iterable[str]) -> dict:
        """The targets by the `names` of their outputs; those of a loss must be there."""
        if isinstance(y, Mapping):
            is_grouped = len(self._scored) == 1 and set(y) == {"labels", "groups"}
            found = {self._scored[0]: y} if is_grouped else self._leaves(y, names)
        elif isinstance(y, list | tuple) and self._output_names:
            found = self._renamed(self._by_position(y, "targets"))
        elif len(self._scored) == 1:
            return {self._scored[0]: y}
        else:
            raise _expected_dict("targets", self._scored, y)
        return _with_all("targets", self._scored, found)

    def _weights(self, sample_weight: Any, names: Iterable[str]) -> dict:
        """The sample weights by the `names` of their outputs, of all that have one."""
        found = sample_weight
        if isinstance(found, list | tuple):
            found = self._by_position(found, "sample weights")
        if isinstance(found, Mapping):
            if "labels" not in found or "labels" in names:
                found = self._leaves(found, names)
                return {name: _labels(weight) for name, weight in found.items()}
            found = found["labels"]
        return {} if found is None else dict.fromkeys(names, found)

    def _by_position(self, values: Sequence, what: str) -> dict:
        """Values of all outputs, or of those with a loss, in the order of the outputs."""
        names = self._output_names or ()
        _check_distinct(names)
        if len(values) != len(names):
            names = [name for name in names if name in self._scored]
        if len(values) != len(names):
            raise ValueError(
                f"{what.capitalize()} in a list must be those of the outputs "
                f"{self._output_names}. Received: {len(values)} {what}"
            )
        return dict(zip(names, values, strict=True))

    def _leaves(self, given: Mapping, names: Iterable[str]) -> dict:
        """What is given by output, where labels and groups may stand together."""
        return self._renamed(
            by_name(given, lambda name, value: name in names or set(value) == {"labels", "groups"})
        )

    def _renamed(self, found: dict) -> dict:
        """One loss for the only output has it, whatever it is called."""
        if self._is_single and len(found) == 1:
            return {self._scored[0]: next(iter(found.values()))}
        return found

    def _warn_of_others(self, outputs):
        if self._has_looked_for_others:
            return
        self._has_looked_for_others = True
        others = sorted(set(outputs) - set(self._named))
        if others:
            warnings.warn(
                f"The outputs {others} have no loss, so nothing trains them. Give them one in "
                "`loss` or `auxiliary`; to silence this warning, say that they are meant to have "
                f"none: `loss={{..., {others[0]!r}: None}}`.",
                stacklevel=2,
            )


def _is_one_loss(loss: Any) -> bool:
    return isinstance(loss, str | GroupedLoss) or callable(loss)


def _losses_by_output(loss: Any, output_names: Sequence[str] | None) -> dict:
    """What is given for each output by its name; `None` among it."""
    given: dict[str, Any] = {}
    names = output_names
    if _is_one_loss(loss) and (names is None or len(names) == 1):
        given = {names[0] if names else "output": loss}
    elif isinstance(loss, Mapping):
        given = by_name(loss)
    elif isinstance(loss, list | tuple) and names and len(loss) == len(names):
        _check_distinct(names)
        given = dict(zip(names, loss, strict=True))
    if all(value is None for value in given.values()):
        raise ValueError(
            "`loss` must be a GroupedLoss, or a dict of at least one output name to a loss or "
            "GroupedLoss, a list with one for each output of a functional network, or a loss for "
            f"its only output. Received: loss={loss!r}" + (f", outputs={names}" if names else "")
        )
    return given


def _check_distinct(names):
    if len(set(names)) < len(names):
        raise ValueError(
            "The outputs in a list must have distinct names; give them in a dict instead. "
            f"Received: {names}"
        )


def _expected_dict(what, names, structure):
    return ValueError(
        f"Expected {what} as a dict with the keys {names}. Received: {type(structure).__name__}"
    )


def _with_all(what: str, names: Iterable[str], found: dict) -> dict:
    missing = [name for name in names if name not in found]
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
            "The target of a GroupedLoss must be a dict with the keys 'labels' and 'groups', as in "
            '`fit(x, {"labels": y, "groups": groups})`; where classes are the groups, both are y. '
            f"Received for output {name!r}: "
            f"{sorted(target) if isinstance(target, Mapping) else type(target).__name__}"
        )
    return target
