"""Nash-MTL: the bargaining solution."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GramianWeighting
from keras_taskrobust.weighting._solvers import bargaining_weights, matrix_vector
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register


@register("nash_mtl")
class NashMTL(GramianWeighting):
    """The Nash bargaining solution (Navon et al. 2022).

    The direction of the largest product of the tasks' gains: `G alpha = 1 / alpha`, `alpha > 0`.
    It does not depend on the scale of any task's loss. As in the official code, the Gramian is
    divided by its Frobenius norm first, and the step is shortened to `max_norm`: the weights are
    `min(sqrt(||G||), max_norm / sqrt(n)) alpha`.

    Solved to the precision of float32 at every step. The official code runs up to 20 rounds of a
    convex approximation with ECOS, stops at a residual of 1e-3 and starts from the last weights, so
    that what it returns depends on the past, and is all ones where its first call fails; it can
    also skip steps (`update_weights_every`), which a solver on the device does not need. Opposed
    gradients have no bargaining solution: the weights nearly cancel them, and the step is near
    zero. A task whose gradient is zero has weight 0.

    Args:
        max_norm: positive float, or `None` for no limit. 1.0 is the official code's.

    Example:

    >>> import numpy as np
    >>> layer = NashMTL(max_norm=np.sqrt(2.0))
    >>> weights = layer.compute_weights(np.ones(2), gramian=np.diag([1.0, 9.0]))
    >>> print(np.asarray(weights).round(4))
    [1.     0.3333]

    Reference:
        [Multi-Task Learning as a Bargaining Game](https://arxiv.org/abs/2202.01017), ICML 2022.
    """

    facts = MethodFacts(
        "Nash bargaining between the tasks",
        "Navon et al. 2022",
        2022,
        balances_magnitudes=True,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        lone_task=False,
    )

    def __init__(self, max_norm: float | None = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_norm = None if max_norm is None else checks.positive("max_norm", max_norm)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        gramian = tasks.gramian
        largest = ops.max(ops.abs(gramian))
        relative = gramian / ops.where(largest > 0, largest, 1.0)
        frobenius = largest * ops.sqrt(ops.sum(relative * relative))
        weights = ops.sqrt(frobenius) * bargaining_weights(gramian)
        if self.max_norm is None:
            return TaskUpdate(weights)
        length = ops.sqrt(ops.relu(ops.sum(weights * matrix_vector(gramian, weights))))
        return TaskUpdate(weights * ops.minimum(1.0, self.max_norm / ops.maximum(length, 1e-30)))

    def get_config(self):
        return {**super().get_config(), "max_norm": self.max_norm}
