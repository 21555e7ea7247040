"""The downstream part of a report in words."""

import math
from collections.abc import Iterable

from keras_taskrobust.evaluation.comparison import RESAMPLES
from keras_taskrobust.evaluation.downstream_comparison import DownstreamComparison, DownstreamRow
from keras_taskrobust.evaluation.wording import (
    FEW_SEEDS,
    NOTHING,
    PERCENT,
    bounds,
    number,
    signed,
)


def downstream_headline(comparison: DownstreamComparison) -> str:
    """Which row has the best worst task, and how sure that is.

    Args:
        comparison: `DownstreamComparison`.

    Returns:
        One or two sentences.
    """
    row = best_row(comparison)
    if row is None:
        return "No row has figures for all tasks that count."
    worst = f"{number(row.worst.estimate)} ({worst_names(row)})"
    if row.complete_seeds < len(row.seeds):
        worst += f", over {row.complete_seeds} of {len(row.seeds)} seeds"
    if comparison.nothing_clear:
        return (
            "Under no row does any task lie clear of the trivial baseline: these figures say "
            f'nothing about the rows. The best worst gain, of "{row.weighting}", is {worst}.'
        )
    if len(comparison.rows) == 1:
        return f'The smallest gain of "{row.weighting}" on a downstream task is {worst}.'
    start = f'"{row.weighting}" has the best worst downstream task: a gain of {worst}'
    if not row.differences:
        return f"{start}."
    against = []
    for name, difference in row.differences.items():
        verdict = _verdict(difference.worst)
        against.append(f'{signed(difference.worst.estimate)} to "{name}" ({verdict})')
    return f"{start}; {', '.join(against)}."


def downstream_notes(comparison: DownstreamComparison) -> Iterable[str]:
    """What a reader must know to read the figures right.

    Args:
        comparison: `DownstreamComparison`.

    Yields:
        One remark after the other.
    """
    several = any(len(row.seeds) > 1 for row in comparison.rows)
    yield (
        "The gain is (score - trivial) / (best possible - trivial), the trivial baseline being the "
        "best prediction that does not look at the example. The worst task is the one with the "
        "smallest gain; each seed has its own, and they are averaged. The score of a task is the "
        "mean of its metrics."
    )
    yield (
        f"Brackets: {PERCENT} percentile bootstrap intervals over the seeds, {RESAMPLES:,} "
        f"resamples. {FEW_SEEDS}"
        if several
        else "One seed: there are no intervals, and other seeds may order the rows otherwise."
    )
    if comparison.floor:
        yield (
            "Not counted, since under no row the score lies clear of the trivial baseline: "
            f"{', '.join(comparison.floor)}."
        )
    if comparison.reference and len(comparison.rows) > 1:
        yield (
            f'Delta_m: the mean relative change of the scores to "{comparison.reference}", over '
            "the tasks where its score is above 0."
        )
    if comparison.baselines and len(comparison.rows) > 1:
        yield (
            f"Wins and losses: tasks where the {PERCENT} interval of the difference lies above, "
            "below 0. None is corrected for there being several."
        )


def best_row(comparison: DownstreamComparison) -> DownstreamRow | None:
    """The row with the best worst gain, `None` if no row has one."""
    finite = [row for row in comparison.rows if math.isfinite(row.worst.estimate)]
    return max(finite, key=lambda row: row.worst.estimate, default=None)


def worst_names(row: DownstreamRow) -> str:
    """The worst task of a row, or how often each task was the worst of a seed."""
    if len(row.worst_tasks) == 1:
        return next(iter(row.worst_tasks))
    return ", ".join(f"{name} {times}x" for name, times in row.worst_tasks.items()) or NOTHING


def _verdict(interval):
    if math.isnan(interval.lower):
        return "one seed, no interval"
    sides = "excludes" if interval.excludes_zero else "includes"
    return f"{bounds(interval, signed_figures=True)}, which {sides} 0"
