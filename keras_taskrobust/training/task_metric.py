"""The task figures of an epoch: one Keras metric, and its share of a step's logs."""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import keras
from keras import ops

from keras_taskrobust.training.backends import backend
from keras_taskrobust.types import Tensor


class TaskMetric(keras.metrics.Metric):
    """Accumulates the task losses and weights since the last reset.

    Its result has `<task>_loss` (total / count) and `<task>_weight` (mean over the steps, 0 where
    the task was absent) of every task, and `worst_loss` and `mean_loss` over the tasks seen. The
    loss of a task never seen is NaN and in neither; that of a task with a non-finite loss is `inf`.
    With trivial losses it also has `<task>_trivial_ratio`, the loss over the trivial one, and their
    largest, `worst_trivial_ratio`; NaN where one of both is.

    Args:
        task_names: the K names.
        has_trivial_losses: bool. Whether `update_state` gets them.
    """

    def __init__(self, task_names, has_trivial_losses=False, name="tasks"):
        super().__init__(name=name, dtype="float32")
        self.task_names = tuple(task_names)
        self.has_trivial_losses = has_trivial_losses
        # One variable is cheaper to update than one for each row.
        shape = (5 + has_trivial_losses, len(self.task_names))
        self.sums = self.add_variable(shape, "zeros", name="sums")

    def update_state(self, totals, counts, weights, trivial_losses=None):
        """Adds one step's `(K,)` totals, counts and weights, and keeps its trivial losses."""
        present = ops.cast(counts > 0, "float32")
        rows = [totals, counts, weights, ops.ones_like(counts), present]
        if self.has_trivial_losses:
            # The replicas' rows are summed when the metric is read.
            rows.append(backend.scale_for_replicas(trivial_losses) - self.sums[5])
        self.sums.assign_add(ops.stop_gradient(ops.stack(rows)))

    @property
    def steps(self):
        """The number of steps since the last reset, a scalar."""
        return self.sums[3, 0]

    def result(self):
        """The figures by name: tensors in a compiled function, elsewhere floats."""
        sums = ops.convert_to_tensor(self.sums)
        if backend.is_concrete(sums):
            return dict(zip(self.log_names, _figures(sums), strict=True))
        totals, counts, weights, steps, _, *trivial = ops.unstack(sums)
        seen = counts > 0
        losses = totals / ops.where(seen, counts, 1.0)
        losses = ops.where(ops.isfinite(losses), losses, float("inf"))
        number = ops.sum(ops.cast(seen, "float32"))
        mean = ops.sum(ops.where(seen, losses, 0.0)) / number
        losses = ops.where(seen, losses, float("nan"))
        weights = weights / ops.maximum(steps, 1.0)
        ratios = [losses / ops.where(each == 0, float("nan"), each) for each in trivial]
        worst = [ops.expand_dims(_largest(each), 0) for each in (losses, *ratios)]
        parts = [losses, weights, *ratios, worst[0], ops.expand_dims(mean, 0), *worst[1:]]
        return dict(zip(self.log_names, ops.unstack(ops.concatenate(parts)), strict=True))

    @functools.cached_property
    def log_names(self) -> tuple[str, ...]:
        """The names of the figures in `result`, in their order."""
        return names_of_figures(self.task_names, self.has_trivial_losses)

    def packed(self) -> dict:
        """The sums, as one entry of a compiled step's logs: 2K + 2 outputs would cost more."""
        return {self.name: ops.copy(self.sums)}

    def unpack(self, logs: Mapping) -> Mapping:
        """The logs of a compiled step with `result`'s entries in the place of `packed`'s."""
        others = dict(logs)
        return _StepLogs(others, self.log_names, others.pop(self.name))


def names_of_figures(tasks: Iterable[str], has_ratios: bool) -> tuple[str, ...]:
    """What the figures of tasks are called in logs."""
    kinds = ("loss", "weight", "trivial_ratio") if has_ratios else ("loss", "weight")
    figures = (f"{name}_{kind}" for kind in kinds for name in tasks)
    return (*figures, "worst_loss", "mean_loss", *(["worst_trivial_ratio"] * has_ratios))


def check_log_names(names: Sequence[str]) -> None:
    """Raises a `ValueError` if the logs of the tasks `names` would share a name."""
    logs = ["loss", *names_of_figures(names, has_ratios=True)]
    logs += [f"val_{log}" for log in logs]
    clashing = sorted(log for log, number in Counter(logs).items() if number > 1)
    if clashing:
        raise ValueError(
            "Task names must be distinct, and leave the log names 'loss', 'worst_loss' and "
            f"'mean_loss' free. Received: tasks {names}, which share the logs {clashing}"
        )


def _largest(values):
    """The largest that is not NaN; NaN if all are."""
    known = ~ops.isnan(values)
    largest = ops.max(ops.where(known, values, -float("inf")))
    return ops.where(ops.any(known), largest, float("nan"))


class _StepLogs(Mapping):
    """Reads the figures of the tasks from the device when the first entry is asked for.

    They are floats then: Keras goes through all entries of every step, and asks the others what
    they are.
    """

    def __init__(self, others: dict, names: Sequence[str], sums: Tensor):
        self._others = others
        self._names = names
        self._sums = sums

    @functools.cached_property
    def _entries(self) -> dict:
        return self._others | dict(zip(self._names, _figures(self._sums), strict=True))

    def __getitem__(self, name):
        return self._entries[name]

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._others) + len(self._names)

    def items(self):
        return self._entries.items()


def _figures(sums: Tensor) -> list[float]:
    """What `TaskMetric.result` holds, in plain Python: for a few tasks faster than NumPy."""
    totals, counts, weights, steps, _, *trivial = ops.convert_to_numpy(sums).tolist()
    losses = [
        (total / count if math.isfinite(total) else math.inf) if count > 0 else math.nan
        for total, count in zip(totals, counts, strict=True)
    ]
    seen = [loss for loss in losses if not math.isnan(loss)]
    means = [weight / max(steps[0], 1.0) for weight in weights]
    mean_loss = sum(seen) / len(seen) if seen else math.nan
    worst_loss = max(seen, default=math.nan)
    if not trivial:
        return [*losses, *means, worst_loss, mean_loss]
    ratios = [
        loss / of_constant if of_constant else math.nan
        for loss, of_constant in zip(losses, trivial[0], strict=True)
    ]
    worst_ratio = max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.nan)
    return [*losses, *means, *ratios, worst_loss, mean_loss, worst_ratio]
