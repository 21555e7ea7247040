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
        shape = (len(self.task_names),)
        self.totals = self.add_variable(shape, "zeros", name="totals")
        self.counts = self.add_variable(shape, "zeros", name="counts")
        self.weights = self.add_variable(shape, "zeros", name="weights")
        self.steps = self.add_variable((), "zeros", name="steps")

    def update_state(self, totals, counts, weights):
        """Adds one step's `(K,)` totals, counts and weights."""
        self.totals.assign_add(ops.stop_gradient(totals))
        self.counts.assign_add(ops.stop_gradient(counts))
        self.weights.assign_add(ops.stop_gradient(weights))
        self.steps.assign_add(1.0)

    def result(self):
        counts = ops.convert_to_tensor(self.counts)
        seen = counts > 0
        losses = self.totals / ops.where(seen, counts, 1.0)
        losses = ops.where(ops.isfinite(losses), losses, float("inf"))
        worst = ops.max(ops.where(seen, losses, -float("inf")))
        number = ops.sum(ops.cast(seen, "float32"))
        mean = ops.sum(ops.where(seen, losses, 0.0)) / number
        weights = self.weights / ops.maximum(self.steps, 1.0)
        named = zip(
            self.task_names,
            ops.unstack(ops.where(seen, losses, float("nan"))),
            ops.unstack(weights),
            strict=True,
        )
        logs = {}
        for name, loss, weight in named:
            logs[f"{name}_loss"] = loss
            logs[f"{name}_weight"] = weight
        logs["worst_loss"] = ops.where(number > 0, worst, float("nan"))
        logs["mean_loss"] = mean
        return logs
