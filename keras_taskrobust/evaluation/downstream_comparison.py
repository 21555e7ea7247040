"""Downstream results side by side: gains over the trivial baseline, the worst task, differences."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from keras_taskrobust.evaluation.intervals import Interval, bootstrap_over_seeds


@dataclasses.dataclass(frozen=True)
class DownstreamResult:
    """One model, fine-tuned on one task.

    Args:
        weighting: string. The row of the report: how the model was pre-trained.
        seed: int. Rows are compared in pairs of the same seed.
        task: string.
        scores: metric names to values. The score of the task is their mean.
        trivial: metric names to the values of the trivial baseline.
        ideal: float. The best score there is: 1, or 0 for an error.
        seconds: float. What fine-tuning took.
        pretraining_seconds: float. What pre-training took.
        failure: string. Why there are no scores, "" if there are.
        environment: names to values: the backend, device and versions of fine-tuning.

    Example:

    >>> result = DownstreamResult("uniform", 0, "RTE", {"accuracy": 0.7}, {"accuracy": 0.5})
    >>> round(result.gain, 6)
    0.4
    """

    weighting: str
    seed: int
    task: str
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    trivial: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ideal: float = 1.0
    seconds: float = 0.0
    pretraining_seconds: float = 0.0
    failure: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean of the metrics; NaN if it failed."""
        return float(np.mean(list(self.scores.values()))) if self.scores else float("nan")

    @property
    def gain(self) -> float:
        """`(score - trivial) / (ideal - trivial)`: the share of what there was to gain.

        NaN if there was nothing to gain.
        """
        if not self.scores:
            return float("nan")
        return share_of_gain(self.score, float(np.mean(list(self.trivial.values()))), self.ideal)


def share_of_gain(score: float, trivial: float, ideal: float) -> float:
    """`(score - trivial) / (ideal - trivial)`; NaN if the trivial score is the best there is."""
    return (score - trivial) / (ideal - trivial) if ideal != trivial else float("nan")


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
    """One weighting: its figures, averaged over the seeds.

    Attributes:
        weighting: its name.
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

    weighting: str
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
        rows: one `DownstreamRow` a weighting.
        tasks: the tasks that count: under some row the score lies clear of the trivial baseline.
        floor: the others, which are in neither worst, mean, rank nor Delta_m.
        nothing_clear: whether no task lies clear of it, so that all count and say nothing.
        trivial: task to metric to the value of the trivial baseline.
        baselines: the baselines that there are rows of.
        reference: the row that Delta_m refers to, or `None`.
        failures: `(weighting, seed, task, reason)` of what failed.
    """

    rows: tuple[DownstreamRow, ...]
    tasks: tuple[str, ...]
    floor: tuple[str, ...]
    nothing_clear: bool
    trivial: dict[str, dict[str, float]]
    baselines: tuple[str, ...]
    reference: str | None
    failures: tuple[tuple[str, int, str, str], ...]

    def row(self, weighting: str) -> DownstreamRow:
        """The row of that name."""
        return next(row for row in self.rows if row.weighting == weighting)

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

    A task counts if under at least one row the 95 % interval over the seeds lies above the trivial
    baseline (with one seed: the score does). If none does, all count.

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
    names = list(dict.fromkeys(result.weighting for result in results))
    tasks = list(dict.fromkeys(result.task for result in results))
    groups = {name: _Group(name, results, tasks) for name in names}
    found = tuple(name for name in baselines if name in groups)
    if reference is None or reference not in groups:
        reference = found[0] if found else None
    clear = [
        task
        for index, task in enumerate(tasks)
        if any(_is_clear(group.gains[:, index]) for group in groups.values())
    ]
    counted = np.array([task in clear for task in tasks]) if clear else np.ones(len(tasks), bool)
    ranks = _ranks(groups, counted)
    return DownstreamComparison(
        rows=tuple(
            _row(group, groups, counted, found, reference, rank)
            for group, rank in zip(groups.values(), ranks, strict=True)
        ),
        tasks=tuple(task for task, used in zip(tasks, counted, strict=True) if used),
        floor=tuple(task for task, used in zip(tasks, counted, strict=True) if not used),
        nothing_clear=not clear,
        trivial={result.task: dict(result.trivial) for result in results if result.trivial},
        baselines=found,
        reference=reference,
        failures=tuple(
            (one.weighting, one.seed, one.task, one.failure) for one in results if one.failure
        ),
    )


class _Group:
    """The results of one row as arrays `(seeds, tasks)`, NaN where there is none."""

    def __init__(self, name, results, tasks):
        self.name = name
        self.tasks = tasks
        self.results = {(one.seed, one.task): one for one in results if one.weighting == name}
        self.seeds = tuple(dict.fromkeys(seed for seed, _ in self.results))
        self.scores = self._array(lambda one: one.score)
        self.gains = self._array(lambda one: one.gain)
        self.seconds = self._array(lambda one: float("nan") if one.failure else one.seconds)
        self.directions = np.array(
            [self._of_task(task, lambda one: 1.0 if one.ideal > 0 else -1.0) for task in tasks]
        )

    def _array(self, figure):
        return np.array(
            [
                [
                    figure(self.results[seed, task]) if (seed, task) in self.results else np.nan
                    for task in self.tasks
                ]
                for seed in self.seeds
            ]
        )

    def _of_task(self, task, figure):
        return next((figure(one) for (_, name), one in self.results.items() if name == task), 1.0)

    def rows_of(self, seeds):
        return [self.seeds.index(seed) for seed in seeds]

    def mean_metrics(self, task):
        found = [one.scores for (_, name), one in self.results.items() if name == task]
        found = [scores for scores in found if scores]
        names = found[0] if found else ()
        return {name: float(np.mean([scores[name] for scores in found])) for name in names}


def _is_clear(gains):
    (interval,) = bootstrap_over_seeds(gains[:, None])
    bound = interval.estimate if np.isnan(interval.lower) else interval.lower
    return bool(bound > 0)


def _ranks(groups, counted):
    """Mean rank of each row over the counted tasks; NaN for a row that lacks one."""
    means = np.array([_mean(group.scores[:, counted]) for group in groups.values()])
    directions = next(iter(groups.values())).directions[counted]
    ranks = stats.rankdata(-means * directions, axis=0, nan_policy="omit")
    return ranks.mean(axis=1)


def _row(group, groups, counted, baselines, reference, rank):
    gains = group.gains[:, counted]
    counted_tasks = [task for task, used in zip(group.tasks, counted, strict=True) if used]
    complete = ~np.isnan(gains).any(axis=1)
    worst = [counted_tasks[index] for index in gains[complete].argmin(axis=1)]
    mean_gains = _mean(gains)
    pretraining = {seed: one.pretraining_seconds for (seed, _), one in group.results.items()}
    return DownstreamRow(
        weighting=group.name,
        seeds=group.seeds,
        complete_seeds=int(complete.sum()),
        scores=dict(zip(group.tasks, bootstrap_over_seeds(group.scores), strict=True)),
        gains=dict(zip(group.tasks, bootstrap_over_seeds(group.gains), strict=True)),
        metrics={task: group.mean_metrics(task) for task in group.tasks},
        worst=bootstrap_over_seeds(gains.min(axis=1)[:, None])[0],
        worst_tasks=dict(Counter(worst).most_common()),
        worst_task=(
            None if np.isnan(mean_gains).any() else counted_tasks[int(mean_gains.argmin())]
        ),
        mean=bootstrap_over_seeds(group.scores[:, counted].mean(axis=1)[:, None])[0],
        mean_gain=float(gains[complete].mean()) if complete.any() else float("nan"),
        rank=float(rank),
        relative_change=_relative_change(group, groups.get(reference), counted),
        differences={
            name: _difference(group, groups[name], counted)
            for name in baselines
            if name != group.name
        },
        seconds=float(np.nansum(_mean(group.seconds))),
        pretraining_seconds=float(np.mean(list(pretraining.values()))),
    )


def _relative_change(group, reference, counted):
    """Delta_m: the mean over tasks of the relative change, positive where it is for the better."""
    if reference is None or reference is group:
        return float("nan")
    ours, theirs = _mean(group.scores[:, counted]), _mean(reference.scores[:, counted])
    directions = group.directions[counted]
    usable = theirs > 0
    if not usable.any() or np.isnan(ours[usable]).any():
        return float("nan")
    return float(np.mean(directions[usable] * (ours - theirs)[usable] / theirs[usable]))


def _difference(group, baseline, counted):
    seeds = tuple(seed for seed in group.seeds if seed in baseline.seeds)
    ours, theirs = group.rows_of(seeds), baseline.rows_of(seeds)
    shape = (len(seeds), len(group.tasks))
    scores = (group.scores[ours] - baseline.scores[theirs]).reshape(shape) * group.directions
    worst = group.gains[ours][:, counted].min(axis=1) - baseline.gains[theirs][:, counted].min(
        axis=1
    )
    mean = scores[:, counted].mean(axis=1)
    intervals = dict(zip(group.tasks, bootstrap_over_seeds(scores), strict=True))
    used = [task for task, is_counted in zip(group.tasks, counted, strict=True) if is_counted]
    return Difference(
        tasks=intervals,
        worst=bootstrap_over_seeds(worst[:, None])[0],
        mean=bootstrap_over_seeds(mean[:, None])[0],
        wins=tuple(task for task in used if intervals[task].lower > 0),
        losses=tuple(task for task in used if intervals[task].upper < 0),
        seeds=seeds,
    )


def _mean(values):
    """Mean over the seeds that have a figure; NaN where none has."""
    present = ~np.isnan(values)
    number = present.sum(axis=0)
    sums = np.where(present, values, 0.0).sum(axis=0)
    return np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0)


def _check(results):
    if not results:
        raise ValueError("`results` must hold at least one result. Received: none")
    (key, number), *_ = Counter((one.weighting, one.seed, one.task) for one in results).most_common(
        1
    )
    if number > 1:
        raise ValueError(
            "`results` must have one result for each weighting, seed and task. "
            f"Received: {number} of {key[0]!r}, seed {key[1]}, {key[2]}"
        )
