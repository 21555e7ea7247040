"""Downstream results side by side: gains over the trivial baseline, the worst task, differences."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from keras_taskrobust.evaluation.intervals import Interval, interval_over_seeds
from keras_taskrobust.evaluation.runs import Failure


@dataclasses.dataclass(frozen=True)
class DownstreamResult:
    """One model, fine-tuned on one task.

    Args:
        row: string. The row of the report: how the model was pre-trained.
        seed: int. Rows are compared in pairs of the same seed.
        task: string.
        scores: metric names to values, 1 being the best. The score of the task is their mean.
        trivial: metric names to the values of the trivial baseline.
        seconds: float. What fine-tuning took.
        pretraining_seconds: float. What pre-training took.
        failure: string. Why there are no scores, "" if there are.
        environment: names to values: the backend, device and versions of fine-tuning.

    Example:

    >>> result = DownstreamResult("uniform", 0, "RTE", {"accuracy": 0.7}, {"accuracy": 0.5})
    >>> round(result.gain, 6)
    0.4
    """

    row: str
    seed: int
    task: str
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    trivial: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    pretraining_seconds: float = 0.0
    failure: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean of the metrics; NaN if it failed."""
        return float(np.mean(list(self.scores.values()))) if self.scores else math.nan

    @property
    def gain(self) -> float:
        """`(score - trivial) / (1 - trivial)`: the share of what there was to gain.

        NaN if there was nothing to gain.
        """
        if not self.scores:
            return math.nan
        return share_of_gain(self.score, float(np.mean(list(self.trivial.values()))))


def share_of_gain(score: float, trivial: float) -> float:
    """`(score - trivial) / (1 - trivial)`; NaN if the trivial score is the best there is, 1."""
    return (score - trivial) / (1 - trivial) if trivial != 1 else math.nan


@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """A row minus a baseline, over the seeds both have.

    Attributes:
        tasks: task to `Interval` of the difference of scores, above 0 where the row is better.
        worst: of the worst gain.
        mean: of the mean score, in the same sense.
        wins, losses: the counted tasks where the interval lies above, below 0.
        seeds: the seeds both have.
    """

    tasks: dict[str, Interval]
    worst: Interval
    mean: Interval
    wins: tuple[str, ...]
    losses: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class DownstreamRow:
    """One row: its figures, averaged over the seeds.

    Attributes:
        name: of the row.
        seeds: its seeds.
        complete_seeds: the number of those with figures for all tasks that count.
        scores: task to `Interval` of the score.
        gains: task to `Interval` of the gain.
        metrics: task to metric to its value.
        worst: `Interval` of the smallest gain of a seed.
        worst_tasks: the tasks that were the worst of a seed, and of how many.
        worst_task: the task with the smallest gain on average, or `None`.
        mean: `Interval` of the mean score.
        mean_gain: the mean gain.
        rank: mean over the tasks of its rank among the rows, 1 being the best.
        relative_change: Delta_m, the mean relative change of the scores to the reference.
        differences: baseline to `Difference`.
        seconds: fine-tuning on all tasks that it has figures for, for one seed.
        pretraining_seconds: pre-training, for one seed.
    """

    name: str
    seeds: tuple[int, ...]
    complete_seeds: int
    scores: dict[str, Interval]
    gains: dict[str, Interval]
    metrics: dict[str, dict[str, float]]
    worst: Interval
    worst_tasks: dict[str, int]
    worst_task: str | None
    mean: Interval
    mean_gain: float
    rank: float
    relative_change: float
    differences: dict[str, Difference]
    seconds: float
    pretraining_seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class DownstreamComparison:
    """All rows, in the order in which they were given.

    Attributes:
        rows: one `DownstreamRow` a pre-training.
        tasks: the tasks that count: under some row the score lies clear of the trivial baseline.
        floor: the others, which are in neither worst, mean, rank nor Delta_m.
        nothing_clear: whether no task lies clear of it, so that all count and say nothing.
        trivial: task to metric to the value of the trivial baseline.
        baselines: the baselines that there are rows of.
        reference: the row that Delta_m refers to, or `None`.
        failures: the `Failure`s.
    """

    rows: tuple[DownstreamRow, ...]
    tasks: tuple[str, ...]
    floor: tuple[str, ...]
    nothing_clear: bool
    trivial: dict[str, dict[str, float]]
    baselines: tuple[str, ...]
    reference: str | None
    failures: tuple[Failure, ...]

    def row(self, name: str) -> DownstreamRow:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def best_row(self) -> DownstreamRow | None:
        """The row with the best worst gain, `None` if no row has one."""
        finite = [row for row in self.rows if math.isfinite(row.worst.estimate)]
        return max(finite, key=lambda row: row.worst.estimate, default=None)


def compare_downstream(
    results: Sequence[DownstreamResult],
    baselines: Sequence[str] = ("uniform", "pooled"),
    reference: str | None = None,
) -> DownstreamComparison:
    """Compares pre-trainings by what they are worth on downstream tasks.

    A task counts if under at least one row its score lies clear of the trivial baseline: above it
    with every seed. If it does so for none, all count.

    Args:
        results: one `DownstreamResult` for each row, seed and task.
        baselines: the rows that the others are compared with, where they are there.
        reference: the row that Delta_m refers to; by default the first baseline there is.

    Returns:
        `DownstreamComparison`.

    Raises:
        ValueError: there is no result, or two of the same row, seed and task.
    """
    _check(results)
    figures = _Figures(results)
    found = tuple(name for name in baselines if name in figures.rows)
    if reference not in figures.rows:
        reference = found[0] if found else None
    tasks = list(zip(figures.tasks, figures.counted, strict=True))
    return DownstreamComparison(
        rows=tuple(_row(name, results, figures, found, reference) for name in figures.rows),
        tasks=tuple(task for task, counted in tasks if counted),
        floor=tuple(task for task, counted in tasks if not counted),
        nothing_clear=not figures.clear.any(),
        trivial={result.task: dict(result.trivial) for result in results if result.trivial},
        baselines=found,
        reference=reference,
        failures=tuple(
            (one.row, one.seed, one.task, one.failure) for one in results if one.failure
        ),
    )


class _Figures:
    """The results as arrays `(rows, seeds, tasks)`, NaN where there is none."""

    def __init__(self, results):
        keys = zip(*((one.row, one.seed, one.task) for one in results), strict=True)
        self.rows, self.seeds, self.tasks = (list(dict.fromkeys(names)) for names in keys)
        self.scores = self._array(results, lambda one: one.score)
        self.gains = self._array(results, lambda one: one.gain)
        self.seconds = self._array(results, lambda one: math.nan if one.failure else one.seconds)
        self.pretraining: dict[str, dict[int, float]] = {}
        for one in results:
            self.pretraining.setdefault(one.row, {})[one.seed] = one.pretraining_seconds
        missing = np.isnan(self.gains)
        above = (missing | (self.gains > 0)).all(axis=1) & ~missing.all(axis=1)
        self.clear = above.any(axis=0)
        self.counted = self.clear if self.clear.any() else np.ones(len(self.tasks), bool)
        means = _mean(self.scores[:, :, self.counted], axis=1)
        self.ranks = stats.rankdata(-means, axis=0, nan_policy="omit").mean(axis=1)

    def _array(self, results, figure):
        array = np.full((len(self.rows), len(self.seeds), len(self.tasks)), np.nan)
        for one in results:
            row, seed = self.rows.index(one.row), self.seeds.index(one.seed)
            array[row, seed, self.tasks.index(one.task)] = figure(one)
        return array


def _row(name, results, figures, baselines, reference):
    index = figures.rows.index(name)
    own = [one for one in results if one.row == name]
    scores, gains = figures.scores[index], figures.gains[index]
    counted = np.flatnonzero(figures.counted)
    complete = gains[:, counted][~np.isnan(gains[:, counted]).any(axis=1)]
    worst = Counter(figures.tasks[counted[task]] for task in complete.argmin(axis=1))
    mean_gains = _mean(gains[:, counted])
    pretraining = figures.pretraining[name]
    return DownstreamRow(
        name=name,
        seeds=tuple(pretraining),
        complete_seeds=len(complete),
        scores=_of_tasks(figures, scores),
        gains=_of_tasks(figures, gains),
        metrics={task: _mean_metrics(own, task) for task in figures.tasks},
        worst=interval_over_seeds(gains[:, counted].min(axis=1)),
        worst_tasks=dict(worst.most_common()),
        worst_task=(
            None if np.isnan(mean_gains).any() else figures.tasks[counted[int(mean_gains.argmin())]]
        ),
        mean=interval_over_seeds(scores[:, counted].mean(axis=1)),
        mean_gain=float(complete.mean()) if len(complete) else math.nan,
        rank=float(figures.ranks[index]),
        relative_change=_relative_change(figures, name, reference),
        differences={
            baseline: _difference(figures, name, baseline)
            for baseline in baselines
            if baseline != name
        },
        seconds=float(np.nansum(_mean(figures.seconds[index]))),
        pretraining_seconds=float(np.mean(list(pretraining.values()))),
    )


def _of_tasks(figures, values):
    """Task to `Interval` of `(seeds, tasks)` values."""
    return dict(zip(figures.tasks, map(interval_over_seeds, values.T), strict=True))


def _mean_metrics(results, task):
    found = [one.scores for one in results if one.task == task and one.scores]
    names = found[0] if found else ()
    return {name: float(np.mean([scores[name] for scores in found])) for name in names}


def _relative_change(figures, name, reference):
    """Delta_m: the mean over tasks of the relative change."""
    if reference in (None, name):
        return math.nan
    scores = figures.scores[:, :, figures.counted]
    ours, theirs = (_mean(scores[figures.rows.index(row)]) for row in (name, reference))
    usable = theirs > 0
    if not usable.any() or np.isnan(ours[usable]).any():
        return math.nan
    return float(np.mean((ours - theirs)[usable] / theirs[usable]))


def _difference(figures, name, baseline):
    ours, theirs = figures.rows.index(name), figures.rows.index(baseline)
    scores = figures.scores[ours] - figures.scores[theirs]
    gains = figures.gains[:, :, figures.counted].min(axis=2)
    tasks = _of_tasks(figures, scores)
    counted = [task for task, used in zip(figures.tasks, figures.counted, strict=True) if used]
    return Difference(
        tasks=tasks,
        worst=interval_over_seeds(gains[ours] - gains[theirs]),
        mean=interval_over_seeds(scores[:, figures.counted].mean(axis=1)),
        wins=tuple(task for task in counted if tasks[task].lower > 0),
        losses=tuple(task for task in counted if tasks[task].upper < 0),
        seeds=tuple(
            seed for seed in figures.pretraining[name] if seed in figures.pretraining[baseline]
        ),
    )


def _mean(values, axis=0):
    """Mean over the seeds that have a figure; NaN where none has."""
    present = ~np.isnan(values)
    number = present.sum(axis=axis)
    sums = np.where(present, values, 0.0).sum(axis=axis)
    return np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0)


def _check(results):
    if not results:
        raise ValueError("`results` must hold at least one result. Received: none")
    (key, number), *_ = Counter((one.row, one.seed, one.task) for one in results).most_common(1)
    if number > 1:
        raise ValueError(
            "`results` must have one result for each weighting, seed and task. "
            f"Received: {number} of {key[0]!r}, seed {key[1]}, {key[2]}"
        )
