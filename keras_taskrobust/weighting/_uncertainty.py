"""Homoscedastic uncertainty: learned weights."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting, gradient_only
from keras_taskrobust.weighting.registry import register


@register("uncertainty")
class UncertaintyWeighting(TaskWeighting):
    """Learned weights from each task's homoscedastic uncertainty (Kendall et al. 2018).

    Objective `sum_k exp(-s_k) L_k + s_k` over the present tasks, with trainable `s_k`, the log
    variances, which start at 0. At its optimum `s_k = log L_k`: every weighted loss is near 1, so
    the method balances magnitudes; it does not favour the worst task.

    The paper derives `L / (2 sigma^2) + log sigma` for regression, half of this objective, and
    `L / sigma^2 + log sigma` for classification. The default is the form of MultiMAE's
    code; `half=True` is the regression form for every task, as in torchjd and, started at
    `s = -0.5`, in LibMTL. MultiMAE's code takes a loss that is
    exactly 0 for an absent task; here the count says so.

    Args:
        half: bool. If True, the objective is `sum_k (exp(-s_k) L_k + s_k) / 2`.
        learning_rate: float or `None`. Learning rate of `s`; `None`: the model's own.

    Example:

    >>> import numpy as np
    >>> np.asarray(UncertaintyWeighting().compute_weights(np.array([1.0, 3.0]))).tolist()
    [1.0, 1.0]

    Reference:
        [Multi-Task Learning Using Uncertainty to Weigh Losses](https://arxiv.org/abs/1705.07115).
    """

    facts = MethodFacts(
        "learned weights by homoscedastic uncertainty",
        "Kendall et al. 2018",
        2018,
        balances_magnitudes=True,
        needs_no_tuning=True,
        total="free",
        lone_task=False,
        scale="same",
    )

    def __init__(self, half: bool = False, learning_rate: float | None = None, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.half = checks.boolean("half", half)

    def create_state(self, num_tasks: int) -> None:
        self.log_variances = self.add_weight(
            name="log_variances", shape=(num_tasks,), initializer="zeros"
        )

    def weigh(self, tasks: TaskBatch) -> Tensor:
        weights = ops.exp(-ops.convert_to_tensor(self.log_variances))
        return 0.5 * weights if self.half else weights

    def regulariser(self, tasks: TaskBatch) -> Tensor:
        # The objective holds the weighted losses already.
        slope = gradient_only(self.weigh(tasks) * tasks.losses)
        penalty = (0.5 if self.half else 1.0) * ops.convert_to_tensor(self.log_variances)
        return ops.sum(ops.where(tasks.present, slope + penalty, 0.0))

    def get_config(self):
        return {**super().get_config(), "half": self.half}
