"""Held-out figures of runs side by side: what the tables and plots of their report show."""

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
from keras_taskrobust.evaluation.measures import LOSS, Measure, common_measure, part_of
from keras_taskrobust.evaluation.runs import Run


@dataclass(frozen=True, eq=False)
class LossRow:
    """One weighting: the figures of its runs, averaged over the seeds.

    Attributes:
        name: of the row.
        seeds: the seeds it was run with.
        figures: `Intervals` of what is compared, the held-out losses or shares.
        losses: `Intervals` of the held-out losses.
        parts: name of a part of the loss to the `Intervals` of its losses.
        difference: `Intervals` of the figures minus the baseline's, over the seeds that both have;
            `None` for the baseline itself, and without a baseline or a common seed.
        relative_worst: the difference of the worst losses as a share of the baseline's; NaN where
            shares are compared, and `None` where there is no difference.
        paired_seeds: the seeds behind the difference.
        accuracies: task name to the share of correct predictions.
        pooled: loss over all targets.
        pooled_accuracy: share of correct predictions over all targets.
        spread: largest minus smallest figure of the tasks that are compared.
        worst_task: the compared task with the worst figure.
        worst_tasks: the compared tasks that were the worst of a seed, and of how many.
        seconds: training time of a run.
    """

    name: str
    seeds: tuple[int, ...]
    figures: Intervals
    losses: Intervals
    parts: dict[str, Intervals]
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

    def losses_of(self, part: str) -> Intervals:
        """The losses of a part; those of the whole loss for ""."""
        return self.parts[part] if part else self.losses


@dataclass(frozen=True, eq=False)
class Comparison:
    """All weightings, in the order in which they were given.

    Attributes:
        rows: one `LossRow` a weighting.
        measure: what is compared: the share where all runs have trivial losses, else the loss.
        parts: the names of the parts of the loss that all runs have.
        trivial: name of a part, "" for the whole loss, to task to its trivial loss, the mean over
            the runs; empty where losses are compared.
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
    measure: Measure
    parts: tuple[str, ...]
    trivial: dict[str, dict[str, float]]
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
    def has_differences(self) -> bool:
        """Whether any row is compared with the baseline."""
        return any(row.difference is not None for row in self.rows)

    @property
    def best_row(self) -> LossRow | None:
        """The row with the best worst figure, of those where it is finite."""
        finite = [row for row in self.rows if math.isfinite(row.figures.worst.estimate)]
        best = max if self.measure.is_share else min
        return best(finite, key=lambda row: row.figures.worst.estimate, default=None)

    def worse_apart(self, row: LossRow) -> dict[str, float]:
        """The tasks with too few targets that have a figure worse than the row's worst, to it."""
        sign = -1 if self.measure.is_share else 1
        figures = {name: row.figures.tasks[name].estimate for name in self.apart}
        worst = row.figures.worst.estimate
        return {name: one for name, one in figures.items() if sign * one > sign * worst}

    @property
    def below_trivial(self) -> dict[str, tuple[str, ...]]:
        """Row to its compared tasks with a share below 0, for the rows that have one."""
        if not self.measure.is_share:
            return {}
        below = {
            row.name: tuple(name for name in self.tasks if row.figures.tasks[name].estimate < 0)
            for row in self.rows
        }
        return {name: tasks for name, tasks in below.items() if tasks}


def compare(
    runs: Sequence[Run], minimum_targets: int = 1000, baseline: str | None = None
) -> Comparison:
    """Averages over seeds, and computes intervals and differences to the baseline.

    Runs with trivial losses are compared by their shares `1 - L / T`, those of the part "within"
    where there is one; if any run has no trivial losses, all are compared by their losses.

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
    measure = common_measure([run.scores for run in runs])
    parts = tuple(name for name in scores.parts if all(name in run.scores.parts for run in runs))
    enough = min(minimum_targets, int(scores.targets.max()))
    compared = scores.with_targets(enough).task_names
    groups = _by_weighting(runs)
    reference = groups.get(baseline, {}) if baseline is not None else {}
    return Comparison(
        rows=tuple(_row(group, reference, enough, measure, parts) for group in groups.values()),
        measure=measure,
        parts=parts,
        trivial=_trivial_losses(runs, ("", *parts)) if measure.is_share else {},
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


def _trivial_losses(runs, parts):
    """Part to task to its trivial loss, of the parts whose trivial losses all runs have."""
    found = {}
    for part in parts:
        scores = [part_of(run.scores, part) for run in runs]
        if all(one.trivial_totals is not None for one in scores):
            means = np.mean([one.trivial_losses for one in scores], axis=0)
            found[part] = dict(zip(scores[0].task_names, means.tolist(), strict=True))
    return found


def _row(group, reference, minimum_targets, measure, parts):
    runs = list(group.values())
    scores = [run.scores for run in runs]
    names = scores[0].task_names
    compared = [one.with_targets(minimum_targets) for one in scores]
    losses = task_intervals(scores, minimum_targets)
    figures = np.stack([measure.of(one) for one in compared])
    paired = () if reference is group else tuple(seed for seed in group if seed in reference)
    difference, relative = _difference(group, reference, paired, minimum_targets, measure)
    accuracies = np.mean([one.accuracies for one in scores], axis=0)
    means = figures.mean(axis=0)
    return LossRow(
        name=runs[0].row,
        seeds=tuple(group),
        figures=losses if measure == LOSS else task_intervals(scores, minimum_targets, measure),
        losses=losses,
        parts={
            name: task_intervals(scores, minimum_targets, Measure("loss", name)) for name in parts
        },
        difference=difference,
        relative_worst=relative,
        paired_seeds=paired,
        accuracies=dict(zip(names, accuracies.tolist(), strict=True)),
        pooled=float(np.mean([one.pooled for one in scores])),
        pooled_accuracy=float(np.mean([one.pooled_accuracy for one in scores])),
        spread=float(np.mean(np.ptp(figures, axis=1))),
        worst_task=compared[0].task_names[
            int(means.argmin() if measure.is_share else means.argmax())
        ],
        worst_tasks=dict(Counter(measure.worst(one)[0] for one in compared).most_common()),
        seconds=float(np.mean([run.seconds for run in runs])),
    )


def _difference(group, reference, paired, minimum_targets, measure):
    """The `Intervals` of the difference, and the worst one as a share of the reference's."""
    if not paired:
        return None, None
    ours = [group[seed].scores for seed in paired]
    theirs = [reference[seed].scores for seed in paired]
    difference = task_difference(ours, theirs, minimum_targets, measure)
    if measure.is_share:
        return difference, float("nan")
    worst = float(np.mean([scores.worst(minimum_targets)[1] for scores in theirs]))
    return difference, difference.worst.estimate / worst if worst else float("nan")
