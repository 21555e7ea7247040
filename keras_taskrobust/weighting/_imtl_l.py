"""IMTL-L: learned scales that bring every loss to 1."""

from typing import Any

from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting, gradient_only
from keras_taskrobust.weighting.registry import register


@register("imtl_l")
class ImpartialLoss(TaskWeighting):
    """Learned loss scales (Liu et al. 2021, the loss balance of IMTL).

    Objective `sum_k exp(s_k) L_k - s_k` over the present tasks, with trainable `s_k` that start at
    0. At its optimum every scaled loss is 1. It is `UncertaintyWeighting` with `s = -s`, derived
    without a likelihood; the paper descends on `s` with the model's optimizer, as here.

    Args:
        learning_rate: float or `None`. Learning rate of `s`; `None`: the model's own.

    Example:

    >>> import numpy as np
    >>> np.asarray(ImpartialLoss().compute_weights(np.array([1.0, 3.0]))).tolist()
    [1.0, 1.0]

    Reference:
        [Towards Impartial Multi-task Learning](https://openreview.net/forum?id=IMPnRXEWpvr),
        ICLR 2021.
    """

    facts = MethodFacts(
        "learned scales that bring every loss to 1",
        "Liu et al. 2021",
        2021,
        balances_magnitudes=True,
        needs_no_tuning=True,
        total="free",
        lone_task=False,
        scale="same",
    )

    def __init__(self, learning_rate: float | None = None, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)

    def create_state(self, num_tasks: int) -> None:
        self.log_scales = self.add_weight(
            name="log_scales", shape=(num_tasks,), initializer="zeros"
        )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return ops.exp(ops.convert_to_tensor(self.log_scales))

    def regulariser(self, tasks: TaskBatch) -> Tensor:
        # The objective holds the scaled losses already.
        slope = gradient_only(self.weigh(tasks) * tasks.losses)
        penalty = -ops.convert_to_tensor(self.log_scales)
        return ops.sum(ops.where(tasks.present, slope + penalty, 0.0))
