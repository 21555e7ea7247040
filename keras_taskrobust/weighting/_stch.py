"""Smooth Tchebycheff scalarisation."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import StateUpdates, TaskBatch, TaskWeighting, masked_softmax
from keras_taskrobust.weighting.registry import register

#: Losses are taken as at least this in a logarithm.
_LEAST = 1e-12


@register("stch")
class SmoothTchebycheff(TaskWeighting):
    """Smooth Tchebycheff scalarisation (Lin et al. 2024), plain or over a nadir point.

    Plain (`warmup_steps=0`): objective `mu log sum_k exp(p_k (L_k - z_k) / mu)` over the `n`
    present tasks with the even preference `p_k = 1 / n`, hence
    `w_k = p_k softmax(p (L - z) / mu)_k`. `z` is the ideal point, 0 unless `reference_losses` says
    otherwise. As in `torchjd`.

    With a warm-up, as in the official multi-task code: for `warmup_steps` training calls the
    objective is `sum_k log L_k` (`w_k = 1 / L_k`); the mean losses of the last `nadir_steps` of
    them are the nadir `m`; afterwards it is `n mu log sum_k exp(log(L_k / m_k) / mu)`, hence
    `w_k = n softmax(log(L / m) / mu)_k / L_k`. The official code counts epochs and takes the nadir
    from the last one: pass `nadir_steps=steps_per_epoch`. A task that never appeared in the
    nadir's steps counts as being at its nadir. With the default `mu=1` these weights are
    `(n / m_k) / sum_j (L_j / m_j)`: their ratios are constant, whatever the losses, and no task is
    favoured for being the worst. Take a `mu` well below 1 for a minimax.

    As with every weighting here, weights are constants of the step: the objective's value is the
    weighted sum, its gradient that of the formula.

    Args:
        mu: positive float, the smoothing; smaller is closer to the maximum. 1.0 is LibMTL's
            default.
        warmup_steps: int >= 0.
        nadir_steps: int >= 1 and at most `warmup_steps`, or `None` for all of them.
        reference_losses: `K` floats, the ideal point of the plain form, or `None` for 0.

    Example:

    >>> import numpy as np
    >>> layer = SmoothTchebycheff(mu=0.5)
    >>> np.asarray(layer.compute_weights(np.array([0.0, np.log(3.0)]))).round(4).tolist()
    [0.125, 0.375]

    Reference:
        [Smooth Tchebycheff Scalarization for Multi-Objective Optimization]
        (https://arxiv.org/abs/2402.19078), ICML 2024.
    """

    facts = MethodFacts(
        "smooth maximum of the losses, or of their ratios to a nadir",
        "Lin et al. 2024",
        2024,
        balances_magnitudes=True,
        balances_learning=True,
        total="free",
    )

    def __init__(
        self,
        mu: float = 1.0,
        warmup_steps: int = 0,
        nadir_steps: int | None = None,
        reference_losses: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mu = checks.positive("mu", mu)
        self.warmup_steps = checks.integer("warmup_steps", warmup_steps, least=0)
        if nadir_steps is not None:
            nadir_steps = checks.integer("nadir_steps", nadir_steps, least=1)
            if nadir_steps > self.warmup_steps:
                raise ValueError(
                    "`nadir_steps` must be at most `warmup_steps`. Received: "
                    f"nadir_steps={nadir_steps}, warmup_steps={warmup_steps}"
                )
        self.nadir_steps = nadir_steps
        self.reference_losses = checks.finite_floats("reference_losses", reference_losses)
        if self.warmup_steps and self.reference_losses is not None:
            raise ValueError(
                "`reference_losses` is the ideal point of the plain form, which has no warm-up. "
                f"Received: reference_losses={reference_losses}, warmup_steps={warmup_steps}"
            )

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("reference_losses", self.reference_losses, num_tasks)
        if self.warmup_steps:
            self.step = self.add_state("step", shape=())
            self.total = self.add_state("total")
            self.appearances = self.add_state("appearances")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        number = ops.maximum(ops.sum(ops.cast(tasks.present, "float32")), 1.0)
        if self.warmup_steps:
            return self._weights_over_nadir(tasks, number)
        losses = tasks.losses
        if self.reference_losses is not None:
            losses = losses - ops.convert_to_tensor(self.reference_losses, dtype="float32")
        return masked_softmax(losses, tasks.present, scale=1.0 / (self.mu * number)) / number

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        if not self.warmup_steps:
            return []
        first = self.warmup_steps - (self.nadir_steps or self.warmup_steps)
        counts = (self.step >= first) & (self.step < self.warmup_steps)
        counts = ops.cast(counts, "float32")
        return [
            (self.step, self.step + 1.0),
            (self.total, self.total + counts * tasks.losses),
            (self.appearances, self.appearances + counts * ops.cast(tasks.present, "float32")),
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "mu": self.mu,
            "warmup_steps": self.warmup_steps,
            "nadir_steps": self.nadir_steps,
            "reference_losses": self.reference_losses,
        }

    def _weights_over_nadir(self, tasks, number):
        losses = ops.maximum(tasks.losses, _LEAST)
        appearances = ops.convert_to_tensor(self.appearances)
        nadir = ops.maximum(self.total / ops.maximum(appearances, 1.0), _LEAST)
        ratio = ops.where(appearances > 0, ops.log(losses / nadir), 0.0)
        smooth = number * masked_softmax(ratio, tasks.present, scale=1.0 / self.mu)
        return ops.where(self.step < self.warmup_steps, 1.0, smooth) / losses
