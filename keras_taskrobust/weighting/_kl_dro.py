"""The worst case over a Kullback-Leibler ball around equal weights."""

import math
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import TaskBatch, TaskWeighting, masked_mean
from keras_taskrobust.weighting.registry import register

#: Three rounds of this many candidates resolve the temperature to 1e-5 of itself.
_CANDIDATES = 128
_ROUNDS = 3
_LOG_RANGE = (math.log(1e-3), math.log(1e6))


@register("kl_dro")
class KLDivergenceDRO(TaskWeighting):
    """`argmax_w sum_k w_k L_k` over the weights within `radius` nats of equal ones.

    Over the simplex of the `n` present tasks with `sum_k w_k log(n w_k) <= radius`. The solution
    is `w = softmax(beta L)`, where `beta` makes the divergence equal to the radius: it is
    `SoftmaxWeightedLoss` with an `alpha` that follows the spread of the losses. `beta` is searched
    for on a grid that is refined three times. A radius of `log(n)` or more gives the maximum.

    Args:
        radius: positive float, in nats. 0.1 is ours.

    Example:

    >>> import numpy as np
    >>> layer = KLDivergenceDRO(radius=0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    >>> np.asarray(layer.compute_weights(np.array([1.0, 3.0]))).round(4).tolist()
    [0.25, 0.75]

    Reference:
        Hu and Hong, Kullback-Leibler divergence constrained distributionally robust optimization,
        2013; [Large-Scale Methods for Distributionally Robust Optimization]
        (https://arxiv.org/abs/2010.05893), NeurIPS 2020.
    """

    facts = MethodFacts(
        "worst case over a KL ball of weights",
        "Hu and Hong 2013",
        2013,
        balances_learning=True,
        scale="same",
    )

    def __init__(self, radius: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        self.radius = checks.positive("radius", radius)

    def weigh(self, tasks: TaskBatch) -> Tensor:
        present = ops.cast(tasks.present, "float32")
        largest = ops.max(ops.where(tasks.present, tasks.losses, -float("inf")))
        distances = ops.where(tasks.present, largest - tasks.losses, 0.0)
        spread = masked_mean(distances, tasks.present)
        distances = distances / ops.where(spread > 0, spread, 1.0)
        number = ops.maximum(ops.sum(present), 1.0)

        low, width = ops.full((1,), _LOG_RANGE[0]), _LOG_RANGE[1] - _LOG_RANGE[0]
        for _ in range(_ROUNDS):
            width = width / (_CANDIDATES - 1)
            grid = low + width * ops.arange(_CANDIDATES, dtype="float32")
            exponents = -ops.exp(grid)[:, None] * distances[None]
            powers = ops.exp(exponents) * present[None]
            totals = ops.maximum(ops.sum(powers, axis=1), 1e-30)
            mean_exponent = ops.sum(powers * exponents, axis=1) / totals
            divergence = mean_exponent - ops.log(totals) + ops.log(number)
            inside = ops.cast(divergence <= self.radius, "float32")
            # The last candidate inside the ball; the first if there is none.
            low = low + width * ops.relu(ops.sum(inside) - 1.0)
        powers = ops.exp(-ops.exp(low + 0.5 * width) * distances) * present
        return powers / ops.maximum(ops.sum(powers), 1.0)

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
