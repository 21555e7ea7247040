"""The method of the paper: softmax weights, which turn the mean of K losses into their maximum."""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
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

#: What asks a model to find the trivial losses in its training data.
MEASURE = "measure"

#: How far a trivial loss is above its reference, at least, as a share of itself.
_LEAST_GAP = 1e-3


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
    and `loss_memory` damp that.

    Losses of different kinds are not comparable: the largest is not the worst. With the trivial
    losses `T`, those of the best prediction that does not look at the input, and `F`, the
    `reference_losses` or 0, the weights come from the scores

        s_k = (L_k - F_k) / (T_k - F_k),    p = softmax(alpha * s),

    0 for a task at its reference, 1 for one that is no better than a constant. There are two ways
    from there. "Anchored", the weights are `p`: for losses that share a unit. The gradient is then
    `sum_k p_k c_k` times that of `(1 / alpha) log sum_k c_k exp(alpha s_k)`, `c_k = T_k - F_k`:
    parallel, not equal, and within `W0((1 - q) / (e q)) / alpha` of `max_k s_k`, with `q` the least
    `c_k / sum_j c_j` and `W0` Lambert's function. With `unit_free`, the weights are `p_k / c_k`,
    which do not sum to 1: the gradient is exactly that of `(1 / alpha) log sum_k exp(alpha s_k)`,
    Theorem 3.1 holds in `s`, and a loss in other units gives the same step. Moving averages and
    `largest_score` leave both statements.

    Args:
        alpha: positive float, or a callable of the number of training calls before this one
            (a float32 scalar tensor), such as `SquareRootSchedule` or any
            `keras.optimizers.schedules` object. Register it with
            `keras.saving.register_keras_serializable` to save the model.
        loss_momentum: float in [0, 1). If positive, the weights come from a moving average of the
            losses, `average = loss_momentum * average + (1 - loss_momentum) * L`, started at each
            task's first loss; the objective still sums the losses of the batch.
        reference_losses: `K` floats, or `None`. The weights come from `L - reference_losses`:
            minimises the worst excess over, for example, single-task losses. These are `F`.
        normalize_over: `"present"` or `"all"`. `"all"`: the softmax is over all tasks that were
            ever present, each with its moving average, so that an absent task keeps its share and
            the weights of a batch sum to less than 1, as in the code of Group DRO (Sagawa et al.
            2020, https://arxiv.org/abs/1911.08731). Without it, weights say nothing where
            every batch holds one task. Needs `loss_momentum` or `loss_memory`.
        loss_memory: float > 1, or `None`. In the place of `loss_momentum`: the weights come from
            averages over about the last `loss_memory` elements of each task, so that one
            interjection does not count as a batch of nouns. With `m` elements of total loss `S_b`
            in a batch and `r = 1 - 1 / loss_memory`, `S = r^m S + S_b`, `N = r^m N + m`, and the
            average is `S / N`.
        trivial_losses: `K` floats, `"measure"`, or `None`. These are `T`, more than a thousandth of
            itself above `F`. `"measure"`: those that `MinimaxModel` measures before the first step;
            see its `compile`.
        unit_free: bool. Whether the gradients, too, are divided by `T - F`.
        largest_score: positive float, or `None`. Scores above it count as it: how much worse a task
            is does not matter there. At the first steps scores lie above 1, and one task may get
            nearly all of the weight until its best constant is learnt; with 1, all start alike.
        through_weights: bool. Whether the gradient goes through the weights, as in code that does
            not detach them: the weights are `p_k (1 + alpha (L_k - sum_j p_j L_j))` then. They sum
            to 1, and are negative for tasks far below the mean.
        learning_rate: unused here: the layer has no trainable variables.

    Example:

    >>> import numpy as np
    >>> layer = SoftmaxWeightedLoss(alpha=2.0)
    >>> np.asarray(layer.compute_weights(np.array([0.0, np.log(3.0) / 2]))).round(4).tolist()
    [0.25, 0.75]
    >>> layer = SoftmaxWeightedLoss(alpha=np.log(9.0), trivial_losses=[2.0, 0.5])
    >>> np.asarray(layer.compute_weights(np.array([1.0, 0.5]))).round(4).tolist()
    [0.25, 0.75]

    Reference:
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), NeurIPS 2023.
    """

    facts = MethodFacts(
        "`softmax(alpha * L)`; schedules, averages, reference and trivial losses",
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
        loss_memory: float | None = None,
        trivial_losses: Sequence[float] | str | None = None,
        unit_free: bool = False,
        largest_score: float | None = None,
        through_weights: bool = False,
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
        self.loss_memory = _or_none(checks.above, "loss_memory", loss_memory, 1)
        self.trivial_losses = _trivial_losses(trivial_losses)
        self.needs_trivial_losses = self.trivial_losses == MEASURE
        self.unit_free = checks.boolean("unit_free", unit_free)
        self.largest_score = _or_none(checks.positive, "largest_score", largest_score)
        self.through_weights = checks.boolean("through_weights", through_weights)
        self._check_options()
        if isinstance(self.trivial_losses, list):
            numbers = map(str, range(len(self.trivial_losses)))
            self.check_trivial_losses(dict(zip(numbers, self.trivial_losses, strict=True)))
        self.facts = self._own_facts()

    def create_state(self, num_tasks: int) -> None:
        checks.one_per_task("reference_losses", self.reference_losses, num_tasks)
        if isinstance(self.trivial_losses, list):
            checks.one_per_task("trivial_losses", self.trivial_losses, num_tasks)
        if callable(self.alpha):
            self.step = self.add_state("step", shape=())
        if self.loss_momentum:
            self.average = self.add_state("average")
            self.seen = self.add_state("seen")
        if self.loss_memory:
            self.total = self.add_state("total")
            self.elements = self.add_state("elements")

    def weigh(self, tasks: TaskBatch) -> Tensor:
        losses, known, _ = self._remembered(tasks)
        among = known if self.normalize_over == "all" else tasks.present
        alpha = self.alpha(ops.convert_to_tensor(self.step)) if callable(self.alpha) else self.alpha
        units = self._units(tasks)
        weights = masked_softmax(self._scores(losses, units), among, scale=alpha)
        if self.unit_free:
            weights = weights / units
        if self.through_weights:
            weights = weights * (1.0 + alpha * (losses - ops.sum(weights * losses)))
        return weights

    def next_state(self, tasks: TaskBatch) -> StateUpdates:
        _, _, updates = self._remembered(tasks)
        return [*updates, (self.step, self.step + 1.0)] if callable(self.alpha) else updates

    def get_config(self):
        alpha = self.alpha
        return {
            **super().get_config(),
            "alpha": keras.saving.serialize_keras_object(alpha) if callable(alpha) else alpha,
            "loss_momentum": self.loss_momentum,
            "reference_losses": self.reference_losses,
            "normalize_over": self.normalize_over,
            "loss_memory": self.loss_memory,
            "trivial_losses": self.trivial_losses,
            "unit_free": self.unit_free,
            "largest_score": self.largest_score,
            "through_weights": self.through_weights,
        }

    def check_trivial_losses(self, losses: Mapping[str, float]) -> None:
        if self.trivial_losses is None:
            return
        references = self.reference_losses or [0.0] * len(losses)
        if len(references) != len(losses) or not all(
            trivial - reference > _LEAST_GAP * abs(trivial)
            for trivial, reference in zip(losses.values(), references, strict=True)
        ):
            raise ValueError(
                "`trivial_losses` must lie above 0, or above the `reference_losses`, by more than "
                f"a thousandth of themselves. Received: trivial_losses={dict(losses)}, "
                f"reference_losses={self.reference_losses}"
            )

    def _remembered(self, tasks: TaskBatch) -> tuple[Tensor, Tensor, StateUpdates]:
        """The losses that the weights come from, the tasks that have one, and the new state."""
        if self.loss_momentum:
            average, seen = moving_average(
                self.average, self.seen, tasks.losses, tasks.present, self.loss_momentum
            )
            return average, seen > 0, [(self.average, average), (self.seen, seen)]
        if self.loss_memory:
            kept = ops.exp(tasks.counts * math.log1p(-1.0 / self.loss_memory))
            total = kept * self.total + tasks.counts * tasks.losses
            elements = kept * self.elements + tasks.counts
            known = elements > 0
            average = total / ops.where(known, elements, 1.0)
            return average, known, [(self.total, total), (self.elements, elements)]
        return tasks.losses, tasks.present, []

    def _units(self, tasks: TaskBatch) -> Tensor | None:
        """`(K,)`: `T - F`, 1 where `T` is not known yet; `None` without trivial losses."""
        if self.trivial_losses is None:
            return None
        given = tasks.trivial_losses if self.needs_trivial_losses else self.trivial_losses
        units = self._excess(ops.convert_to_tensor(given, dtype="float32"))
        return ops.where(ops.isnan(units), 1.0, units)

    def _scores(self, losses: Tensor, units: Tensor | None) -> Tensor:
        """What the softmax is of: losses, or their excess, or its share of the trivial excess."""
        scores = self._excess(losses)
        if units is not None:
            scores = scores / units
        return scores if self.largest_score is None else ops.minimum(scores, self.largest_score)

    def _excess(self, losses: Tensor) -> Tensor:
        if self.reference_losses is None:
            return losses
        return losses - ops.convert_to_tensor(self.reference_losses, dtype="float32")

    def _own_facts(self) -> MethodFacts:
        facts = type(self).facts
        if self.normalize_over == "all" or self.unit_free:
            facts = dataclasses.replace(facts, total="free", lone_task=False)
        return dataclasses.replace(facts, nonnegative=not self.through_weights)

    def _check_options(self):
        if self.loss_memory and self.loss_momentum:
            raise ValueError(
                "`loss_memory` takes the place of `loss_momentum`: give one of them. Received: "
                f"loss_memory={self.loss_memory}, loss_momentum={self.loss_momentum}"
            )
        has_average = bool(self.loss_momentum or self.loss_memory)
        if self.normalize_over == "all" and not has_average:
            raise ValueError(
                "`normalize_over='all'` needs the losses of absent tasks, their moving averages: "
                "give a positive `loss_momentum`, or `loss_memory`. "
                f"Received: loss_momentum={self.loss_momentum}"
            )
        if self.through_weights and (has_average or self.trivial_losses is not None):
            raise ValueError(
                "`through_weights` is the derivative of weights that come from the losses of the "
                "batch: give no `loss_momentum`, `loss_memory` or `trivial_losses`. "
                "Received: through_weights=True"
            )
        if self.trivial_losses is None and (self.unit_free or self.largest_score is not None):
            raise ValueError(
                "`unit_free` and `largest_score` are about scores, which need `trivial_losses`. "
                f"Received: unit_free={self.unit_free}, largest_score={self.largest_score}, "
                "trivial_losses=None"
            )


def _trivial_losses(given: Any) -> list[float] | str | None:
    if isinstance(given, str):
        return checks.choice("trivial_losses", given, (MEASURE,))
    return checks.finite_floats("trivial_losses", given)


def _or_none(check: Callable, name: str, value: Any, *limits: float) -> float | None:
    return None if value is None else check(name, value, *limits)
