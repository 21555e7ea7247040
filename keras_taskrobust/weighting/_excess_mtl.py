"""ExcessMTL: an adversary on the excess risks, estimated from the gradients."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._gradient_based import GradientWeighting
from keras_taskrobust.weighting.base import TaskBatch, TaskUpdate, masked_softmax
from keras_taskrobust.weighting.registry import register

_EPSILON = 1e-7


@register("excess_mtl")
class ExcessMTL(GradientWeighting):
    """Robust multi-task learning with excess risks (He et al. 2024, eqs. 6, 7 and 9).

    How far a task is from its own best is estimated as `e_k = g_k^T H_k^(-1) g_k`, with the
    diagonal `H_k = sqrt(sum_t g_k^2 + 1e-7)` of all gradients so far. `log z_k += step_size e_k /
    e_k(0)` with the first estimate `e_k(0)`, `w = K softmax(log z)` over the present tasks, after
    the update. A task that cannot get better does not draw weight, however high its loss is.

    The weights sum to the number of tasks and do not move at a task's first estimate, as in the
    official code and LibMTL; in the paper they sum to 1, as in torchjd, which has a step of 1.0 and
    takes it at once. An absent task keeps its sum and `z_k`.
    The sums take `K` times the memory of the weights that the gradients are taken at.

    Args:
        step_size: positive float. 0.01 as in LibMTL.

    Example:

    >>> import numpy as np
    >>> layer = ExcessMTL(step_size=1.0)
    >>> layer.build((2, 2))
    >>> for scale in (1.0, 0.1):
    ...     gradients = np.array([[1.0, 0.0], [0.0, scale]])
    ...     _, weights = layer(np.ones(2), gradients=gradients, return_weights=True)
    >>> print(np.asarray(weights).round(2))
    [1.34 0.66]

    Reference:
        [Robust Multi-Task Learning with Excess Risks](https://arxiv.org/abs/2402.02009), ICML 2024.
    """

    keeps_gradients = True
    head_gradients = "weighted"
    facts = MethodFacts(
        "an adversary on excess risks estimated from the gradients",
        "He et al. 2024",
        2024,
        balances_learning=True,
        cost="gradients, kept",
        total="number",
        scale="same",
    )

    def __init__(self, step_size: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.step_size = checks.positive("step_size", step_size)

    def create_state(self, num_tasks: int) -> None:
        self.initial = self.add_state("initial")
        self.log_weights = self.add_state("log_weights")
        if self.num_gradient_elements is not None:
            self.squares = self.add_state("squares", shape=(num_tasks, self.num_gradient_elements))

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return self._weights_of(tasks, ops.convert_to_tensor(self.log_weights))

    def combine(self, tasks: TaskBatch) -> TaskUpdate:
        squared = tasks.gradients * tasks.gradients
        squares = self.squares + squared
        excess = ops.sum(squared / ops.sqrt(squares + _EPSILON), axis=1)
        initial, log_weights = map(ops.convert_to_tensor, (self.initial, self.log_weights))
        known = initial > 0
        moved = ops.where(known, excess / ops.where(known, initial, 1.0), 0.0)
        log_weights = log_weights + self.step_size * moved
        log_weights = log_weights - ops.max(log_weights)
        state = [
            (self.squares, squares),
            (self.initial, ops.where(known, initial, excess)),
            (self.log_weights, log_weights),
        ]
        return TaskUpdate(self._weights_of(tasks, log_weights), state=state)

    def get_config(self):
        return {**super().get_config(), "step_size": self.step_size}

    def _weights_of(self, tasks, log_weights):
        number = ops.sum(ops.cast(tasks.present, "float32"))
        return number * masked_softmax(log_weights, tasks.present)
