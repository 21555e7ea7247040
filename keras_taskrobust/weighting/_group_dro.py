"""Group DRO: an adversary that learns which task to weigh."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting._facts import MethodFacts
from keras_taskrobust.weighting.base import (
    StateUpdates,
    TaskBatch,
    TaskWeighting,
    masked_softmax,
    moving_average,
)
from keras_taskrobust.weighting.registry import register


@register("group_dro")
class GroupDRO(TaskWeighting):
    """Exponentiated-gradient ascent on the task weights (Sagawa et al. 2020, algorithm 1).

    At every training call `log q_k += step_size * L_k`, then `w = q / sum(q)` over the present
    tasks: the weights after the update, as in the official code. They remember: a task that was
    bad for long keeps its weight, while `SoftmaxWeightedLoss` looks at the present loss alone.

    Deviations from the official code (`kohpangwei/group_DRO`): the weights of the present tasks
    sum to 1 (there, an absent group keeps its share: `normalize_over="all"`); evaluation moves no
    state (there it does); `q` is kept as its logarithm, so it never underflows; the
    moving average applies to the update above (there, only to its greedy variant).

    Args:
        step_size: positive float, the adversary's rate. 0.01 is the official default.
        loss_momentum: float in [0, 1). If positive, the update uses a moving average of the
            losses (`1 - gamma` of the official code, whose default is 0.9).
        adjustment: float >= 0. Adds `adjustment / sqrt(group_sizes)` to the losses in the update:
            the paper's group adjustment for the generalisation gap (its `C`, section 3.3).
        group_sizes: `K` positive numbers, the elements of each task in the whole training set;
            needed with `adjustment`.
        normalize_over: `"present"` or `"all"`. `"all"`: `w = q / sum(q)` over all tasks, so that an
            absent task keeps its share and the weights of a batch sum to less than 1, as in the
            official code. Without it, weights say nothing where every batch holds one task.

    Example:

    >>> import numpy as np
    >>> layer = GroupDRO(step_size=1.0)
    >>> np.asarray(layer.compute_weights(np.array([0.0, np.log(3.0)]))).round(4).tolist()
    [0.25, 0.75]

    Reference:
        [Distributionally Robust Neural Networks for Group Shifts]
        (https://arxiv.org/abs/1911.08731), ICLR 2020.
    """

    facts = MethodFacts(
        "an adversary that learns the weights",
        "Sagawa et al. 2020",
        2020,
        balances_learning=True,
    )

    def __init__(
        self,
        step_size: float = 0.01,
        loss_momentum: float = 0.0,
        adjustment: float = 0.0,
        group_sizes: Sequence[float] | None = None,
        normalize_over: str = "present",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        is_zero = checks.is_number(adjustment) and adjustment == 0
        if not is_zero and not (checks.is_positive(adjustment) and group_sizes is not None):
            raise ValueError(
                "`adjustment` must be a number >= 0, and `group_sizes` given if it is positive. "
                f"Received: adjustment={adjustment}, group_sizes={group_sizes}"
            )
        if group_sizes is not None and not (
            isinstance(group_sizes, Iterable) and all(map(checks.is_positive, group_sizes))
        ):
            raise ValueError(
                f"`group_sizes` must be positive numbers. Received: group_sizes={group_sizes}"
            )
        self.step_size = checks.positive("step_size", step_size)
        self.loss_momentum = checks.share("loss_momentum", loss_momentum)
        self.adjustment = float(adjustment)
        self.normalize_over = checks.choice("normalize_over", normalize_over, ("present", "all"))
        if self.normalize_over == "all":
            self.facts = dataclasses.replace(type(self).facts, total="free", lone_task=False)
        self.group_sizes = None if group_sizes is None else [float(size) for size in group_sizes]

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("group_sizes", self.group_sizes, num_tasks)
        self.log_probabilities = self.add_state("log_probabilities")
        if self.loss_momentum:
            self.average = self.add_state("average")
            self.seen = self.add_state("seen")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        ascended = self._ascend(tasks)
        among = tasks.present if self.normalize_over == "present" else ops.ones_like(tasks.present)
        return masked_softmax(ascended, among)

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        ascended = self._ascend(tasks)
        updates = [(self.log_probabilities, ascended - ops.max(ascended))]
        if self.loss_momentum:
            average, seen = self._moving_average(tasks)
            updates += [(self.average, average), (self.seen, seen)]
        return updates

    def get_config(self):
        return {
            **super().get_config(),
            "step_size": self.step_size,
            "loss_momentum": self.loss_momentum,
            "adjustment": self.adjustment,
            "group_sizes": self.group_sizes,
            "normalize_over": self.normalize_over,
        }

    def _ascend(self, tasks):
        losses = self._moving_average(tasks)[0] if self.loss_momentum else tasks.losses
        if self.adjustment and self.group_sizes is not None:
            margins = [self.adjustment / math.sqrt(size) for size in self.group_sizes]
            losses = losses + ops.convert_to_tensor(margins, dtype="float32")
        return self.log_probabilities + ops.where(tasks.present, self.step_size * losses, 0.0)

    def _moving_average(self, tasks):
        return moving_average(
            self.average, self.seen, tasks.losses, tasks.present, self.loss_momentum
        )
