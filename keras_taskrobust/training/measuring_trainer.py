"""A trainer that knows the trivial losses of its tasks."""

import contextlib
from collections.abc import Mapping
from types import GeneratorType
from typing import Any

import numpy as np
from keras import ops

from keras_taskrobust.training.checked_trainer import CheckedTrainer
from keras_taskrobust.training.constant_outputs import ConstantOutputs, LastOutputs
from keras_taskrobust.training.constants import has_best_constant, may_be_negative
from keras_taskrobust.training.task_losses import TaskLosses
from keras_taskrobust.training.tasks import ConstantPredictor, Tasks
from keras_taskrobust.training.trivial_losses import (
    BATCHES,
    MEASURE,
    Batches,
    TrivialLosses,
    WarnOfTrivialTasks,
    first_batches,
    fitted,
    measure,
    read_ahead,
)
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import TaskWeighting


class MeasuringTrainer(CheckedTrainer):
    """Measures once, before the first step, what the best constant predictions score."""

    def __init__(self, network, **kwargs):
        super().__init__(network, **kwargs)
        self._trivial_losses: Any = None

    @property
    def trivial_losses(self) -> dict[str, float] | None:
        """The loss of each task's best constant prediction, NaN until it is known.

        `None` if `compile` was not asked for them.
        """
        return None if self._trivial_losses is None else self._trivial_losses.numbers

    def measure_trivial_losses(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int = 32,
        allow_unseen: bool = False,
    ) -> dict[str, float]:
        """Measures the trivial losses, as `fit` does before its first step, unless they are known.

        Args:
            x: arrays, of which `64 * batch_size` samples are used, evenly spread; or a data set
                that can be read more than once, of which the first 64 batches are used.
            y: the targets; `None` for a data set.
            sample_weight: the sample weights, or `None`.
            batch_size: int, for arrays.
            allow_unseen: bool. Whether the loss of a task that is not in the data stays NaN.

        Returns:
            dict of task names to losses.

        Raises:
            ValueError: the model was compiled without `trivial_losses`; the data can be read once
                only; a task is not in them; or the weighting cannot work with what was found.
        """
        if self._trivial_losses is None:
            raise ValueError(
                'Compile with `trivial_losses="measure"` first. Received: trivial_losses=None'
            )
        if not self._trivial_losses.are_known:
            self._measure(first_batches(x, y, sample_weight, batch_size), allow_unseen)
        return self._trivial_losses.numbers

    def make_constant_predictor(self) -> ConstantPredictor:
        """What finds the best constant predictions. Models with losses of their own kind override
        this, as they do `make_task_losses`.
        """
        return ConstantOutputs(self._task_losses, LastOutputs(self._outputs_in_inference))

    def fit_constants(
        self, x: Any, y: Any = None, sample_weight: Any = None, batch_size: int = 32
    ) -> ConstantPredictor:
        """The best constant predictions. Arguments as of `measure_trivial_losses`."""
        return self._fit_constants(first_batches(x, y, sample_weight, batch_size))

    def own_callbacks(self):
        own = super().own_callbacks()
        return own if self._trivial_losses is None else [*own, WarnOfTrivialTasks()]

    def prepare_training(self, x, y, sample_weight, class_weight, batch_size, held_out):
        if self._trivial_losses is None or self._trivial_losses.are_known:
            return x
        if class_weight is not None:
            raise ValueError(
                "Trivial losses are measured under sample weights, not under `class_weight`: give "
                "`sample_weight`, or `compile(trivial_losses={task: value})`. "
                f"Received: class_weight={class_weight}"
            )
        if isinstance(x, GeneratorType):
            batches, x = read_ahead(x)
        else:
            batches = first_batches(x, y, sample_weight, batch_size or 32, held_out)
        self._measure(batches)
        return x

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, *args, **kwargs):
        """`keras.Model.train_on_batch`, with the arrays checked first.

        `class_weight` is as in `fit`.
        """
        is_needed = self._trivial_losses is not None and self.weighting.needs_trivial_losses
        if is_needed and not self._trivial_losses.are_known:
            raise ValueError(
                "The weighting needs trivial losses, which a batch is too few data to measure: "
                "call `measure_trivial_losses` first, or give `compile` their values. "
                f"Received: weighting={self.weighting.name!r}"
            )
        return super().train_on_batch(x, y, sample_weight, class_weight, *args, **kwargs)

    def _make_trivial_losses(
        self, given: Any, tasks: Tasks, weighting: TaskWeighting
    ) -> TrivialLosses | None:
        """The state that `compile` asks for: `given` is its argument."""
        if given is None and not weighting.needs_trivial_losses:
            return None
        if not (given in (None, MEASURE) or isinstance(given, Mapping)):
            raise ValueError(
                '`trivial_losses` must be "measure", or a dict of task names to numbers, or None. '
                f"Received: trivial_losses={given!r}"
            )
        values = given if isinstance(given, Mapping) else {}
        made = TrivialLosses(tasks.task_names, values)
        if isinstance(tasks, TaskLosses):
            _check_losses(tasks, values, weighting)
        if made.are_known:
            weighting.check_trivial_losses(made.numbers)
        return made

    def _measure(self, batches: Batches, allow_unseen: bool = False) -> None:
        state = self._trivial_losses
        with self._unmoved_randomness():
            constants = self._fit_constants(batches)
            found = measure(constants, self.compute_task_totals, state.task_names, batches)
        found |= state.given
        unseen = [name for name, value in found.items() if np.isnan(value)]
        if unseen and not allow_unseen:
            raise ValueError(
                f"Trivial losses are measured on the first {BATCHES} batches. Received: no element "
                f"of {', '.join(map(repr, unseen))} there. Mix the data, or give `compile` the "
                f"value: `trivial_losses={{{unseen[0]!r}: value}}`"
            )
        broken = [name for name, value in found.items() if np.isinf(value)]
        if broken:
            raise ValueError(
                f"Labels must be numbers that the loss takes. Received: labels of "
                f"{', '.join(map(repr, broken))} under which the loss of every prediction is NaN "
                "or infinite. Give those that are missing the sample weight 0"
            )
        self.weighting.check_trivial_losses(found)
        state.values.assign(list(found.values()))

    def _trivial_values(self) -> Tensor | None:
        """`(K,)`, for a step; `None` without trivial losses."""
        if self._trivial_losses is None:
            return None
        return ops.convert_to_tensor(self._trivial_losses.values)

    def _fit_constants(self, batches: Batches) -> ConstantPredictor:
        with self._unmoved_randomness():
            return fitted(self.make_constant_predictor(), batches)

    def _outputs_in_inference(self, x):
        return self(x, training=False)

    @contextlib.contextmanager
    def _unmoved_randomness(self):
        """Training draws the same numbers as without what is done here."""
        states = self._seed_states()
        kept = [(state, ops.copy(ops.convert_to_tensor(state))) for state in states]
        try:
            yield
        finally:
            for state, value in kept:
                state.assign(value)


def _check_losses(tasks: TaskLosses, given: Mapping[str, float], weighting: TaskWeighting) -> None:
    for output, loss in tasks.losses.items():
        missing = [name for name in loss.task_names if name not in given]
        if missing and not has_best_constant(loss.loss):
            raise ValueError(
                "Trivial losses are measured for Keras's errors of numbers, and cross-entropies "
                "over the last axis. For another loss, give `compile` what the best constant "
                f"scores, the least mean of `loss(y, c)` over predictions `c`: "
                f"`trivial_losses={{{missing[0]!r}: value}}`. Received: the loss {loss.loss!r} "
                f"for {output!r}"
            )
        if may_be_negative(loss.loss) and getattr(weighting, "reference_losses", None) is None:
            raise ValueError(
                "Losses are set against trivial losses from 0 on: one that can be negative needs "
                f"`reference_losses`. Received: the loss {loss.loss!r} for {output!r}"
            )
