"""The report of held-out losses: what was found, its tables and plots, in files and printed."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_taskrobust.evaluation.bars import draw_final_bars
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult, compare_downstream
from keras_taskrobust.evaluation.downstream_report import (
    PICTURE,
    TABLE,
    downstream_rows,
    downstream_sections,
    draw_downstream,
)
from keras_taskrobust.evaluation.environments import environments
from keras_taskrobust.evaluation.figures import PERCENT, about_seeds, bounds, number, worst_names
from keras_taskrobust.evaluation.intervals import RESAMPLES
from keras_taskrobust.evaluation.loss_comparison import Comparison, compare
from keras_taskrobust.evaluation.loss_tables import (
    accuracy_blocks,
    apart_blocks,
    difference_blocks,
    loss_table,
    summary_table,
    targets_table,
    terminal_tables,
)
from keras_taskrobust.evaluation.plots import (
    has_series,
    plot_gradient_conflicts,
    plot_gradient_norms,
    plot_task_losses,
    plot_task_weights,
)
from keras_taskrobust.evaluation.rendering import (
    MARK,
    Block,
    Heading,
    Notes,
    Paragraph,
    Picture,
    to_terminal,
)
from keras_taskrobust.evaluation.report_files import write_files
from keras_taskrobust.evaluation.runs import Run

#: The most characters of a line in the terminal.
_WIDTH = 100


def write_report(
    runs: Sequence[Run],
    directory: str | os.PathLike,
    title: str,
    settings: Mapping[str, str],
    introduction: str = "",
    minimum_targets: int = 1000,
    baseline: str = "uniform",
    pictures: Mapping[str, str] | None = None,
    downstream: Sequence[DownstreamResult] = (),
    failures: Mapping[str, str] | None = None,
) -> tuple[Path, ...]:
    """Writes `report.md`, `report.html`, `metrics.csv` and the plots.

    Every file is replaced whole or not at all. The plots of training are left out if no run has
    a history.

    Args:
        runs: the runs, scored on the same held-out records and targets. Weightings are shown in
            the order in which they come.
        directory: where the files go; made if it is missing.
        title: the report's title.
        settings: what was run, shown as a table.
        introduction: plain text under the title; an empty line starts a new paragraph.
        minimum_targets: tasks with fewer held-out targets are shown apart, and are in neither
            worst, mean nor spread. If no task has that many, the largest number is taken.
        baseline: the weighting that the others are compared with. If no run has it, the
            report says so and has no differences.
        pictures: further PNG files in `directory`, by their paths from there, to what they show.
        downstream: what the runs are worth on downstream tasks; it comes first in the report.
        failures: which runs failed, to the reason.

    Returns:
        The paths written, the two reports last.
    """
    directory = Path(directory)
    comparison = compare(runs, minimum_targets, baseline)
    plots = _draw(runs, comparison, directory)
    drawn = list(plots)
    tables: dict[str, Iterable[Sequence[Any]]] = {}
    sections: list[Block] = []
    if downstream:
        worth = compare_downstream(downstream)
        draw_downstream(worth, directory)
        drawn.append(PICTURE)
        sections += downstream_sections(worth)
        tables[TABLE] = downstream_rows(downstream)
    if failures:
        reasons = tuple(f"{name}: {reason}" for name, reason in failures.items())
        sections += [Heading("Failed runs"), Notes(reasons)]
    written = write_files(
        directory,
        title,
        [*sections, *_sections(comparison, plots, pictures or {}, baseline)],
        settings,
        environments(runs, downstream),
        {**tables, "metrics.csv": _csv_rows(runs, comparison.minimum_targets)},
        introduction,
    )
    return (*(directory / name for name in drawn), *written)


def print_report(
    runs: Sequence[Run],
    console: Console | None = None,
    minimum_targets: int = 1000,
    baseline: str = "uniform",
) -> None:
    """Prints the table of a report: tasks as rows, weightings as columns, the worst task marked.

    Args:
        runs: the runs, scored on the same held-out records and targets.
        console: a `rich` console. `None`: one on the standard output.
        minimum_targets: tasks with fewer held-out targets are shown apart, and are in neither
            worst, mean nor spread. If no task has that many, the largest number is taken.
        baseline: the weighting that the others are compared with, if any run has it.
    """
    console = Console() if console is None else console
    comparison = compare(runs, minimum_targets, baseline)
    width = min(console.width, _WIDTH)
    key = f"{MARK} The worst task of the weighting."
    blocks: list[Block] = [
        *terminal_tables(comparison, width),
        Notes((key, *notes(comparison, baseline))),
        Paragraph(headline(comparison), important=True),
    ]
    to_terminal(console, blocks, width)


def headline(comparison: Comparison) -> str:
    """Which weighting has the lowest worst loss, and how sure that is."""
    row = comparison.best_row
    if row is None:
        return "No weighting has a finite worst loss."
    worst = f"{number(row.losses.worst.estimate)} ({worst_names(row.worst_tasks)})"
    if len(comparison.rows) == 1:
        return f'The worst task loss under "{row.name}" is {worst}.'
    if row.name == comparison.baseline:
        return (
            f'The baseline, "{row.name}", has the lowest worst task loss, {worst}: no '
            "weighting compared with it did better."
        )
    start = f'"{row.name}" has the lowest worst task loss, {worst}'
    if row.difference is None:
        return f"{start}. It was not compared with a baseline."
    return f"{start}, {_against_baseline(comparison, row)}"


def notes(comparison: Comparison, baseline: str) -> Iterable[str]:
    """What a reader must know to read the figures right; `baseline`: that which was asked for."""
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
    yield from _interval_notes(comparison)
    yield from _baseline_notes(comparison, baseline)


def _csv_rows(runs, minimum_targets):
    """The figures of every run, numbers in full.

    The column `kind` says what a row is: `task`, or `apart` for a task with fewer than
    `minimum_targets` held-out targets; `worst`, `mean` or `pooled`, over the run. The row of the
    worst names its task. An accuracy that is not there is empty.
    """
    yield "weighting", "seed", "kind", "task", "loss", "accuracy", "targets"
    for run in runs:
        for kind, task, loss, accuracy, targets in _csv_figures(run.scores, minimum_targets):
            values = ("" if math.isnan(value) else repr(value) for value in (loss, accuracy))
            yield run.row, run.seed, kind, task, *values, targets


def _csv_figures(scores, minimum_targets):
    """Kind, task, loss, accuracy and targets."""
    compared = scores.with_targets(minimum_targets)
    columns = (array.tolist() for array in (scores.losses, scores.accuracies, scores.targets))
    of_task = dict(zip(scores.task_names, zip(*columns, strict=True), strict=True))
    for name, figures in of_task.items():
        yield "task" if name in compared.task_names else "apart", name, *figures
    name, loss = compared.worst()
    yield "worst", name, loss, *of_task[name][1:]
    accuracy = float(compared.accuracies.mean())
    yield "mean", "", compared.mean(), accuracy, int(compared.targets.sum())
    yield "pooled", "", scores.pooled, scores.pooled_accuracy, int(scores.targets.sum())


def _draw(runs: Sequence[Run], comparison: Comparison, directory: Path) -> dict[str, str]:
    """Draws the plots; returns file names and what the pictures show."""
    pictures = {"final_losses.png": "Held-out loss of each task under each weighting."}
    draw_final_bars(comparison, directory / "final_losses.png")
    if has_series(runs, "loss"):
        plot_task_losses(runs, directory / "task_losses.png")
        pictures["task_losses.png"] = (
            "Training loss of each task over the steps; raw values faint, smoothed ones bold."
        )
    if has_series(runs, "weight"):
        plot_task_weights(runs, directory / "task_weights.png")
        pictures["task_weights.png"] = "Weight of each task over the steps, smoothed."
    if has_series(runs, "gradient_norm"):
        plot_gradient_norms(runs, directory / "gradient_norms.png")
        plot_gradient_conflicts(runs, directory / "gradient_conflicts.png")
        pictures["gradient_norms.png"] = "Norm of each task's gradient over the steps."
        pictures["gradient_conflicts.png"] = (
            "Cosine of two tasks' gradients, and the share of the pairs that conflict, over the "
            "steps."
        )
    return pictures


def _sections(
    comparison: Comparison, plots: Mapping[str, str], pictures: Mapping[str, str], baseline: str
) -> list[Block]:
    final, *training = (Picture(name, text) for name, text in plots.items())
    return [
        Paragraph(headline(comparison), important=True),
        summary_table(comparison),
        Notes(tuple(notes(comparison, baseline))),
        loss_table(comparison),
        *difference_blocks(comparison),
        final,
        *accuracy_blocks(comparison),
        targets_table(comparison),
        *apart_blocks(comparison),
        *_gallery("Training", training),
        *_gallery("Pictures", [Picture(name, text) for name, text in pictures.items()]),
    ]


def _gallery(title: str, pictures: Sequence[Picture]) -> list[Block]:
    return [Heading(title), *pictures] if pictures else []


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
    yield "Figures are means over the seeds; the worst loss is each seed's own, then averaged."


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
            "for picking the lowest."
        )
