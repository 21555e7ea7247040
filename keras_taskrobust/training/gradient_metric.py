"""How the task gradients stand to each other: one Keras metric."""

import keras
from keras import ops

from keras_taskrobust.training.backends import backend


class GradientMetric(keras.metrics.Metric):
    """Accumulates norms, cosines and conflicts of the task gradients since the last reset.

    Its result has `<task>_gradient_norm` (mean over the steps where the task was present),
    `gradient_cosine` (mean over the pairs of tasks, then over the steps) and `gradient_conflict`
    (share of the pairs with a negative cosine, mean over the steps). A pair counts where both
    gradients are there and not zero. What was never seen is NaN.

    Args:
        task_names: the K names.
    """

    def __init__(self, task_names, name="task_gradients"):
        super().__init__(name=name, dtype="float32")
        norms = (f"{name}_gradient_norm" for name in task_names)
        #: The names of the figures in `result`, in their order.
        self.log_names = (*norms, "gradient_cosine", "gradient_conflict")
        self.norms = self.add_variable((2, len(task_names)), "zeros", name="norms")
        self.pairs = self.add_variable((3,), "zeros", name="pairs")

    def update_state(self, gramian, counts):
        """Adds one step's `(K, K)` inner products of the gradients of the tasks with `counts`."""
        squares = ops.diagonal(gramian)
        present = (counts > 0) & ops.isfinite(squares)
        norms = ops.sqrt(ops.relu(ops.where(present, squares, 0.0)))
        self.norms.assign_add(ops.stop_gradient(ops.stack([norms, ops.cast(present, "float32")])))
        nonzero = norms > 0
        lengths = ops.where(nonzero, norms, 1.0)
        cosines = gramian / lengths[None] / lengths[:, None]
        both = nonzero[None] & nonzero[:, None]
        order = ops.arange(gramian.shape[0])
        both = both & (order[None] > order[:, None])
        number = ops.sum(ops.cast(both, "float32"))
        cosine = ops.sum(ops.where(both, cosines, 0.0)) / ops.maximum(number, 1.0)
        negative = ops.cast(both & (cosines < 0), "float32")
        conflict = ops.sum(negative) / ops.maximum(number, 1.0)
        seen = ops.cast(number > 0, "float32")
        self.pairs.assign_add(ops.stop_gradient(ops.stack([cosine, conflict, seen])))

    def result(self):
        """The figures by name: tensors in a compiled function, elsewhere floats."""
        sums, steps = ops.unstack(ops.convert_to_tensor(self.norms))
        cosine, conflict, seen = ops.unstack(ops.convert_to_tensor(self.pairs))
        # NaN where nothing was seen.
        figures = ops.concatenate([sums / steps, ops.stack([cosine, conflict]) / seen])
        is_concrete = backend.is_concrete(figures)
        values = ops.convert_to_numpy(figures).tolist() if is_concrete else ops.unstack(figures)
        return dict(zip(self.log_names, values, strict=True))
