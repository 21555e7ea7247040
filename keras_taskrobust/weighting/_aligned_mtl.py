"""Aligned-MTL: the principal components of the gradients, brought to one scale."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import matrix_vector
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, mean_weights
from keras_taskrobust.weighting.registry import register

SCALES = ("min", "median", "rmse")


@register("aligned_mtl")
class AlignedMTL(GramianWeighting):
    """Independent component alignment (Senushkin et al. 2023, algorithm 1).

    `w = sqrt(s) V diag(1 / sqrt(lambda)) V' p`, `G = V diag(lambda) V'`, `p = 1 / n`: the gradients
    are replaced by orthogonal ones of one length. `s` is the smallest, the (lower) median or the
    mean of the eigenvalues. Weights may be negative.

    Eigenvalues below `1.2e-7 K max(lambda)` are left out, as in the official code and torchjd in
    float32: a task whose gradient is 1e3 to 1e4 times shorter than the longest has no say, and
    weight 0.

    Args:
        scale: "min" (the paper's), "median" or "rmse".

    Example:

    >>> import numpy as np
    >>> weights = AlignedMTL().compute_weights(np.ones(2), gramian=np.diag([1.0, 4.0]))
    >>> np.asarray(weights).round(4).tolist()
    [0.5, 0.25]

    Reference:
        [Independent Component Alignment for Multi-Task Learning]
        (https://arxiv.org/abs/2305.19000), CVPR 2023.
    """

    facts = MethodFacts(
        "principal components of the gradients at one scale",
        "Senushkin et al. 2023",
        2023,
        balances_magnitudes=True,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        nonnegative=False,
        scale="same",
    )

    def __init__(self, scale: str = "min", **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = checks.choice("scale", scale, SCALES)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        largest = ops.max(ops.abs(tasks.gramian))
        gramian = tasks.gramian / ops.where(largest > 0, largest, 1.0)
        values, vectors = ops.eigh(gramian)
        size = gramian.shape[0]
        kept = values > 1.2e-7 * size * ops.max(values)
        rank = ops.sum(ops.cast(kept, "int32"))
        if self.scale == "rmse":
            total = ops.sum(ops.where(kept, values, 0.0))
            chosen = total / ops.cast(ops.maximum(rank, 1), "float32")
        else:
            # Ascending: those kept are the last ones.
            steps = ops.maximum(rank - 1, 0) // 2 if self.scale == "median" else 0
            chosen = ops.take(values, ops.clip(size - rank + steps, 0, size - 1))
        factors = ops.sqrt(ops.where(kept, chosen / ops.where(kept, values, 1.0), 0.0))
        mean = mean_weights(tasks)
        weights = matrix_vector(vectors, factors * matrix_vector(ops.transpose(vectors), mean))
        return TaskUpdate(ops.where(rank > 0, weights, mean))

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
