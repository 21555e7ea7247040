"""FairGrad: alpha-fair gains for the tasks."""

from typing import Any

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import bargaining_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, mean_weights
from keras_taskrobust.weighting.registry import register


@register("fairgrad")
class FairGrad(GramianWeighting):
    """Alpha-fair resource allocation (Ban and Ji 2024, eq. 4): `(G w)_k = w_k^(-1 / alpha)`.

    The direction that maximises the alpha-fair utility of the tasks' gains. `alpha -> 0` is the
    mean, which `alpha=0` gives; 1 is proportional fairness, Nash-MTL's direction;
    `alpha -> infinity` favours the task that gains least.

    Solved to the precision of float32; official code and torchjd run SciPy's `least_squares` from
    equal weights, which may stop short on ill-scaled Gramians. Where gradients oppose one another
    there is no solution: the weights nearly cancel them. A task whose gradient is zero has
    weight 0.

    Args:
        alpha: float >= 0. 1.0 is the default of the official code and of LibMTL; the paper uses 2.0
            for NYUv2 and Cityscapes.

    Example:

    >>> import numpy as np
    >>> layer = FairGrad(alpha=1.0)
    >>> weights = layer.compute_weights(np.ones(2), gramian=np.diag([1.0, 16.0]))
    >>> np.asarray(weights).round(4).tolist()
    [1.0, 0.25]

    Reference:
        [Fair Resource Allocation in Multi-Task Learning](https://arxiv.org/abs/2402.15638),
        ICML 2024.
    """

    facts = MethodFacts(
        "alpha-fair gains for the tasks",
        "Ban and Ji 2024",
        2024,
        balances_magnitudes=True,
        balances_learning=True,
        cost="Gramian",
        total="free",
        lone_task=False,
    )

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = checks.nonnegative("alpha", alpha)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        if self.alpha == 0:
            return TaskUpdate(mean_weights(tasks))
        return TaskUpdate(bargaining_weights(tasks.gramian, self.alpha))

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}
