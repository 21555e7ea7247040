"""What a report of held-out losses and shares says in words: its headline and its notes."""

import dataclasses
import math
from collections.abc import Iterable

from keras_taskrobust.evaluation.figures import (
    MINUS,
    PERCENT,
    about_seeds,
    bounds,
    number,
    worst_legend,
    worst_names,
)
from keras_taskrobust.evaluation.intervals import RESAMPLES
from keras_taskrobust.evaluation.loss_comparison import Comparison
from keras_taskrobust.evaluation.measures import PARTS

# The most tasks that the headline names, of those that a constant beats.
_NAMED = 3


def headline(comparison: Comparison) -> str:
    """Which weighting has the best worst task, how sure that is, and what it leaves out.

    That is the tasks with too few targets that lie worse, and what a constant beats.
    """
    return f"{_finding(comparison)}{_worse_apart(comparison)}{_below_trivial(comparison)}"


def next_step(comparison: Comparison) -> str:
    """What to do next, in a sentence."""
    rows, best = comparison.rows, comparison.best_row
    if best is None:
        return "Next: lower the peak learning rate, and look at the losses in history.csv."
    if any(len(tasks) * 2 > len(comparison.tasks) for tasks in comparison.below_trivial.values()):
        return (
            "Next: train for more steps. While a constant beats most tasks, the figures say little "
            "about what these models will be worth."
        )
    if comparison.apart and len(comparison.tasks) == 1:
        fewer = " With less certainty, --minimum-targets 100 counts more tasks."
        return (
            "Next: take more data, or hold out a larger share of them: "
            f"{comparison.tasks[0]} alone has enough held-out targets to count, so that nothing "
            f"here shows which task is the worst.{fewer if len(rows) > 1 else ''}"
        )
    if len(rows) == 1:
        return (
            "Next: set it beside other weightings from the same start, with taskrobust compare, or "
            "fine-tune it, with taskrobust finetune."
        )
    if min(len(row.seeds) for row in rows) == 1:
        return (
            "Next: more seeds, with taskrobust compare and --seeds 0 1 2: one says nothing about "
            "others."
        )
    compared = rows if best.difference is None else (best,)
    differences = [row.difference.worst for row in compared if row.difference is not None]
    if differences and not any(one.excludes_zero for one in differences):
        return "Next: more seeds, or more steps: these runs do not tell the rows apart."
    return (
        "Next: fine-tune the models on the tasks that you want them for, with taskrobust "
        "finetune: that is what the worst task here stands for."
    )


def _finding(comparison):
    measure, row = comparison.measure, comparison.best_row
    if row is None:
        return f"No weighting has a finite worst {measure.name}."
    figure = measure.words if measure.is_share else "task loss"
    worst = f"{number(row.figures.worst.estimate)} ({worst_names(row.worst_tasks)})"
    if len(comparison.rows) == 1:
        return f'The worst {figure} under "{row.name}" is {worst}.'
    if row.name == comparison.baseline:
        return (
            f'The baseline, "{row.name}", has the {measure.best} worst {figure}, {worst}: no '
            "weighting compared with it did better."
        )
    start = f'"{row.name}" has the {measure.best} worst {figure}, {worst}'
    if row.difference is None:
        return f"{start}. It was not compared with a baseline."
    return f"{start}, {_against_baseline(comparison, row)}"


def _below_trivial(comparison):
    below = [
        f'{_some(tasks, len(comparison.tasks))} under "{name}"'
        for name, tasks in comparison.below_trivial.items()
    ]
    return f" Worse than the best constant (share below 0): {'; '.join(below)}." if below else ""


def _worse_apart(comparison):
    row = comparison.best_row
    worse = comparison.worse_apart(row) if row is not None else {}
    if not worse:
        return ""
    named = sorted(worse, key=worse.__getitem__, reverse=not comparison.measure.is_share)
    shown = ", ".join(f"{name} ({number(worse[name])})" for name in named[:_NAMED])
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return (
        f" Worse under it, but not counted for want of held-out targets (fewer than "
        f"{comparison.minimum_targets:,}): {shown}{more}."
    )


def _some(tasks, number):
    """The names, or how many of the `number` tasks they are."""
    if len(tasks) <= _NAMED:
        return ", ".join(tasks)
    return f"{len(tasks)} of {number} tasks" if len(tasks) < number else f"all {number} tasks"


def notes(comparison: Comparison, baseline: str) -> Iterable[str]:
    """What a reader must know to read the figures right; `baseline`: that which was asked for."""
    yield from _measure_notes(comparison)
    tasks = len(comparison.tasks)
    yield (
        "Worst, mean and spread (largest minus smallest) are over the "
        f"{'one task' if tasks == 1 else f'{tasks} tasks'} with at least "
        f"{comparison.minimum_targets:,} held-out targets; pooled is the mean "
        f"{'loss ' if comparison.measure.is_share else ''}over all targets."
    )
    if comparison.lowered:
        yield (
            "No task has enough held-out targets to count: those with the most, "
            f"{comparison.minimum_targets:,}, count instead. More held-out data would say more."
        )
    if comparison.apart:
        names = [f"{name} ({comparison.targets[name]:,})" for name in comparison.apart]
        yield f"Shown apart for want of targets: {', '.join(names)}."
    yield from worst_legend(row.worst_tasks for row in comparison.rows)
    yield from _interval_notes(comparison)
    yield from _baseline_notes(comparison, baseline)


def _measure_notes(comparison):
    if comparison.measure.is_share:
        loss = dataclasses.replace(comparison.measure, name="loss").words
        yield (
            f"The share of a task is 1 {MINUS} L / T: L is its {loss}, T that of the best constant "
            "prediction, which does not look at the input. 0: no better than that constant; 1: "
            "perfect. The constants are fitted on training data, L and T scored on held-out data."
        )
    meanings = [
        f"the {PARTS[name][0]} loss is that of {PARTS[name][1]}"
        for name in comparison.parts
        if name in PARTS
    ]
    if meanings:
        yield f"Of the parts of the loss, {'; '.join(meanings)}."


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
        else f"with {seeds} seeds, it covers their choice but not that of held-out records"
    )
    return (
        f"{number(abs(difference.estimate))}{share} {side} the baseline, "
        f'"{comparison.baseline}". The {PERCENT} interval of this difference, '
        f"{bounds(difference, signed_figures=True)}, {finding}; {cover}."
    )


def _interval_notes(comparison):
    numbers = [len(row.seeds) for row in comparison.rows]
    pairs = [len(row.paired_seeds) for row in comparison.rows]
    records = f"{comparison.records:,} held-out records"
    resampled = (
        f"{PERCENT} percentile bootstrap intervals, {RESAMPLES:,} resamples of the {records}"
    )
    if max(numbers) == 1:
        yield f"Brackets: {resampled}; with one seed they say nothing about others."
        return
    yield f"Brackets: {about_seeds(numbers, records)}"
    if 1 in (*numbers, *pairs):
        yield f"Brackets of one seed: {resampled}; they say nothing about other seeds."
    yield (
        f"Figures are means over the seeds; the worst {comparison.measure.name} is each "
        "seed's own, then averaged."
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
                f'"{row.name}" has no seed in common with "{reference.name}": no '
                "difference is given."
            )
        elif len(row.paired_seeds) < max(len(row.seeds), len(reference.seeds)):
            seeds = ", ".join(map(str, row.paired_seeds))
            yield f'The differences of "{row.name}" are over the seeds both have: {seeds}.'
    if any(row.difference for row in others):
        yield (
            f'A star: the {PERCENT} interval of the difference to "{reference.name}" excludes 0.'
        )
    if len(others) > 1:
        yield (
            "Each difference has its own interval; none is corrected for there being several, nor "
            f"for picking the {comparison.measure.best}."
        )
