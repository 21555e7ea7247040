"""The report of a comparison: Markdown, HTML, CSV and plots."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust.evaluation.bars import draw_final_bars
from keras_taskrobust.evaluation.comparison import check_runs, compare
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.downstream_report import PICTURE, downstream_blocks
from keras_taskrobust.evaluation.environments import (
    environment_blocks,
    environments,
    mixed_blocks,
)
from keras_taskrobust.evaluation.plots import (
    has_series,
    plot_gradient_conflicts,
    plot_gradient_norms,
    plot_task_losses,
    plot_task_weights,
)
from keras_taskrobust.evaluation.rendering import (
    Block,
    Cell,
    Heading,
    Notes,
    Paragraph,
    Picture,
    Table,
    settings_table,
    to_html,
    to_markdown,
)
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.terminal import print_report
from keras_taskrobust.evaluation.wording import (
    NOTHING,
    PERCENT,
    bounds,
    headline,
    lowest_worst,
    notes,
    number,
    percentage,
    signed,
    worst_names,
)
from keras_taskrobust.files import write_atomically

__all__ = ["Run", "metrics_csv", "print_report", "write_report"]

_CSV_COLUMNS = ("weighting", "seed", "kind", "task", "loss", "accuracy", "targets")


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
    plots, pictures = _draw(runs, comparison, directory), dict(pictures or {})
    images = [*plots, *pictures]
    computed_with = environments(runs, downstream)
    first: list[Block] = [Paragraph(text) for text in introduction.split("\n\n") if text.strip()]
    first += mixed_blocks(computed_with)
    if downstream:
        first += downstream_blocks(downstream, directory)
        images.append(PICTURE)
    if failures:
        reasons = tuple(f"{name}: {reason}" for name, reason in failures.items())
        first += [Heading("Failed runs"), Notes(reasons)]
    blocks = [
        *first,
        *_blocks(comparison, settings, plots, pictures, baseline),
        *environment_blocks(computed_with),
    ]
    texts = {
        "metrics.csv": metrics_csv(runs, comparison.minimum_targets),
        "report.html": to_html(
            title, blocks, {name: (directory / name).read_bytes() for name in images}
        ),
        "report.md": to_markdown(title, blocks),
    }
    for name, text in texts.items():
        write_atomically(directory / name, text.encode("utf-8", "replace"))
    drawn = [*plots, PICTURE] if downstream else [*plots]
    return tuple(directory / name for name in (*drawn, *texts))


def metrics_csv(runs: Sequence[Run], minimum_targets: int = 1000) -> str:
    """The figures of every run as CSV, one row a figure, numbers in full.

    The column `kind` says what a row is: `task`, or `apart` for a task with fewer than
    `minimum_targets` held-out targets; `worst`, `mean` or `pooled`, over the run. The row of the
    worst names its task.

    Args:
        runs: the runs.
        minimum_targets: as in `write_report`.

    Returns:
        The text.
    """
    check_runs(runs)
    enough = min(minimum_targets, int(runs[0].scores.targets.max()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for run in runs:
        for row in _csv_rows(run, enough):
            writer.writerow([run.weighting, run.seed, *row])
    return text.getvalue()


def _csv_rows(run, minimum_targets):
    """Kind, task, loss, accuracy and targets; an accuracy that is not there is empty."""
    scores = run.scores
    compared = scores.with_targets(minimum_targets)
    targets = dict(zip(scores.task_names, scores.targets.tolist(), strict=True))
    accuracies = dict(zip(scores.task_names, scores.accuracies.tolist(), strict=True))
    for name, loss in zip(scores.task_names, scores.losses.tolist(), strict=True):
        kind = "task" if name in compared.task_names else "apart"
        yield kind, name, _csv_number(loss), _csv_number(accuracies[name]), targets[name]
    name, loss = compared.worst()
    yield "worst", name, _csv_number(loss), _csv_number(accuracies[name]), targets[name]
    mean = _csv_number(compared.mean()), _csv_number(float(compared.accuracies.mean()))
    yield "mean", "", *mean, int(compared.targets.sum())
    pooled = _csv_number(scores.pooled), _csv_number(scores.pooled_accuracy)
    yield "pooled", "", *pooled, int(scores.targets.sum())


def _csv_number(value):
    return "" if math.isnan(value) else repr(value)


def _draw(runs, comparison, directory) -> dict[str, str]:
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


def _blocks(comparison, settings, plots, pictures, baseline) -> list[Block]:
    final, *training = (Picture(name, text) for name, text in plots.items())
    others = [Picture(name, text) for name, text in pictures.items()]
    return [
        Paragraph(headline(comparison), important=True),
        Heading("Summary"),
        _summary_table(comparison),
        Notes(tuple(notes(comparison, baseline))),
        Heading("Held-out loss of each task"),
        _loss_table(comparison, comparison.tasks),
        *_difference_blocks(comparison),
        final,
        *_accuracy_blocks(comparison),
        Heading("Held-out targets of each task"),
        _targets_table(comparison),
        *_apart_blocks(comparison),
        *([Heading("Training"), *training] if training else []),
        *([Heading("Pictures"), *others] if others else []),
        Heading("Settings"),
        settings_table(settings),
    ]


def _summary_table(comparison):
    header = ["weighting", "worst loss", "worst task", "mean loss", "pooled loss", "spread"]
    if comparison.baseline:
        header += [f"worst, minus {comparison.baseline}", f"mean, minus {comparison.baseline}"]
    header += ["seeds", "seconds"]
    lowest = lowest_worst(comparison)
    return Table(
        tuple(header),
        tuple(_summary_row(comparison, row, lowest is row) for row in comparison.rows),
        text_columns=(0, 2),
    )


def _summary_row(comparison, row, is_lowest):
    cells = [
        Cell(row.weighting),
        _loss_cell(row.losses.worst, "lowest" if is_lowest else ""),
        Cell(worst_names(row)),
        _loss_cell(row.losses.mean),
        Cell(number(row.pooled)),
        Cell(number(row.spread)),
    ]
    if comparison.baseline:
        difference = row.difference
        cells.append(_difference_cell(difference.worst) if difference else Cell(NOTHING))
        cells.append(_difference_cell(difference.mean) if difference else Cell(NOTHING))
    return (*cells, Cell(str(len(row.seeds))), Cell(f"{row.seconds:.1f}"))


def _loss_table(comparison, names):
    return Table(
        ("weighting", *names),
        tuple(
            (
                Cell(row.weighting),
                *(
                    _loss_cell(row.losses.tasks[name], "worst" if name == row.worst_task else "")
                    for name in names
                ),
            )
            for row in comparison.rows
        ),
    )


def _difference_blocks(comparison) -> list[Block]:
    rows = [row for row in comparison.rows if row.difference]
    if not rows:
        return []
    table = Table(
        (f"minus {comparison.baseline}", *comparison.tasks),
        tuple(
            (
                Cell(row.weighting),
                *(_difference_cell(row.difference.tasks[name]) for name in comparison.tasks),
            )
            for row in rows
        ),
    )
    text = (
        f'Difference to "{comparison.baseline}": below 0, the weighting has the lower loss. '
        f"* {PERCENT} interval excludes 0."
    )
    return [Paragraph(text), table]


def _accuracy_blocks(comparison) -> list[Block]:
    if not comparison.has_accuracies:
        return []
    table = Table(
        ("weighting", *comparison.tasks, "all targets"),
        tuple(
            (
                Cell(row.weighting),
                *(Cell(percentage(row.accuracies[name])) for name in comparison.tasks),
                Cell(percentage(row.pooled_accuracy)),
            )
            for row in comparison.rows
        ),
    )
    return [Heading("Held-out accuracy of each task, in percent"), table]


def _targets_table(comparison):
    names = (*comparison.tasks, *comparison.apart)
    total = sum(comparison.targets.values())
    return Table(
        ("", *names, "all"),
        (
            (
                Cell("targets"),
                *(Cell(f"{comparison.targets[name]:,}") for name in names),
                Cell(f"{total:,}"),
            ),
            (
                Cell("share"),
                *(Cell(f"{comparison.targets[name] / total:.1%}") for name in names),
                Cell("100.0%"),
            ),
        ),
    )


def _apart_blocks(comparison) -> list[Block]:
    if not comparison.apart:
        return []
    text = (
        f"Too few held-out targets to be compared (fewer than {comparison.minimum_targets:,}); in "
        "neither worst, mean nor spread. Pooled figures include them."
    )
    header = ["weighting"]
    for name in comparison.apart:
        header.append(f"{name}: loss")
        if comparison.has_accuracies:
            header.append(f"{name}: accuracy, percent")
    rows = []
    for row in comparison.rows:
        cells = [Cell(row.weighting)]
        for name in comparison.apart:
            cells.append(_loss_cell(row.losses.tasks[name]))
            if comparison.has_accuracies:
                cells.append(Cell(percentage(row.accuracies[name])))
        rows.append(tuple(cells))
    heading = Heading("Shown apart: " + ", ".join(comparison.apart))
    return [heading, Paragraph(text), Table(tuple(header), tuple(rows))]


def _loss_cell(interval, mark=""):
    return Cell(number(interval.estimate), bounds(interval), mark)


def _difference_cell(interval):
    star = "*" if interval.excludes_zero else ""
    return Cell(signed(interval.estimate) + star, bounds(interval, signed_figures=True))
