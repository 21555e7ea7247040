"""PCGrad: every gradient is projected off those it conflicts with."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._solvers import cosines_and_norms
from keras_taskrobust.weighting._surgery import GradientSurgery, operate, weights_of
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate
from keras_taskrobust.weighting.registry import register


@register("pcgrad")
class PCGrad(GradientSurgery):
    """Projecting conflicting gradients (Yu et al. 2020, algorithm 1).

    Every gradient `g_i` meets the others in a random order; from one with which it has a negative
    inner product by then, its projection is taken off: `g_i -= <g_i, g_j> / ||g_j||^2 g_j`. The
    step is the sum of the results, as in paper and official code. All tasks are operated on at
    once, on the Gramian; the weights of the sum in the original gradients are positive.

    With two tasks the order does not matter. With more it does: a step is one draw, as in the
    paper. A gradient that is zero has weight 1.

    Args:
        seed: int, of the random orders.

    Example:

    >>> import numpy as np
    >>> gramian = np.array([[1.0, -0.5], [-0.5, 1.0]])
    >>> weights = PCGrad().compute_weights(np.array([1.0, 1.0]), gramian=gramian)
    >>> np.asarray(weights).round(4).tolist()
    [1.5, 1.5]

    Reference:
        [Gradient Surgery for Multi-Task Learning](https://arxiv.org/abs/2001.06782), NeurIPS 2020.
    """

    facts = MethodFacts(
        "gradients projected off those they conflict with",
        "Yu et al. 2020",
        2020,
        needs_no_tuning=True,
        cost="Gramian",
        total="free",
        scale="same",
    )

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = checks.integer("seed", seed, least=0)

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        cosines, norms = cosines_and_norms(tasks.gramian)

        def strength(projection, squared_length, met, extra):
            return ops.relu(-projection), extra

        orders = self.orders(tasks.present)
        coefficients, _ = operate(cosines, orders, strength, ops.zeros_like(cosines))
        return TaskUpdate(weights_of(coefficients, norms), state=self.next_state(tasks))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
