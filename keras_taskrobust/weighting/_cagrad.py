"""CAGrad: near the mean gradient, the direction best for the worst task."""

from typing import Any

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import conflict_averse_weights
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register

RESCALINGS = ("none", "squared", "linear")


@register("cagrad")
class CAGrad(GramianWeighting):
    """Conflict-averse gradient descent (Liu et al. 2021, algorithm 1).

    `d = argmax_d min_k <g_k, d>` over `||d - g_0|| <= c ||g_0||`, `g_0` the mean gradient, divided
    by 1, `1 + c^2` or `1 + c`. `c = 0` is the mean; as `c` grows, MGDA. For `c < 1` it converges to
    a stationary point of the mean.

    Solved exactly in the dual cone's variables, where the official code runs SciPy's SLSQP with
    1e-8 added under its square roots, and torchjd a conic solver on the CPU.

    Args:
        c: float >= 0, the radius relative to the mean gradient. 0.5 is LibMTL's default; the
            official code has 0.4 for NYUv2 and 0.4 and 0.6 for Cityscapes.
        rescaling: "none", "squared" (`1 + c^2`, the official code's and LibMTL's default) or
            "linear" (`1 + c`): their `rescale` 0, 1 and 2. torchjd does not rescale.

    Example:

    >>> import numpy as np
    >>> layer = CAGrad(rescaling="none")
    >>> weights = layer.compute_weights(np.array([1.0, 1.0]), gramian=np.diag([1.0, 9.0]))
    >>> print(np.asarray(weights).round(4))
    [1.2906 0.5   ]

    Reference:
        [Conflict-Averse Gradient Descent for Multi-task Learning]
        (https://arxiv.org/abs/2110.14048), NeurIPS 2021.
    """

    facts = MethodFacts(
        "near the mean gradient, best for the worst task",
        "Liu et al. 2021",
        2021,
        balances_learning=True,
        cost="Gramian",
        total="free",
        lone_task=False,
        scale="same",
    )

    def __init__(self, c: float = 0.5, rescaling: str = "squared", **kwargs: Any):
        super().__init__(**kwargs)
        self.c = checks.nonnegative("c", c)
        self.rescaling = checks.choice("rescaling", rescaling, RESCALINGS)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        divisor = {"none": 1.0, "squared": 1.0 + self.c**2, "linear": 1.0 + self.c}
        weights = conflict_averse_weights(tasks.gramian, tasks.present, self.c)
        return TaskUpdate(weights / divisor[self.rescaling])

    def get_config(self):
        return {**super().get_config(), "c": self.c, "rescaling": self.rescaling}
