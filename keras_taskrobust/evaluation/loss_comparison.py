"""Held-out losses of runs side by side: what the tables and plots of their report show."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_taskrobust.evaluation.intervals import (
    Intervals,
    task_difference,
    task_intervals,
)
from keras_taskrobust.evaluation.runs import Run


@dataclass(frozen=True, eq=False)
class LossRow:
    """One weighting: the figures of its runs, averaged over the seeds.

    Attributes:
        name: of the row.
        seeds: the seeds it was run with.
        losses: `Intervals` of the held-out losses.
        difference: `Intervals` of the losses minus the baseline's, over the seeds that both have;
            `None` for the baseline itself, and without a baseline or a common seed.
        relative_worst: the difference of the worst losses as a share of the baseline's, or `None`.
        paired_seeds: the seeds behind the difference.
        accuracies: task name to the share of correct predictions.
        pooled: loss over all targets.
        pooled_accuracy: share of correct predictions over all targets.
        spread: largest minus smallest loss of the tasks that are compared.
        worst_task: the compared task with the largest loss.
        worst_tasks: the compared tasks that were the worst of a seed, and of how many.
        seconds: training time of a run.
    """

    name: str
    seeds: tuple[int, ...]
    losses: Intervals
    difference: Intervals | None
    relative_worst: float | None
    paired_seeds: tuple[int, ...]
    accuracies: dict[str, float]
    pooled: float
    pooled_accuracy: float
    spread: float
    worst_task: str
    worst_tasks: dict[str, int]
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """All weightings, in the order in which they were given.

    Attributes:
        rows: one `LossRow` a weighting.
        tasks: names of the compared tasks: those with enough held-out targets.
        apart: names of the other tasks, which are in neither worst, mean nor spread.
        targets: task name to the number of held-out targets.
        minimum_targets: how many targets are enough.
        lowered: whether that is less than what was asked for, to leave a task.
        records: number of held-out records.
        baseline: name of the weighting the others are compared with, or `None`.
        has_accuracies: whether correct predictions were counted.
    """

    rows: tuple[LossRow, ...]
    tasks: tuple[str, ...]
    apart: tuple[str, ...]
    targets: dict[str, int]
    minimum_targets: int
    lowered: bool
    records: int
    baseline: str | None
    has_accuracies: bool

    def row(self, name: str) -> LossRow:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def best_row(self) -> LossRow | None:
        """The row with the lowest worst loss, of those where it is finite."""
        finite = [row for row in self.rows if math.isfinite(row.losses.worst.estimate)]
        return min(finite, key=lambda row: row.losses.worst.estimate, default=None)


def compare(
    runs: Sequence[Run], minimum_targets: int = 1000, baseline: str | None = None
) -> Comparison:
    """Averages over seeds, and computes intervals and differences to the baseline.

    Args:
        runs: the runs, scored on the same held-out records and targets.
        minimum_targets: tasks with fewer held-out targets stay out of worst, mean and spread. If
            no task has that many, the largest number that a task has is taken.
        baseline: name of a weighting. If no run has it, there are no differences.

    Returns:
        `Comparison`.
    """
    check_runs(runs)
    scores = runs[0].scores
    enough = min(minimum_targets, int(scores.targets.max()))
    compared = scores.with_targets(enough).task_names
    groups = _by_weighting(runs)
    reference = groups.get(baseline, {}) if baseline is not None else {}
    return Comparison(
        rows=tuple(_row(group, reference, enough) for group in groups.values()),
        tasks=compared,
        apart=tuple(name for name in scores.task_names if name not in compared),
        targets=dict(zip(scores.task_names, scores.targets.tolist(), strict=True)),
        minimum_targets=enough,
        lowered=enough < minimum_targets,
        records=scores.counts.shape[0],
        baseline=baseline if reference else None,
        has_accuracies=any(run.scores.correct is not None for run in runs),
    )


def check_runs(runs: Sequence[Run]) -> None:
    """Raises a `ValueError` if the runs cannot be compared."""
    if not runs:
        raise ValueError("`runs` must hold at least one run. Received: none")
    first = runs[0].scores
    for run in runs[1:]:
        if run.scores.task_names != first.task_names:
            raise ValueError(
                f"`runs` must have the same tasks, {first.task_names}. Received: "
                f"{run.scores.task_names} under {run.row!r}, seed {run.seed}"
            )
        if not np.array_equal(run.scores.counts, first.counts):
            raise ValueError(
                "`runs` must be scored on the same held-out records and targets: "
                f"{first.counts.shape[0]} records with {first.targets.tolist()} targets under "
                f"{runs[0].row!r}, seed {runs[0].seed}. Received: "
                f"{run.scores.counts.shape[0]} records with {run.scores.targets.tolist()} "
                f"targets, or in another order, under {run.row!r}, seed {run.seed}"
            )
    number, (name, seed) = max(
        (number, key) for key, number in Counter((run.row, run.seed) for run in runs).items()
    )
    if number > 1:
        raise ValueError(
            "`runs` must have one run for each weighting and seed. "
            f"Received: {number} runs of {name!r} with seed {seed}"
        )


def _by_weighting(runs):
    """Weighting name to `{seed: Run}`, in the order given."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(run.row, {})[run.seed] = run
    return groups


def _row(group, reference, minimum_targets):
    runs = list(group.values())
    scores = [run.scores for run in runs]
    compared = [one.with_targets(minimum_targets) for one in scores]
    losses = task_intervals(scores, minimum_targets)
    paired = () if reference is group else tuple(seed for seed in group if seed in reference)
    difference, relative = _difference(group, reference, paired, minimum_targets)
    accuracies = np.mean([one.accuracies for one in scores], axis=0)
    mean_losses = np.mean([one.losses for one in compared], axis=0)
    return LossRow(
        name=runs[0].row,
        seeds=tuple(group),
        losses=losses,
        difference=difference,
        relative_worst=relative,
        paired_seeds=paired,
        accuracies=dict(zip(scores[0].task_names, accuracies.tolist(), strict=True)),
        pooled=float(np.mean([one.pooled for one in scores])),
        pooled_accuracy=float(np.mean([one.pooled_accuracy for one in scores])),
        spread=float(np.mean([one.spread for one in compared])),
        worst_task=compared[0].task_names[int(np.argmax(mean_losses))],
        worst_tasks=dict(Counter(one.worst()[0] for one in compared).most_common()),
        seconds=float(np.mean([run.seconds for run in runs])),
    )


def _difference(group, reference, paired, minimum_targets):
    """The `Intervals` of the difference, and the worst one as a share of the reference's."""
    if not paired:
        return None, None
    ours = [group[seed].scores for seed in paired]
    theirs = [reference[seed].scores for seed in paired]
    difference = task_difference(ours, theirs, minimum_targets)
    worst = float(np.mean([scores.worst(minimum_targets)[1] for scores in theirs]))
    return difference, difference.worst.estimate / worst if worst else float("nan")
