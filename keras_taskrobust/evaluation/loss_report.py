"""The report of held-out losses and shares: findings, tables and plots, in files and printed."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_taskrobust.evaluation.bars import draw_final_bars
from keras_taskrobust.evaluation.changes import changes_since_start
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult, compare_downstream
from keras_taskrobust.evaluation.downstream_report import (
    PICTURE,
    TABLE,
    downstream_rows,
    downstream_sections,
    draw_downstream,
)
from keras_taskrobust.evaluation.environments import environments
from keras_taskrobust.evaluation.loss_comparison import Comparison, compare
from keras_taskrobust.evaluation.loss_findings import headline, next_step, notes
from keras_taskrobust.evaluation.loss_tables import (
    accuracy_blocks,
    apart_blocks,
    change_blocks,
    difference_blocks,
    figures_table,
    loss_tables,
    summary_table,
    targets_table,
    terminal_tables,
)
from keras_taskrobust.evaluation.measures import LOSS, part_of
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
_FINAL = {"share": "final_shares.png", "loss": "final_losses.png"}


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
        [*sections, *_sections(runs, comparison, plots, pictures or {}, baseline)],
        settings,
        environments(runs, downstream),
        {**tables, "metrics.csv": _csv_rows(runs, comparison)},
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
        Paragraph(next_step(comparison)),
    ]
    to_terminal(console, blocks, width)


def _csv_rows(runs, comparison):
    """The figures of every run, numbers in full.

    The column `kind` says what a row is: `task`, or `apart` for a task with fewer held-out targets
    than the others; `worst`, `worst_share`, `mean` or `pooled`, over the run. The row of a worst
    names its task. What is not there is empty. `trivial_loss` and `share` are columns where shares
    are compared, `part` where the loss has parts; it is empty for the whole loss.
    """
    of_shares = comparison.measure.is_share
    names = ["loss", "accuracy", "targets", *(["trivial_loss", "share"] if of_shares else [])]
    yield "weighting", "seed", "kind", "task", *names, *(["part"] if comparison.parts else [])
    for run in runs:
        for part in ("", *comparison.parts):
            scores = part_of(run.scores, part)
            rows = _csv_figures(scores, comparison.minimum_targets, of_shares)
            for kind, task, *figures in rows:
                shown = ["" if math.isnan(one) else repr(one) for one in figures[: len(names)]]
                yield run.row, run.seed, kind, task, *shown, *([part] if comparison.parts else [])


def _csv_figures(scores, minimum_targets, of_shares):
    """Kind, task, loss, accuracy, targets, trivial loss and share."""
    compared = scores.with_targets(minimum_targets)
    arrays = (
        scores.losses,
        scores.accuracies,
        scores.targets,
        scores.trivial_losses,
        scores.shares,
    )
    columns = (array.tolist() for array in arrays)
    of_task = dict(zip(scores.task_names, zip(*columns, strict=True), strict=True))
    for name, figures in of_task.items():
        yield "task" if name in compared.task_names else "apart", name, *figures
    name, loss = compared.worst()
    yield "worst", name, loss, *of_task[name][1:]
    if of_shares and scores.trivial_totals is not None:
        name, share = compared.worst_share()
        yield "worst_share", name, *of_task[name][:-1], share
    accuracy, trivial = (
        float(one.mean()) for one in (compared.accuracies, compared.trivial_losses)
    )
    targets = int(compared.targets.sum())
    yield "mean", "", compared.mean(), accuracy, targets, trivial, compared.mean_share()
    targets = int(scores.targets.sum())
    yield "pooled", "", scores.pooled, scores.pooled_accuracy, targets, math.nan, math.nan


def _draw(runs: Sequence[Run], comparison: Comparison, directory: Path) -> dict[str, str]:
    """Draws the plots; returns file names and what the pictures show."""
    pictures = {}
    for measure in dict.fromkeys((comparison.measure, LOSS)):
        name = _FINAL[measure.name]
        draw_final_bars(comparison, directory / name, measure)
        pictures[name] = f"Held-out {measure.words} of each task under each weighting."
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
    runs: Sequence[Run],
    comparison: Comparison,
    plots: Mapping[str, str],
    pictures: Mapping[str, str],
    baseline: str,
) -> list[Block]:
    drawn = {name: Picture(name, text) for name, text in plots.items()}
    compared = drawn.pop(_FINAL[comparison.measure.name])
    beside = [drawn.pop(_FINAL["loss"])] if comparison.measure.is_share else []
    return [
        Paragraph(headline(comparison), important=True),
        Paragraph(next_step(comparison)),
        summary_table(comparison),
        Notes(tuple(notes(comparison, baseline))),
        figures_table(comparison),
        *difference_blocks(comparison),
        compared,
        *loss_tables(comparison),
        *beside,
        *accuracy_blocks(comparison),
        targets_table(comparison),
        *apart_blocks(comparison),
        *change_blocks(changes_since_start(runs)),
        *_gallery("Training", list(drawn.values())),
        *_gallery("Pictures", [Picture(name, text) for name, text in pictures.items()]),
    ]


def _gallery(title: str, pictures: Sequence[Picture]) -> list[Block]:
    return [Heading(title), *pictures] if pictures else []
