"""DoReMi's weights: by the clipped excess over a reference model's losses."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting, masked_softmax
from keras_taskrobust.weighting.registry import register


@register("excess_loss")
class ExcessLoss(TaskWeighting):
    """Exponentiated-gradient ascent on the excess losses (Xie et al. 2023, DoReMi, algorithm 1).

    At every training call `log q_k += step_size * max(L_k - reference_k, 0)`, then
    `q = (1 - smoothing) softmax(log q) + smoothing / n` over the `n` present tasks, and `w = q`:
    the weights after the update. A task that a reference model cannot learn either draws no
    weight.

    Deviations from paper and official code (`sangmichaelxie/doremi`): the excess is clipped at 0
    after averaging over a task's elements, where they clip each token's; the present tasks share
    out the weight they had together (there an absent domain's last excess is added again); the
    average of the weights over the run, DoReMi's data mixture, is not kept: log them. The weights
    are those of the tasks' means, as in the paper; the official code weighs tokens, so that a
    domain counts by its number of tokens as well.

    Args:
        reference_losses: `K` floats, the losses of a reference model trained with equal weights, or
            `None` for 0.
        step_size: positive float. 1.0 is the paper's.
        smoothing: float in [0, 1). 1e-3 is the paper's; the official code has 1e-4.

    Example:

    >>> import numpy as np
    >>> layer = ExcessLoss(reference_losses=[1.0, 2.0], smoothing=0.0)
    >>> losses = np.array([1.0, 2.0 + np.log(3.0)])
    >>> np.asarray(layer.compute_weights(losses)).round(4).tolist()
    [0.25, 0.75]

    Reference:
        [DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining]
        (https://arxiv.org/abs/2305.10429), NeurIPS 2023.
    """

    facts = MethodFacts(
        "an adversary on the clipped excess over reference losses",
        "Xie et al. 2023",
        2023,
        balances_learning=True,
    )

    def __init__(
        self,
        reference_losses: Sequence[float] | None = None,
        step_size: float = 1.0,
        smoothing: float = 1e-3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.reference_losses = checks.finite_floats("reference_losses", reference_losses)
        self.step_size = checks.positive("step_size", step_size)
        self.smoothing = checks.share("smoothing", smoothing)

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("reference_losses", self.reference_losses, num_tasks)
        self.log_weights = self.add_state("log_weights")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        excess = tasks.losses
        if self.reference_losses is not None:
            excess = excess - ops.convert_to_tensor(self.reference_losses, dtype="float32")
        ascended = self.log_weights + self.step_size * ops.relu(excess)
        weights = masked_softmax(ascended, tasks.present)
        number = ops.maximum(ops.sum(ops.cast(tasks.present, "float32")), 1.0)
        return (1.0 - self.smoothing) * weights + self.smoothing / number

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        old = ops.convert_to_tensor(self.log_weights)
        largest = ops.max(ops.where(tasks.present, old, -float("inf")))
        powers = ops.where(tasks.present, ops.exp(old - largest), 0.0)
        weights = ops.maximum(self.weigh(tasks), 1e-37)
        new = largest + ops.log(ops.maximum(ops.sum(powers), 1e-37)) + ops.log(weights)
        new = ops.where(tasks.present, new, old)
        return [(self.log_weights, new - ops.max(new))]

    def get_config(self):
        return {
            **super().get_config(),
            "reference_losses": self.reference_losses,
            "step_size": self.step_size,
            "smoothing": self.smoothing,
        }
