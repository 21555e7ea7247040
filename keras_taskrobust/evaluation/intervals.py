"""Intervals of figures and of their differences: over seeds, and over records."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from keras_taskrobust import checks
from keras_taskrobust.evaluation.measures import LOSS, Measure
from keras_taskrobust.evaluation.scores import TaskScores, ratio

#: The level of the intervals in a report, and the resamples of those over records.
LEVEL = 0.95
RESAMPLES = 1000
# Bounds the memory of a bootstrap: drawn records held at once (8 bytes each, in three arrays).
_DRAWS_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """A figure and its bounds.

    Attributes:
        estimate: the figure on the data as they are, averaged over the seeds.
        lower: the lower bound; NaN where there is none.
        upper: the upper bound; NaN where there is none.
    """

    estimate: float
    lower: float
    upper: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the bounds."""
        return self.lower > 0 or self.upper < 0


class Intervals(NamedTuple):
    """The intervals of one weighting's losses or shares, or of the difference of two weightings.

    Attributes:
        tasks: task name to `Interval`, of the figure of each task, rare ones included.
        worst: of the largest task loss, or smallest share, of each model.
        mean: of the mean task loss, or share, of each model.
    """

    tasks: dict[str, Interval]
    worst: Interval
    mean: Interval


def bootstrap_intervals(
    scores_of_seeds: Sequence[TaskScores],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    minimum_targets: int = 0,
    measure: Measure = LOSS,
) -> Intervals:
    """Percentile-bootstrap intervals of the losses, or shares, of one weighting.

    A resample draws the held-out records with replacement, the same ones for every seed, and
    the seeds with replacement. Its figures are means over the drawn seeds: the loss of each task,
    each model's own worst task loss, its mean task loss. With one seed the interval covers the
    choice of records alone; with two or three, that of the seeds is rough and rather too narrow.
    The worst loss is the largest of several noisy ones, so that its resamples lie somewhat high
    where tasks are nearly tied; those of the worst share, the smallest, lie somewhat low.

    Args:
        scores_of_seeds: one `TaskScores` a seed, over the same N records and K tasks.
        resamples: number of resamples.
        seed: seed of the resampling.
        level: share of the resamples between the bounds.
        minimum_targets: tasks with fewer targets stay out of the worst and the mean.
        measure: what the figures are.

    Returns:
        `Intervals`.

    Example:

    >>> scores = TaskScores(("noun",), [[1.0], [2.0], [3.0]], [[1], [1], [1]])
    >>> bootstrap_intervals([scores]).worst.estimate
    2.0
    """
    _check_seeds("scores_of_seeds", scores_of_seeds)
    checks.integer("resamples", resamples, 1)
    checks.open_share("level", level)
    chosen = _chosen_tasks(scores_of_seeds, minimum_targets)
    estimates = _of_seeds(scores_of_seeds, chosen, measure).mean(axis=0)
    resampled = _resample(scores_of_seeds, chosen, measure, resamples, seed)
    return _intervals(scores_of_seeds[0].task_names, estimates, resampled, level)


def bootstrap_difference(
    a: Sequence[TaskScores],
    b: Sequence[TaskScores],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    minimum_targets: int = 0,
    measure: Measure = LOSS,
) -> Intervals:
    """Percentile-bootstrap intervals of the figures of `a` minus those of `b`, in pairs.

    Every resample takes the same records and the same seeds in both, so that what the two have
    in common cancels.

    Args:
        a: one `TaskScores` a seed.
        b: the same for the other weighting: the same seeds in the same order, the same records.
        resamples: number of resamples.
        seed: seed of the resampling.
        level: share of the resamples between the bounds.
        minimum_targets: tasks with fewer targets stay out of the worst and the mean.
        measure: what the figures are.

    Returns:
        `Intervals`; an upper bound below 0 says that `a` has the lower loss, or share.

    Example:

    >>> low = TaskScores(("noun",), [[1.0], [3.0]], [[1], [1]])
    >>> high = TaskScores(("noun",), [[1.5], [3.5]], [[1], [1]])
    >>> bootstrap_difference([low], [high]).worst
    Interval(estimate=-0.5, lower=-0.5, upper=-0.5)
    """
    _check_seeds("a", a)
    _check_seeds("b", b)
    _check_pairs(a, b)
    checks.integer("resamples", resamples, 1)
    checks.open_share("level", level)
    chosen = _chosen_tasks(a, minimum_targets)
    estimates = _differences_of_seeds(a, b, chosen, measure).mean(axis=0)
    # The draws depend on the numbers of records and seeds alone: they are the same for both.
    ours, theirs = (_resample(one, chosen, measure, resamples, seed) for one in (a, b))
    return _intervals(a[0].task_names, estimates, ours - theirs, level)


def interval_over_seeds(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Interval:
    """The mean over seeds with its interval of Student's t.

    `mean +- t s / sqrt(S)`, with `t` the quantile `(1 + level) / 2` of `S - 1` degrees of freedom
    and `s` the standard deviation. Of normally distributed figures such an interval holds the true
    mean as often as `level` says, however few seeds there are.

    Args:
        values: `(S,)`. A figure of S seeds, or its difference in pairs of the same seed. A seed
            whose figure is NaN is left out.
        level: how often the interval holds the true mean.

    Returns:
        `Interval`. With fewer than two seeds there are no bounds (NaN).

    Example:

    >>> interval_over_seeds([1.0, 1.0, 1.0])
    Interval(estimate=1.0, lower=1.0, upper=1.0)
    """
    found = np.asarray(values, "float64")
    return _student_t(found[~np.isnan(found)], level)


def task_intervals(
    scores_of_seeds: Sequence[TaskScores], minimum_targets: int = 0, measure: Measure = LOSS
) -> Intervals:
    """Intervals of the losses, or shares, of one weighting, as a report shows them.

    With two seeds or more `interval_over_seeds` of the figure of each task, of each model's own
    worst one, and of its mean. With one seed `bootstrap_intervals`, over the records.

    Args:
        scores_of_seeds: one `TaskScores` a seed, over the same records and tasks.
        minimum_targets: tasks with fewer targets stay out of the worst and the mean.
        measure: what the figures are.

    Returns:
        `Intervals`.
    """
    if len(scores_of_seeds) == 1:
        return bootstrap_intervals(
            scores_of_seeds,
            RESAMPLES,
            level=LEVEL,
            minimum_targets=minimum_targets,
            measure=measure,
        )
    _check_seeds("scores_of_seeds", scores_of_seeds)
    chosen = _chosen_tasks(scores_of_seeds, minimum_targets)
    return _over_seeds(scores_of_seeds[0].task_names, _of_seeds(scores_of_seeds, chosen, measure))


def task_difference(
    a: Sequence[TaskScores],
    b: Sequence[TaskScores],
    minimum_targets: int = 0,
    measure: Measure = LOSS,
) -> Intervals:
    """Intervals of the figures of `a` minus those of `b`, as a report shows them.

    With two seeds or more `interval_over_seeds` of the differences in pairs of the same seed; with
    one seed `bootstrap_difference`, over the records.

    Args:
        a: one `TaskScores` a seed.
        b: the same for the other weighting: the same seeds in the same order, the same records.
        minimum_targets: tasks with fewer targets stay out of the worst and the mean.
        measure: what the figures are.

    Returns:
        `Intervals`; an upper bound below 0 says that `a` has the lower loss, or share.
    """
    if len(a) == len(b) == 1:
        return bootstrap_difference(
            a, b, RESAMPLES, level=LEVEL, minimum_targets=minimum_targets, measure=measure
        )
    _check_seeds("a", a)
    _check_seeds("b", b)
    _check_pairs(a, b)
    chosen = _chosen_tasks(a, minimum_targets)
    return _over_seeds(a[0].task_names, _differences_of_seeds(a, b, chosen, measure))


def _student_t(values, level):
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan)
    error = stats.sem(values) if np.ptp(values) else 0.0
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * error)
    return Interval(mean, mean - half, mean + half)


def _over_seeds(task_names, values):
    """`(S, K + 2)` statistics, as `Intervals`; a seed that diverged is not left out."""
    *tasks, worst, mean = (_student_t(column, LEVEL) for column in values.T)
    return Intervals(dict(zip(task_names, tasks, strict=True)), worst, mean)


def _statistics(totals, others, chosen, measure):
    """`(..., K)` sums give `(..., K + 2)`: the tasks' figures, their worst and their mean.

    Worst and mean are over the tasks in `chosen` (K,) that have targets.
    """
    figures = measure.figures(totals, others)
    used = chosen & (others > 0)
    number = used.sum(axis=-1)
    worst = (
        np.where(used, figures, np.inf).min(axis=-1)
        if measure.is_share
        else np.where(used, figures, -np.inf).max(axis=-1)
    )
    mean = ratio(np.where(used, figures, 0.0).sum(axis=-1), number)
    worst = np.where(number > 0, worst, np.nan)
    return np.concatenate([figures, worst[..., np.newaxis], mean[..., np.newaxis]], axis=-1)


def _of_seeds(scores_of_seeds, chosen, measure):
    """`(S, K + 2)` statistics of the data as they are."""
    totals, others = zip(*map(measure.sums, scores_of_seeds), strict=True)
    return _statistics(np.sum(totals, axis=1), np.sum(others, axis=1), chosen, measure)


def _differences_of_seeds(a, b, chosen, measure):
    # Two losses of infinity make infinity minus infinity here, which is meant to be NaN.
    with np.errstate(invalid="ignore"):
        return _of_seeds(a, chosen, measure) - _of_seeds(b, chosen, measure)


def _resample(scores_of_seeds, chosen, measure, resamples, seed):
    """`(resamples, K + 2)` statistics of the resampled data."""
    records, tasks = scores_of_seeds[0].totals.shape
    seeds = len(scores_of_seeds)
    totals, others = zip(*map(measure.sums, scores_of_seeds), strict=True)
    columns = np.concatenate([*totals, *others], axis=1)
    record_generator, seed_generator = np.random.default_rng(seed).spawn(2)
    rows = max(1, _DRAWS_AT_ONCE // records)
    parts = []
    for start in range(0, resamples, rows):
        number = min(rows, resamples - start)
        # A loss of infinity makes 0 times infinity here, which is meant to be NaN.
        with np.errstate(invalid="ignore"):
            sums = _draw(record_generator, number, records) @ columns
        sums = sums.reshape(number, 2, seeds, tasks)
        statistics = _statistics(sums[:, 0], sums[:, 1], chosen, measure)
        shares = _draw(seed_generator, number, seeds) / seeds
        parts.append(np.einsum("rs,rsc->rc", shares, statistics))
    return np.concatenate(parts)


def _draw(generator, rows, number):
    """`(rows, number)` float64: how often each of `number` items is drawn, `number` in all."""
    drawn = generator.integers(number, size=(rows, number))
    drawn += np.arange(rows)[:, np.newaxis] * number
    times = np.bincount(drawn.ravel(), minlength=rows * number)
    return times.reshape(rows, number).astype("float64")


def _intervals(task_names, estimates, resampled, level):
    """`(K + 2,)` estimates and `(resamples, K + 2)` resampled ones, as `Intervals`."""
    *tasks, worst, mean = (
        _interval(float(estimate), column, level)
        for estimate, column in zip(estimates, resampled.T, strict=True)
    )
    return Intervals(dict(zip(task_names, tasks, strict=True)), worst, mean)


def _interval(estimate, resampled, level):
    """Leaves out the resamples in which a rare task has no target."""
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(estimate) or not finite.size:
        return Interval(estimate, float("nan"), float("nan"))
    lower, upper = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(lower), float(upper))


def _chosen_tasks(scores_of_seeds, minimum_targets):
    """`(K,)` bool: the tasks with enough targets under every seed."""
    targets = np.min([scores.targets for scores in scores_of_seeds], axis=0)
    chosen = targets >= max(minimum_targets, 1)
    if not chosen.any():
        raise ValueError(
            f"`minimum_targets` must leave at least one task; the largest has {targets.max()} "
            f"targets. Received: minimum_targets={minimum_targets}"
        )
    return chosen


def _check_seeds(name, scores_of_seeds):
    if not scores_of_seeds:
        raise ValueError(f"`{name}` must hold the scores of at least one seed. Received: none")
    first = scores_of_seeds[0]
    for scores in scores_of_seeds[1:]:
        if scores.task_names != first.task_names or scores.totals.shape != first.totals.shape:
            raise ValueError(
                f"`{name}` must hold scores of the same records and tasks, "
                f"{first.totals.shape[0]} records of {first.task_names}. Received: "
                f"{scores.totals.shape[0]} records of {scores.task_names}"
            )


def _check_pairs(a, b):
    if len(a) != len(b):
        raise ValueError(
            "`a` and `b` must hold the same number of seeds. "
            f"Received: {len(a)} seeds and {len(b)} seeds"
        )
    for index, (one, other) in enumerate(zip(a, b, strict=True)):
        if one.task_names != other.task_names or not np.array_equal(one.counts, other.counts):
            raise ValueError(
                "`a` and `b` must be scored on the same held-out records and targets. Received: "
                f"at index {index}, {one.totals.shape[0]} records of {one.task_names} with "
                f"{one.targets.tolist()} targets and {other.totals.shape[0]} records of "
                f"{other.task_names} with {other.targets.tolist()}"
            )
