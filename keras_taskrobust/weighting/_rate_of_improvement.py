"""GRAPE's task weights: more weight for tasks that improve slowly."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting._windows import WindowedWeighting
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, masked_softmax
from keras_taskrobust.weighting.registry import register


@register("rate_of_improvement")
class RateOfImprovement(WindowedWeighting):
    """Exponentiated-gradient task weights by the rate of improvement (Fan et al. 2025, GRAPE).

    `r_k = (L_k(before) - L_k(now)) / L_k(before)`, `log z_k -= step_size r_k`, `w = softmax(log z)`
    over the present tasks. The rate is relative: a task is not drawn weight for starting with a
    high loss, as it is with `minimax` or `group_dro`, only for not getting better.

    The losses compared are the means over two finished windows of training calls. GRAPE has
    separate target tasks, evaluates them every few hundred steps on held-out data, and weighs the
    source domains by their gradients; here tasks are what is trained, and only its update of the
    task weights is taken. `step_size` is its `gamma / mu`. A task absent for a whole window keeps
    its mean and its weight's logarithm. Not defined for a loss that is not positive: such a window
    changes nothing.

    Args:
        step_size: positive float. 1.0 is ours.
        window: int >= 1. Training calls whose losses are averaged; 10, ours, damps the noise of the
            batches.

    Example:

    >>> import numpy as np
    >>> layer = RateOfImprovement(step_size=2.0, window=1)
    >>> for losses in ([4.0, 1.0], [2.0, 1.0]):
    ...     _ = layer(np.array(losses))
    >>> print(np.asarray(layer.compute_weights(np.array([2.0, 1.0]))).round(4))
    [0.2689 0.7311]

    Reference:
        [GRAPE: Optimize Data Mixture for Group Robust Multi-target Adaptive Pretraining]
        (https://arxiv.org/abs/2505.20380), 2025.
    """

    facts = MethodFacts(
        "more weight where the loss falls slowly, cumulated",
        "Fan et al. 2025",
        2025,
        balances_learning=True,
        scale="same",
    )

    def __init__(self, step_size: float = 1.0, window: int = 10, **kwargs: Any):
        super().__init__(**kwargs)
        self.step_size = checks.positive("step_size", step_size)
        self.window = checks.integer("window", window, least=1)

    def create_state(self, num_tasks: int) -> None:
        super().create_state(num_tasks)
        self.log_weights = self.add_state("log_weights")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        return masked_softmax(ops.convert_to_tensor(self.log_weights), tasks.present)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        last, log_weights = map(ops.convert_to_tensor, (self.last_mean, self.log_weights))
        mean, ends, state = self.add_to_window(tasks)
        compares = ends & (last > 0) & (mean > 0)
        rate = ops.where(compares, 1.0 - mean / ops.where(compares, last, 1.0), 0.0)
        moved = log_weights - self.step_size * rate
        return [*state, (self.log_weights, moved - ops.max(moved))]

    def get_config(self):
        return {**super().get_config(), "step_size": self.step_size, "window": self.window}
