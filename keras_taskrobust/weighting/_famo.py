"""FAMO: every loss falls at the same relative rate, at the cost of a weighted sum."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting, masked_softmax
from keras_taskrobust.weighting.registry import register

_EPSILON = 1e-8
_BETA_1, _BETA_2 = 0.9, 0.999


@register("famo")
class FAMO(TaskWeighting):
    """Fast adaptive multitask optimisation (Liu et al. 2023, algorithm 2).

    With `D = L - minimum_losses + 1e-8` and `z = softmax(logits)`:
    `w_k = c z_k / D_k`, `c = 1 / sum_k (z_k / D_k)`, the gradient of `c sum_k z_k log D_k`. The
    logits take an Adam step along `J^T (log D(before) - log D(after))`, `J` the Jacobian of the
    softmax, with weight decay in the gradient: a task whose loss fell less gains weight.

    The official code measures `D(after)` by a second forward pass on the same batch. Here it is
    the loss of the next batch, which costs nothing: the logits are updated at the beginning of
    the next call, by the difference of two batches, whose noise the Adam average damps. That is
    exact for full batches. A task absent from a batch keeps its logit and its Adam averages, and is
    compared with its own last loss.

    Args:
        weighting_rate: positive float, Adam's learning rate of the logits; 0.025 as in paper and
            official code.
        weight_decay: float >= 0. 1e-3 is the paper's and LibMTL's; the official code has 1e-2 as
            its default and for CelebA, 1e-3 for QM9.
        minimum_losses: `K` floats below the losses, or `None` for 0.

    Example:

    >>> import numpy as np
    >>> layer = FAMO()
    >>> np.asarray(layer.compute_weights(np.array([1.0, 3.0]))).round(4).tolist()
    [0.75, 0.25]

    Reference:
        [FAMO: Fast Adaptive Multitask Optimization](https://arxiv.org/abs/2306.03792),
        NeurIPS 2023.
    """

    facts = MethodFacts(
        "equal relative decrease of all losses",
        "Liu et al. 2023",
        2023,
        balances_magnitudes=True,
        balances_learning=True,
        needs_no_tuning=True,
    )

    def __init__(
        self,
        weighting_rate: float = 0.025,
        weight_decay: float = 1e-3,
        minimum_losses: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.weighting_rate = checks.positive("weighting_rate", weighting_rate)
        self.weight_decay = checks.nonnegative("weight_decay", weight_decay)
        self.minimum_losses = checks.finite_floats("minimum_losses", minimum_losses)

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("minimum_losses", self.minimum_losses, num_tasks)
        self.logits = self.add_state("logits")
        self.first_moment = self.add_state("first_moment")
        self.second_moment = self.add_state("second_moment")
        self.updates = self.add_state("updates")
        self.seen = self.add_state("seen")
        self.last_logarithm = self.add_state("last_logarithm")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        logarithm = self._logarithm(tasks)
        # z / D, normalised: the exponentials of the logits less log D.
        return masked_softmax(self._updated(tasks, logarithm)[0] - logarithm, tasks.present)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        logarithm = self._logarithm(tasks)
        logits, first, second, updates = self._updated(tasks, logarithm)
        last = ops.where(tasks.present, logarithm, ops.convert_to_tensor(self.last_logarithm))
        seen = ops.where(tasks.present, 1.0, ops.convert_to_tensor(self.seen))
        return [
            (self.logits, logits),
            (self.first_moment, first),
            (self.second_moment, second),
            (self.updates, updates),
            (self.seen, seen),
            (self.last_logarithm, last),
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "weighting_rate": self.weighting_rate,
            "weight_decay": self.weight_decay,
            "minimum_losses": self.minimum_losses,
        }

    def _logarithm(self, tasks):
        distances = tasks.losses
        if self.minimum_losses is not None:
            distances = distances - ops.convert_to_tensor(self.minimum_losses, dtype="float32")
        return ops.log(ops.relu(distances) + _EPSILON)

    def _updated(self, tasks, logarithm):
        """The logits, both Adam averages and the numbers of updates after this batch's update."""
        old = (self.logits, self.first_moment, self.second_moment, self.updates)
        logits, first, second, updates = map(ops.convert_to_tensor, old)
        moves = tasks.present & (ops.convert_to_tensor(self.seen) > 0)
        shares = masked_softmax(logits, moves)
        decrease = ops.where(moves, ops.convert_to_tensor(self.last_logarithm) - logarithm, 0.0)
        gradient = shares * (decrease - ops.sum(shares * decrease)) + self.weight_decay * logits
        new_first = _BETA_1 * first + (1.0 - _BETA_1) * gradient
        new_second = _BETA_2 * second + (1.0 - _BETA_2) * gradient * gradient
        number = updates + 1.0
        rate = ops.sqrt(1.0 - _BETA_2**number) / (1.0 - _BETA_1**number)
        scale = ops.sqrt(new_second) + _EPSILON * ops.sqrt(1.0 - _BETA_2**number)
        new_logits = logits - self.weighting_rate * rate * new_first / scale
        new = (new_logits, new_first, new_second, number)
        return [
            ops.where(moves, value, before)
            for value, before in zip(new, (logits, first, second, updates), strict=True)
        ]
