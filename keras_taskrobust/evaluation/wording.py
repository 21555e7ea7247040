"""The figures and findings of a comparison in words."""

import math
from collections.abc import Iterable

from keras_taskrobust.evaluation.bootstrap import Interval
from keras_taskrobust.evaluation.comparison import LEVEL, RESAMPLES, Comparison, Row

#: The level of the intervals.
PERCENT = f"{LEVEL:.0%}"
#: What intervals over few seeds are worth: by the binomial for two and three, simulated for five.
FEW_SEEDS = (
    "Over few seeds they are too narrow: of normally distributed figures such an interval holds "
    "the true mean one time in two with two seeds, three times in four with three, 17 times in 20 "
    "with five."
)
#: Stands where there is no figure.
NOTHING = "–"  # noqa: RUF001
#: Before a negative figure: no line breaks after it, as one may after a hyphen.
MINUS = "−"  # noqa: RUF001


def headline(comparison: Comparison) -> str:
    """Which weighting has the lowest worst loss, and how sure that is.

    Args:
        comparison: `Comparison`.

    Returns:
        One or two sentences.
    """
    row = lowest_worst(comparison)
    if row is None:
        return "No weighting has a finite worst loss."
    worst = f"{number(row.losses.worst.estimate)} ({worst_names(row)})"
    if len(comparison.rows) == 1:
        return f'The worst task loss under "{row.weighting}" is {worst}.'
    if row.weighting == comparison.baseline:
        return (
            f'The baseline, "{row.weighting}", has the lowest worst task loss, {worst}: no '
            "weighting compared with it did better."
        )
    start = f'"{row.weighting}" has the lowest worst task loss, {worst}'
    if row.difference is None:
        return f"{start}. It was not compared with a baseline."
    return f"{start}, {_against_baseline(comparison, row)}"


def lowest_worst(comparison: Comparison) -> Row | None:
    """The row with the lowest worst loss, of those where it is finite."""
    finite = [row for row in comparison.rows if math.isfinite(row.losses.worst.estimate)]
    return min(finite, key=lambda row: row.losses.worst.estimate, default=None)


def notes(comparison: Comparison, baseline: str) -> Iterable[str]:
    """What a reader must know to read the figures right.

    Args:
        comparison: `Comparison`.
        baseline: the baseline that was asked for.

    Yields:
        One remark after the other.
    """
    several = any(len(row.seeds) > 1 for row in comparison.rows)
    tasks = len(comparison.tasks)
    yield (
        "Worst, mean and spread (largest minus smallest) are over the "
        f"{'one task' if tasks == 1 else f'{tasks} tasks'} with at least "
        f"{comparison.minimum_targets:,} held-out targets; pooled is the mean over all targets."
    )
    if comparison.lowered:
        yield (
            "No task has as many held-out targets as were asked for: the largest number that a "
            f"task has, {comparison.minimum_targets:,}, was taken instead."
        )
    if comparison.apart:
        names = [f"{name} ({comparison.targets[name]:,})" for name in comparison.apart]
        yield f"Shown apart for want of targets: {', '.join(names)}."
    yield (
        f"Brackets: {PERCENT} percentile bootstrap intervals, {RESAMPLES:,} resamples of the "
        f"{comparison.records:,} held-out records"
        + (" and of the seeds." if several else "; with one seed they say nothing about others.")
    )
    if several:
        yield (
            "Figures are means over the seeds; the worst loss is each seed's own, then averaged. "
            "Intervals over few seeds are rough, and rather too narrow."
        )
    yield from _baseline_notes(comparison, baseline)


def worst_names(row: Row) -> str:
    """The worst task's name; with the number of seeds each, if it is not the same for all."""
    if len(row.worst_tasks) == 1:
        return next(iter(row.worst_tasks))
    return ", ".join(f"{name} {times}x" for name, times in row.worst_tasks.items())


def bounds(interval: Interval, signed_figures: bool = False) -> str:
    """The interval in brackets; nothing if there is none.

    Where it excludes 0, so do its bounds as they are written.

    Example:

    >>> bounds(Interval(0.2, 0.1, 0.3)), bounds(Interval(0.01, 0.00007, 0.02), True)
    ('[0.100, 0.300]', '[+0.00007, +0.02000]')
    """
    if math.isnan(interval.lower):
        return ""
    form = signed if signed_figures else number
    nearest = min(abs(interval.lower), abs(interval.upper))
    decimals = 3
    if interval.excludes_zero and nearest < 0.0005:
        decimals = min(-math.floor(math.log10(nearest)), 9)
    return f"[{form(interval.lower, decimals)}, {form(interval.upper, decimals)}]"


def number(value: float, decimals: int = 3) -> str:
    """Three decimals, or as many as are given."""
    return NOTHING if math.isnan(value) else f"{value:.{decimals}f}"


def signed(value: float, decimals: int = 3) -> str:
    """Three decimals, or as many as are given, with a sign.

    Example:

    >>> signed(0.25), signed(-0.0001)
    ('+0.250', '0.000')
    """
    if math.isnan(value):
        return NOTHING
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def percentage(share: float) -> str:
    """A share in percent, without the sign."""
    return NOTHING if math.isnan(share) else f"{100 * share:.1f}"


def _against_baseline(comparison, row):
    difference = row.difference.worst
    side = "above" if difference.estimate > 0 else "below"
    share = f" ({abs(row.relative_worst):.1%})" if math.isfinite(row.relative_worst) else ""
    finding = (
        "excludes 0"
        if difference.excludes_zero
        else "includes 0, so that these runs do not tell the two apart"
    )
    seeds = len(row.paired_seeds)
    cover = (
        "with one seed, it covers the choice of held-out records but not that of the seed"
        if seeds == 1
        else f"it covers {seeds} seeds and the choice of held-out records"
    )
    return (
        f"{number(abs(difference.estimate))}{share} {side} the baseline, "
        f'"{comparison.baseline}". The {PERCENT} interval of this difference, '
        f"{bounds(difference, signed_figures=True)}, {finding}; {cover}."
    )


def _baseline_notes(comparison, baseline):
    if comparison.baseline is None:
        yield f'No run of the baseline, "{baseline}": there are no differences to it.'
        return
    reference = comparison.row(comparison.baseline)
    others = [row for row in comparison.rows if row is not reference]
    for row in others:
        if not row.paired_seeds:
            yield (
                f'"{row.weighting}" has no seed in common with "{reference.weighting}": no '
                "difference is given."
            )
        elif len(row.paired_seeds) < max(len(row.seeds), len(reference.seeds)):
            seeds = ", ".join(map(str, row.paired_seeds))
            yield f'The differences of "{row.weighting}" are over the seeds both have: {seeds}.'
    if any(row.difference for row in others):
        yield (
            f'A star: the {PERCENT} interval of the difference to "{reference.weighting}" excludes '
            "0."
        )
    if len(others) > 1:
        yield (
            "Each difference has its own interval; none is corrected for there being several, nor "
            "for picking the lowest."
        )
