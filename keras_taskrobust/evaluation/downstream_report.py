"""The downstream part of a report: tables, findings, CSV and picture."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust.evaluation.bars import BarGroup, draw_bars
from keras_taskrobust.evaluation.downstream_comparison import (
    DownstreamComparison,
    DownstreamResult,
    DownstreamRow,
    compare_downstream,
    share_of_gain,
)
from keras_taskrobust.evaluation.downstream_wording import (
    best_row,
    downstream_headline,
    downstream_notes,
    worst_names,
)
from keras_taskrobust.evaluation.drawing import shown
from keras_taskrobust.evaluation.environments import (
    environment_blocks,
    environments,
    mixed_blocks,
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
from keras_taskrobust.evaluation.wording import (
    NOTHING,
    PERCENT,
    bounds,
    number,
    signed,
)
from keras_taskrobust.files import write_atomically

PICTURE = "downstream.png"
TABLE = "downstream.csv"


def write_downstream_report(
    results: Sequence[DownstreamResult],
    directory: str | os.PathLike,
    title: str,
    settings: Mapping[str, str],
    introduction: str = "",
    baselines: Sequence[str] = ("uniform", "pooled"),
) -> tuple[Path, ...]:
    """Writes `report.md`, `report.html`, `downstream.csv` and `downstream.png`.

    Args:
        results: one `DownstreamResult` for each row, seed and task, failed ones included.
        directory: where the files go; made if it is missing.
        title: the report's title.
        settings: what was run, shown as a table.
        introduction: plain text under the title.
        baselines: the rows that the others are compared with.

    Returns:
        The paths written.
    """
    directory = Path(directory)
    computed_with = environments(results=results)
    blocks = [
        *(Paragraph(text) for text in introduction.split("\n\n") if text.strip()),
        *mixed_blocks(computed_with),
        *downstream_blocks(results, directory, baselines),
        Heading("Settings"),
        settings_table(settings),
        *environment_blocks(computed_with),
    ]
    pictures = {PICTURE: (directory / PICTURE).read_bytes()}
    texts = {
        "report.html": to_html(title, blocks, pictures),
        "report.md": to_markdown(title, blocks),
    }
    for name, text in texts.items():
        write_atomically(directory / name, text.encode("utf-8", "replace"))
    return tuple(directory / name for name in (PICTURE, TABLE, *texts))


def downstream_blocks(
    results: Sequence[DownstreamResult],
    directory: Path,
    baselines: Sequence[str] = ("uniform", "pooled"),
) -> list[Block]:
    """The downstream part of a report; writes its picture and its CSV.

    Args:
        results: one `DownstreamResult` for each row, seed and task.
        directory: where picture and CSV go.
        baselines: the rows that the others are compared with.

    Returns:
        list of blocks.
    """
    comparison = compare_downstream(results, baselines)
    write_atomically(directory / TABLE, downstream_csv(results).encode("utf-8", "replace"))
    _draw(comparison, directory / PICTURE)
    return [
        Paragraph(downstream_headline(comparison), important=True),
        Heading("Downstream: summary"),
        _summary(comparison),
        Notes(tuple(downstream_notes(comparison))),
        *_failure_blocks(comparison),
        Heading("Downstream: score of each task"),
        _scores(comparison),
        Heading("Downstream: gain over the trivial baseline, as a share of what there was to gain"),
        _gains(comparison),
        Picture(PICTURE, "Gain of each row on each task over the trivial baseline."),
        *(block for name in comparison.baselines for block in _differences(comparison, name)),
        Heading("Downstream: all metrics"),
        _metrics(comparison),
    ]


def downstream_csv(results: Sequence[DownstreamResult]) -> str:
    """The figures of every result as CSV, a row a metric, numbers in full.

    Args:
        results: the results. One that failed has its reason and no figures.

    Returns:
        The text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("weighting", "seed", "task", "metric", "value", "trivial", "gain", "seconds", "failure")
    )
    for one in results:
        key = (one.weighting, one.seed, one.task)
        for metric, value in one.scores.items():
            trivial = one.trivial[metric]
            gain = share_of_gain(value, trivial, one.ideal)
            writer.writerow(
                (*key, metric, repr(value), repr(trivial), repr(gain), repr(one.seconds), "")
            )
        if one.failure:
            writer.writerow((*key, "", "", "", "", repr(one.seconds), one.failure))
    return text.getvalue()


def _seeds(row):
    complete, number_of_seeds = row.complete_seeds, len(row.seeds)
    return str(complete) if complete == number_of_seeds else f"{complete} of {number_of_seeds}"


def _summary(comparison):
    header = ["pre-training", "worst gain", "worst task", "mean score", "mean gain", "mean rank"]
    several = len(comparison.rows) > 1
    if several and comparison.reference:
        header.append("Delta_m, percent")
    baselines = comparison.baselines if several else ()
    for name in baselines:
        header += [f"worst, minus {name}", f"mean, minus {name}", f"wins / losses to {name}"]
    header += ["seeds", "pre-training, s", "fine-tuning, s"]
    best = best_row(comparison)
    rows = []
    for row in comparison.rows:
        cells = [
            Cell(row.weighting),
            _cell(row.worst, "best" if row is best and several else ""),
            Cell(worst_names(row)),
            _cell(row.mean),
            Cell(number(row.mean_gain)),
            Cell(NOTHING if math.isnan(row.rank) else f"{row.rank:.2f}"),
        ]
        if several and comparison.reference:
            cells.append(Cell(_percent_change(row.relative_change)))
        for name in baselines:
            cells += _difference_cells(row.differences.get(name))
        cells += [
            Cell(_seeds(row)),
            Cell(f"{row.pretraining_seconds:.1f}"),
            Cell(f"{row.seconds:.1f}"),
        ]
        rows.append(tuple(cells))
    return Table(tuple(header), tuple(rows), text_columns=(0, 2))


def _difference_cells(difference):
    if difference is None or not difference.seeds:
        return [Cell(NOTHING)] * 3
    return [
        _signed_cell(difference.worst),
        _signed_cell(difference.mean),
        Cell(f"{len(difference.wins)} / {len(difference.losses)}"),
    ]


def _scores(comparison):
    tasks = (*comparison.tasks, *comparison.floor)
    trivial = tuple(Cell(number(_mean_of(comparison.trivial.get(task, {})))) for task in tasks)
    return Table(
        ("pre-training", *(_heading(comparison, task) for task in tasks)),
        (
            *(
                (Cell(row.weighting), *(_cell(row.scores[task]) for task in tasks))
                for row in comparison.rows
            ),
            (Cell("trivial baseline"), *trivial),
        ),
    )


def _gains(comparison):
    tasks = (*comparison.tasks, *comparison.floor)
    return Table(
        ("pre-training", *(_heading(comparison, task) for task in tasks)),
        tuple(
            (
                Cell(row.weighting),
                *(
                    _cell(row.gains[task], "worst" if task == row.worst_task else "")
                    for task in tasks
                ),
            )
            for row in comparison.rows
        ),
    )


def _differences(comparison, baseline) -> list[Block]:
    rows = [row for row in comparison.rows if baseline in row.differences]
    tasks = (*comparison.tasks, *comparison.floor)
    if not rows:
        return []
    table = Table(
        (f"minus {baseline}", *(_heading(comparison, task) for task in tasks)),
        tuple(
            (
                Cell(row.weighting),
                *(_signed_cell(row.differences[baseline].tasks[task]) for task in tasks),
            )
            for row in rows
        ),
    )
    text = (
        f'Difference to "{baseline}": above 0, the row is better. * {PERCENT} interval excludes 0.'
    )
    return [Paragraph(text), table]


def _metrics(comparison):
    columns = [
        (task, metric)
        for task in (*comparison.tasks, *comparison.floor)
        for metric in comparison.trivial.get(task, {})
    ]
    rows = [
        (
            Cell(row.weighting),
            *(
                Cell(number(row.metrics[task].get(metric, float("nan"))))
                for task, metric in columns
            ),
        )
        for row in comparison.rows
    ]
    trivial = (Cell(number(comparison.trivial[task][metric])) for task, metric in columns)
    return Table(
        ("pre-training", *(f"{task}: {metric}" for task, metric in columns)),
        (*rows, (Cell("trivial baseline"), *trivial)),
    )


def _failure_blocks(comparison) -> list[Block]:
    if not comparison.failures:
        return []
    return [
        Heading("Failed"),
        Paragraph("These cells have no figures. The same command tries them again."),
        Table(
            ("pre-training", "seed", "task", "reason"),
            tuple(
                (Cell(name), Cell(str(seed)), Cell(task), Cell(reason))
                for name, seed, task, reason in comparison.failures
            ),
            text_columns=(0, 2, 3),
        ),
    ]


def _draw(comparison: DownstreamComparison, path: Path) -> None:
    rows: Sequence[DownstreamRow] = comparison.rows
    nothing = [False] * len(rows)
    groups = [BarGroup("worst task", [row.worst for row in rows], nothing)]
    for task in (*comparison.tasks, *comparison.floor):
        floor = task in comparison.floor
        groups.append(
            BarGroup(
                f"{shown(task)}\nnot counted" if floor else shown(task),
                [row.gains[task] for row in rows],
                [row.worst_task == task for row in rows],
                floor,
            )
        )
    key = "Bold: the worst task of each row."
    if comparison.floor:
        key += " Pale: not clear of the trivial baseline under any row."
    draw_bars(
        groups,
        [row.weighting for row in rows],
        path,
        "Gain on each downstream task",
        key,
        "gain over the trivial baseline, as a share of what there was to gain; whiskers: 95% "
        "bootstrap interval over seeds",
    )


def _heading(comparison, task):
    return f"{task} (not counted)" if task in comparison.floor else task


def _mean_of(values):
    return sum(values.values()) / len(values) if values else float("nan")


def _cell(interval, mark=""):
    return Cell(number(interval.estimate), bounds(interval), mark)


def _signed_cell(interval):
    star = "*" if interval.excludes_zero else ""
    return Cell(signed(interval.estimate) + star, bounds(interval, signed_figures=True))


def _percent_change(share):
    return NOTHING if math.isnan(share) else f"{100 * share:+.1f}"
