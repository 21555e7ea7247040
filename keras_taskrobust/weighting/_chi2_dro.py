"""The worst case over a chi-square ball around equal weights."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._hard_max import worst_tasks
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting
from keras_taskrobust.weighting.registry import register


@register("chi2_dro")
class ChiSquareDRO(TaskWeighting):
    """`argmax_w sum_k w_k L_k` over the weights within `radius` of equal ones, in chi-square.

    Over the simplex of the `n` present tasks with `(n / 2) sum_k (w_k - 1 / n)^2 <= radius`. The
    solution is `w` proportional to `max(L - eta, 0)`; `eta` has a closed form once it is known how
    many tasks lie above it, so that a sort replaces the bisection of the official code. For a small
    radius the objective is the mean plus `sqrt(2 radius)` standard deviations. A radius of
    `(n - 1) / 2` or more gives the maximum; tied worst tasks share.

    Args:
        radius: positive float. 1.0 is the default of the official code (`google-research/fast-dro`:
            `size` of its geometry "chi-square").

    Example:

    >>> import numpy as np
    >>> layer = ChiSquareDRO(radius=0.125)
    >>> np.asarray(layer.compute_weights(np.array([1.0, 3.0]))).round(4).tolist()
    [0.25, 0.75]

    Reference:
        [Large-Scale Methods for Distributionally Robust Optimization]
        (https://arxiv.org/abs/2010.05893), NeurIPS 2020.
    """

    facts = MethodFacts(
        "worst case over a chi-square ball of weights",
        "Levy et al. 2020",
        2020,
        balances_learning=True,
        scale="same",
    )

    def __init__(self, radius: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.radius = checks.positive("radius", radius)

    def weigh(self, tasks: TaskBatch) -> Tensor:
        present = ops.cast(tasks.present, "float32")
        number = ops.sum(present)
        largest = ops.max(ops.where(tasks.present, tasks.losses, -float("inf")))
        # Distances from the largest loss, ascending; those of absent tasks come last, as infinity.
        distances = ops.where(tasks.present, largest - tasks.losses, float("inf"))
        ascending = ops.sort(distances)
        finite = ops.where(ops.isfinite(ascending), ascending, 0.0)
        sizes = ops.cumsum(ops.ones_like(distances))
        mean = ops.cumsum(finite) / sizes
        # Of the two equal forms, the one without a difference of large squares.
        spread = finite[None] - mean[:, None]
        inside = sizes[None] <= sizes[:, None]
        variance = ops.sum(ops.where(inside, spread * spread, 0.0), axis=1) / sizes
        excess = sizes * (1.0 + 2.0 * self.radius) / ops.maximum(number, 1.0) - 1.0
        reach = mean + ops.sqrt(variance / ops.where(excess > 0, excess, 1.0))
        # The fewest tasks such that the next one is beyond the reach of the threshold.
        following = ops.concatenate([ascending[1:], ops.full((1,), float("inf"))])
        fits = (excess > 0) & (reach <= following)
        fits = fits & (sizes <= number)
        reach = ops.min(ops.where(fits, reach, float("inf")))
        parts = ops.where(tasks.present, ops.relu(reach - distances), 0.0)
        total = ops.sum(parts)
        usable = (total > 0) & ops.isfinite(total)
        weights = parts / ops.where(usable, total, 1.0)
        return ops.where(usable, weights, worst_tasks(tasks))

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
