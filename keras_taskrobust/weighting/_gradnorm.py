"""GradNorm: weights that equalise the gradient norms of the tasks."""

from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import (
    StateUpdates,
    TaskBatch,
    TaskWeighting,
    gradient_only,
    masked_mean,
    masked_softmax,
)
from keras_taskrobust.weighting.registry import register


@register("gradnorm")
class GradNorm(TaskWeighting):
    """Learned weights that bring the task gradients to a common norm (Chen et al. 2018, eq. 2).

    With the gradient norms `n_k = ||grad L_k||`, the square roots of the Gramian's diagonal, and
    the relative inverse training rates `r_k = (L_k / L_k(0)) / mean_i(L_i / L_i(0))`, the weights
    descend along `sum_k |w_k n_k - stop_gradient(mean_i(w_i n_i) r_k^alpha)|`. A task that learns
    slowly is given a larger gradient.

    `w = K * softmax(logits)` with trainable logits, so the weights stay positive and sum to the
    number of present tasks at every step; the paper descends on `w` itself and rescales
    after each update. `L_k(0)` is the first loss seen of a task, as in the paper. The gradients are
    those of the last layer that the most tasks share, as in the paper, unless `compile` names
    another place.

    Args:
        alpha: float >= 0, the strength with which slow tasks are favoured. 1.5 is the paper's
            value for NYUv2 and for Wang et al. (2023).
        learning_rate: float or `None`. Learning rate of the logits; 0.025 is the paper's. `None`:
            the model's own.

    Example:

    >>> import numpy as np
    >>> layer = GradNorm()
    >>> np.asarray(layer.compute_weights(np.array([1.0, 3.0]))).tolist()
    [1.0, 1.0]

    Reference:
        [GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks]
        (https://arxiv.org/abs/1711.02257), ICML 2018.
    """

    needs = "gramian"
    gradients_at = "last_shared"
    facts = MethodFacts(
        "learned weights that equalise gradient norms",
        "Chen et al. 2018",
        2018,
        balances_magnitudes=True,
        balances_learning=True,
        cost="Gramian",
        total="number",
        scale="same",
    )

    def __init__(self, alpha: float = 1.5, learning_rate: float | None = 0.025, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.alpha = checks.nonnegative("alpha", alpha)

    def create_state(self, num_tasks: int) -> None:
        self.logits = self.add_weight(name="logits", shape=(num_tasks,), initializer="zeros")
        self.initial_losses = self.add_state("initial_losses")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        number = ops.sum(ops.cast(tasks.present, "float32"))
        return number * masked_softmax(ops.convert_to_tensor(self.logits), tasks.present)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        return [(self.initial_losses, self._initial_losses(tasks))]

    def regulariser(self, tasks: TaskBatch) -> Tensor:
        if tasks.gramian is None:
            return 0.0
        norms = ops.sqrt(ops.relu(ops.diagonal(tasks.gramian)))
        weighted_norms = self.weigh(tasks) * norms
        target = masked_mean(weighted_norms, tasks.present) * self._training_rates(tasks)
        distance = ops.abs(weighted_norms - ops.stop_gradient(target))
        # Trains the logits, without a value of its own in the objective.
        return gradient_only(ops.sum(ops.where(tasks.present, distance, 0.0)))

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha}

    def _initial_losses(self, tasks):
        initial = ops.convert_to_tensor(self.initial_losses)
        return ops.where(tasks.present & (initial == 0), tasks.losses, initial)

    def _training_rates(self, tasks):
        initial = self._initial_losses(tasks)
        progress = ops.where(initial > 0, tasks.losses / ops.where(initial > 0, initial, 1.0), 1.0)
        mean = masked_mean(progress, tasks.present)
        relative = ops.relu(progress / ops.where(mean > 0, mean, 1.0))
        return ops.power(relative, self.alpha)
