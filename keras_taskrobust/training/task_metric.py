"""The task figures of an epoch, as one Keras metric."""

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
        # One variable, (4, K), is cheaper to update than four.
        self.sums = self.add_variable((4, len(self.task_names)), "zeros", name="sums")

    def update_state(self, totals, counts, weights):
        """Adds one step's `(K,)` totals, counts and weights."""
        sums = ops.stack([totals, counts, weights, ops.ones_like(counts)])
        self.sums.assign_add(ops.stop_gradient(sums))

    def result(self):
        totals, counts, weights, steps = ops.unstack(ops.convert_to_tensor(self.sums))
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

    @property
    def log_names(self) -> tuple[str, ...]:
        """The names of the figures in `result`, in their order."""
        names = self.task_names
        losses, weights = (tuple(f"{n}_{what}" for n in names) for what in ("loss", "weight"))
        return (*losses, *weights, "worst_loss", "mean_loss")
