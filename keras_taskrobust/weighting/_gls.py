"""The geometric mean of the losses."""

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting, masked_mean
from keras_taskrobust.weighting.registry import register

#: Losses are taken as at least this: the logarithm of 0 has no gradient.
_LEAST = 1e-12


@register("gls")
class GeometricLoss(TaskWeighting):
    """Geometric loss strategy: the objective is the geometric mean of the present tasks' losses.

    `w_k = M / (n L_k)`, `M = (prod_i L_i)^(1 / n)`, over the `n` present tasks: the derivative of
    `M`, so that `sum_k w_k L_k = M`. Whatever unit a task's loss has, its share is the same.

    Defined for positive losses; a loss below 1e-12 is taken as 1e-12 (official code and peers
    give NaN at 0).

    Example:

    >>> import numpy as np
    >>> round(float(GeometricLoss()(np.array([1.0, 4.0]))), 5)
    2.0

    Reference:
        [MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
        Learning](https://arxiv.org/abs/1904.08492), CVPR workshops 2019.
    """

    facts = MethodFacts(
        "geometric mean of the losses",
        "Chennupati et al. 2019",
        2019,
        balances_magnitudes=True,
        needs_no_tuning=True,
        total="free",
        scale="same",
    )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        losses = ops.maximum(tasks.losses, _LEAST)
        mean = ops.exp(masked_mean(ops.log(losses), tasks.present))
        number = ops.maximum(ops.sum(ops.cast(tasks.present, "float32")), 1.0)
        return mean / (number * losses)
