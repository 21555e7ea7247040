"""What training did to the loss of each task."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_taskrobust.evaluation.runs import Run


class Change(NamedTuple):
    """Means of a loss over the first and over the last tenth of the steps."""

    start: float
    end: float


def changes_since_start(runs: Sequence[Run]) -> dict[str, dict[str, Change]]:
    """How the training losses of the tasks changed, averaged over the seeds of a row.

    Args:
        runs: the runs; those with a history of two lines or more have changes.

    Returns:
        dict of rows to tasks to `Change`. A task that was not seen in both tenths is left out.
    """
    found: dict[str, dict[str, list[Change]]] = {}
    for run in runs:
        for name in run.scores.task_names:
            change = _change(run.history.get(f"{name}_loss", ()))
            if change is not None:
                found.setdefault(run.row, {}).setdefault(name, []).append(change)
    return {
        row: {name: Change(*np.mean(changes, axis=0).tolist()) for name, changes in tasks.items()}
        for row, tasks in found.items()
    }


def _change(losses: Sequence[float]) -> Change | None:
    if len(losses) < 2:
        return None
    tenth = max(1, len(losses) // 10)
    ends = [
        [one for one in part if math.isfinite(one)] for part in (losses[:tenth], losses[-tenth:])
    ]
    return Change(*(sum(end) / len(end) for end in ends)) if all(ends) else None
