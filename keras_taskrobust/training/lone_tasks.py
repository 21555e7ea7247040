"""Warnings where the weighting has no say: every batch holds one task, or one outweighs all."""

import warnings
from typing import Any

import keras
import numpy as np

from keras_taskrobust.weighting import SoftmaxWeightedLoss

#: The share of the weight that leaves the other tasks nothing.
_ALL = 0.999


class WarnOfLoneTasks(keras.callbacks.Callback):
    """Warns at the end of the first epoch if no batch held two tasks.

    Weights that sum to one, or to the number of tasks present, are then 1 whatever the losses are.
    """

    def __init__(self):
        super().__init__()
        self._looked = False

    def on_test_begin(self, logs=None):
        # Before validation resets the metrics.
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()

    def _look(self):
        if self._looked:
            return
        self._looked = True
        sums = keras.ops.convert_to_numpy(self.model._task_metric.sums)
        if np.any(sums[3]):
            self._check(sums)

    def _check(self, sums):
        """Looks at the rows of `TaskMetric`."""
        weighting = self.model.weighting
        _, _, _, steps, appearances, *_ = sums
        if appearances.sum() <= steps[0]:
            warnings.warn(
                f"No batch of this epoch held two tasks, and the weights of {weighting.name!r} "
                "are shared out among those of a batch: they were all 1, whatever the losses. Mix "
                "tasks in a batch, or take GroupDRO or SoftmaxWeightedLoss with "
                "`normalize_over='all'`.",
                stacklevel=2,
            )


class WarnOfLoudTask(WarnOfLoneTasks):
    """Warns at the end of the first epoch if one of several outputs had all of the weight.

    Where losses of different kinds are weighed by their size, it is that with the largest numbers.
    """

    def _check(self, sums):
        totals, counts, weights, *_ = sums
        names, loudest = self.model.task_names, int(np.argmax(weights))
        all_had_a_say = np.all(np.isfinite(totals) & (counts > 0))
        if all_had_a_say and weights[loudest] > _ALL * weights.sum():
            warnings.warn(
                f"In the first epoch the task {names[loudest]!r} had all of the weight, and "
                f"{', '.join(repr(name) for name in names if name != names[loudest])} none. Losses "
                "of different kinds share no unit, and under "
                f"{self.model.weighting.name!r} the largest number wins: take "
                '`weighting="scale_free_minimax"`.',
                stacklevel=2,
            )


def depends_on_company(weighting: Any) -> bool:
    """Whether the weights of a task depend on who else is in its batch."""
    facts = None if weighting is None else weighting.facts
    return facts is not None and facts.total != "free" and (weighting.num_tasks or 0) > 1


def goes_by_size(weighting: Any) -> bool:
    """Whether a softmax weighs the losses as they are, none set against what is known of it."""
    return (
        isinstance(weighting, SoftmaxWeightedLoss)
        and weighting.reference_losses is None
        and weighting.trivial_losses is None
    )
