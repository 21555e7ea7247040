"""The task figures of an epoch: one Keras metric, and its share of a step's logs."""

import functools
import math

import keras
from keras import ops


class TaskMetric(keras.metrics.Metric):
    """Accumulates the task losses and weights since the last reset.

    Its result has `<task>_loss` (total / count) and `<task>_weight` (mean over the steps, 0 where
    the task was absent) of every task, and `worst_loss` and `mean_loss` over the tasks seen. The
    loss of a task never seen is NaN and in neither; that of a task with a non-finite loss is `inf`.

    Args:
        task_names: the K names.
    """

    def __init__(self, task_names, name="tasks"):
        super().__init__(name=name, dtype="float32")
        self.task_names = tuple(task_names)
        # One variable, (5, K), is cheaper to update than five.
        self.sums = self.add_variable((5, len(self.task_names)), "zeros", name="sums")

    def update_state(self, totals, counts, weights):
        """Adds one step's `(K,)` totals, counts and weights."""
        present = ops.cast(counts > 0, "float32")
        sums = ops.stack([totals, counts, weights, ops.ones_like(counts), present])
        self.sums.assign_add(ops.stop_gradient(sums))

    def result(self):
        totals, counts, weights, steps, _ = ops.unstack(ops.convert_to_tensor(self.sums))
        seen = counts > 0
        losses = totals / ops.where(seen, counts, 1.0)
        losses = ops.where(ops.isfinite(losses), losses, float("inf"))
        number = ops.sum(ops.cast(seen, "float32"))
        worst = ops.max(ops.where(seen, losses, -float("inf")))
        worst = ops.where(number > 0, worst, float("nan"))
        mean = ops.sum(ops.where(seen, losses, 0.0)) / number
        losses = ops.where(seen, losses, float("nan"))
        weights = weights / ops.maximum(steps, 1.0)
        figures = ops.concatenate([losses, weights, ops.stack([worst, mean])])
        return dict(zip(self.log_names, ops.unstack(figures), strict=True))

    @functools.cached_property
    def log_names(self) -> tuple[str, ...]:
        """The names of the figures in `result`, in their order."""
        names = self.task_names
        losses, weights = (tuple(f"{n}_{what}" for n in names) for what in ("loss", "weight"))
        return (*losses, *weights, "worst_loss", "mean_loss")

    def packed(self) -> dict:
        """The sums, as one entry of a compiled step's logs: 2K + 2 outputs would cost more."""
        return {self.name: ops.copy(self.sums)}

    def unpack(self, logs: dict) -> dict:
        """The logs of a compiled step with `result`'s entries in the place of `packed`'s."""
        rest = dict(logs)
        sums = _DeferredFigures(rest.pop(self.name))
        for index, name in enumerate(self.log_names):
            rest[name] = _Figure(sums, index)
        return rest


class _DeferredFigures:
    """Reads the sums from the device when the first figure is asked for."""

    def __init__(self, sums):
        self._sums = sums

    @functools.cached_property
    def values(self) -> list[float]:
        """What `TaskMetric.result` holds, in plain Python: for a few tasks faster than NumPy."""
        totals, counts, weights, steps, _ = ops.convert_to_numpy(self._sums).tolist()
        losses = [
            (total / count if math.isfinite(total) else math.inf) if count > 0 else math.nan
            for total, count in zip(totals, counts, strict=True)
        ]
        seen = [loss for loss in losses if not math.isnan(loss)]
        means = [weight / max(steps[0], 1.0) for weight in weights]
        mean_loss = sum(seen) / len(seen) if seen else math.nan
        return [*losses, *means, max(seen, default=math.nan), mean_loss]


class _Figure:
    """One of them: what Keras turns into a float before a callback sees it."""

    def __init__(self, figures, index):
        self._figures = figures
        self._index = index

    def __float__(self):
        return self._figures.values[self._index]
