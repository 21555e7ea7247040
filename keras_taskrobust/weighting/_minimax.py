"""The method of the paper: softmax weights, which turn the mean of K losses into their maximum."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import (
    PACKAGE,
    StateUpdates,
    TaskBatch,
    TaskWeighting,
    masked_softmax,
    moving_average,
)
from keras_taskrobust.weighting.registry import register


@keras.saving.register_keras_serializable(PACKAGE)
class SquareRootSchedule:
    """`alpha_t = scale * sqrt(t)`, `t = 1, 2, ...`: the growth that Theorem 3.1 asks for.

    With a constant `alpha` the minimax gap keeps a floor of order `log(K) / alpha`; with this
    schedule it vanishes like `1 / sqrt(T)`.

    Args:
        scale: positive float, the value at the first step.

    Example:

    >>> float(SquareRootSchedule(0.5)(15))
    2.0
    """

    def __init__(self, scale: float = 1.0):
        self.scale = checks.positive("scale", scale)

    def __call__(self, step):
        """`alpha` after `step` training calls."""
        return self.scale * ops.sqrt(ops.cast(step, "float32") + 1.0)

    def get_config(self):
        return {"scale": self.scale}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@register("minimax")
class SoftmaxWeightedLoss(TaskWeighting):
    """Minimises the worst task loss, smoothly (Wang et al. 2023, eq. 7).

    `w = softmax(alpha * L)`, objective `sum_k stop_gradient(w_k) L_k`. Its gradient is that of
    `(1 / alpha) log sum_k exp(alpha L_k)`, which lies within `log(K) / alpha` of `max_k L_k`.
    `alpha -> 0` is the mean, `alpha -> infinity` the maximum.

    Where the paper is silent: the value of `alpha` is not given; 1.0 is ours, for losses in nats.
    A task that is rare in the batch has a noisy loss, and noise draws weight; `loss_momentum`
    damps that.

    Args:
        alpha: positive float, or a callable of the number of training calls before this one
            (a float32 scalar tensor), such as `SquareRootSchedule` or any
            `keras.optimizers.schedules` object. Register it with
            `keras.saving.register_keras_serializable` to save the model.
        loss_momentum: float in [0, 1). If positive, the weights come from a moving average of the
            losses, `average = loss_momentum * average + (1 - loss_momentum) * L`, started at each
            task's first loss; the objective still sums the losses of the batch.
        reference_losses: `K` floats, or `None`. The weights come from `L - reference_losses`:
            minimises the worst excess over, for example, single-task losses.
        normalize_over: `"present"` or `"all"`. `"all"`: the softmax is over all tasks that were
            ever present, each with its moving average, so that an absent task keeps its share and
            the weights of a batch sum to less than 1, as in the code of Group DRO (Sagawa et al.
            2020, https://arxiv.org/abs/1911.08731). Without it, weights say nothing where
            every batch holds one task. Needs `loss_momentum`.
        learning_rate: unused here: the layer has no trainable variables.

    Example:

    >>> import numpy as np
    >>> layer = SoftmaxWeightedLoss(alpha=2.0)
    >>> np.asarray(layer.compute_weights(np.array([0.0, np.log(3.0) / 2]))).round(4).tolist()
    [0.25, 0.75]

    Reference:
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023.
    """

    facts = MethodFacts(
        "`softmax(alpha * L)`; schedules, moving averages, reference losses",
        "Wang et al. 2023",
        2023,
        balances_learning=True,
    )

    def __init__(
        self,
        alpha: float | Callable = 1.0,
        loss_momentum: float = 0.0,
        reference_losses: Sequence[float] | None = None,
        normalize_over: str = "present",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(alpha, dict):
            alpha = keras.saving.deserialize_keras_object(copy.deepcopy(alpha))
        if not (callable(alpha) or checks.is_positive(alpha)):
            raise ValueError(
                f"`alpha` must be a positive number or a schedule. Received: alpha={alpha}"
            )
        self.alpha = alpha if callable(alpha) else float(alpha)
        self.loss_momentum = checks.share("loss_momentum", loss_momentum)
        self.reference_losses = checks.finite_floats("reference_losses", reference_losses)
        self.normalize_over = checks.choice("normalize_over", normalize_over, ("present", "all"))
        if self.normalize_over == "all":
            self.facts = dataclasses.replace(type(self).facts, total="free", lone_task=False)
        if self.normalize_over == "all" and not self.loss_momentum:
            raise ValueError(
                "`normalize_over='all'` needs the losses of absent tasks, their moving averages: "
                f"give a positive `loss_momentum`. Received: loss_momentum={loss_momentum}"
            )

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("reference_losses", self.reference_losses, num_tasks)
        if callable(self.alpha):
            self.step = self.add_state("step", shape=())
        if self.loss_momentum:
            self.average = self.add_state("average")
            self.seen = self.add_state("seen")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        losses, among = tasks.losses, tasks.present
        if self.loss_momentum:
            losses, seen = self._moving_average(tasks)
            among = seen > 0 if self.normalize_over == "all" else among
        if self.reference_losses is not None:
            losses = losses - ops.convert_to_tensor(self.reference_losses, dtype="float32")
        alpha = self.alpha(ops.convert_to_tensor(self.step)) if callable(self.alpha) else self.alpha
        return masked_softmax(losses, among, scale=alpha)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        updates = []
        if callable(self.alpha):
            updates.append((self.step, self.step + 1.0))
        if self.loss_momentum:
            average, seen = self._moving_average(tasks)
            updates += [(self.average, average), (self.seen, seen)]
        return updates

    def get_config(self):
        alpha = self.alpha
        return {
            **super().get_config(),
            "alpha": keras.saving.serialize_keras_object(alpha) if callable(alpha) else alpha,
            "loss_momentum": self.loss_momentum,
            "reference_losses": self.reference_losses,
            "normalize_over": self.normalize_over,
        }

    def _moving_average(self, tasks):
        return moving_average(
            self.average, self.seen, tasks.losses, tasks.present, self.loss_momentum
        )
