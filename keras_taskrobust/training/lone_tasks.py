"""A warning where the weighting has no say, since every batch holds one task."""

import warnings
from typing import Any

import keras
import numpy as np


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
        weighting = self.model.weighting
        _, _, _, steps, appearances, *_ = keras.ops.convert_to_numpy(self.model._task_metric.sums)
        if np.any(steps) and appearances.sum() <= steps[0]:
            warnings.warn(
                f"No batch of this epoch held two tasks, and the weights of {weighting.name!r} "
                "are shared out among those of a batch: they were all 1, whatever the losses. Mix "
                "tasks in a batch, or take GroupDRO or SoftmaxWeightedLoss with "
                "`normalize_over='all'`.",
                stacklevel=2,
            )


def depends_on_company(weighting: Any) -> bool:
    """Whether the weights of a task depend on who else is in its batch."""
    facts = None if weighting is None else weighting.facts
    return facts is not None and facts.total != "free" and (weighting.num_tasks or 0) > 1
