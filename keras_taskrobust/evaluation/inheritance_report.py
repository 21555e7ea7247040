"""What fine-tuning does to related tasks: the report of the protocol of ImageNet-RIB."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from keras_taskrobust.evaluation.downstream_comparison import bootstrap_over_seeds
from keras_taskrobust.evaluation.environments import environment_blocks, mixed_blocks
from keras_taskrobust.evaluation.inheritance import Inheritance, mean_inheritance, rows_as_csv
from keras_taskrobust.evaluation.rendering import (
    Block,
    Cell,
    Heading,
    Notes,
    Paragraph,
    Table,
    settings_table,
    to_html,
    to_markdown,
)
from keras_taskrobust.evaluation.terminal import encodable
from keras_taskrobust.evaluation.wording import FEW_SEEDS, PERCENT, bounds, number, signed
from keras_taskrobust.files import write_atomically

TABLE = "inheritance.csv"

Results = Mapping[str, Mapping[int, Inheritance]]
Failure = tuple[str, int, str, str]


def write_inheritance_report(
    results: Results,
    directory: str | os.PathLike,
    title: str,
    settings: Mapping[str, str],
    failures: Sequence[Failure] = (),
    computed_with: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Path, ...]:
    """Writes `report.md`, `report.html` and `inheritance.csv`.

    Args:
        results: rows of the report to seeds to `Inheritance`, all of the same tasks.
        directory: where the files go; made if it is missing.
        title: the report's title.
        settings: what was run, shown as a table.
        failures: `(row, seed, task, reason)` of what failed.
        computed_with: the cells in words to the backend, device and versions of each.

    Returns:
        The paths written.
    """
    directory = Path(directory)
    blocks: list[Block] = [
        *mixed_blocks(computed_with or {}),
        Paragraph(_headline(results), important=True),
        Heading("Summary"),
        _summary(results),
        Notes(tuple(_notes(results))),
        *(
            block
            for row, seeds in results.items()
            for block in (Heading(f"{row}: change of each task"), _matrix(seeds))
        ),
        *_failure_blocks(failures),
        Heading("Settings"),
        settings_table(settings),
        *environment_blocks(computed_with or {}),
    ]
    texts = {
        TABLE: rows_as_csv(_csv_rows(results)),
        "report.html": to_html(title, blocks, {}),
        "report.md": to_markdown(title, blocks),
    }
    for name, text in texts.items():
        write_atomically(directory / name, text.encode("utf-8", "replace"))
    return tuple(directory / name for name in texts)


def print_inheritance(
    results: Results, failures: Sequence[Failure] = (), console: Console | None = None
) -> None:
    """Prints the tables of the report.

    Args:
        results: rows of the report to seeds to `Inheritance`, all of the same tasks.
        failures: `(row, seed, task, reason)` of what failed.
        console: a `rich` console. `None`: one on the standard output.
    """
    console = Console() if console is None else console
    for row, seeds in results.items():
        console.print(_for_terminal(_matrix(seeds), f"{row}: change of each task", console))
    console.print(_for_terminal(_summary(results), "Robustness improvement", console))
    for row, seed, task, reason in failures:
        line = f"Failed: {row}, seed {seed}, {task}: {reason}"
        console.print(Text(encodable(line, console), style="red"))
    for line in _notes(results):
        console.print(Text(encodable(line, console), style="dim"))
    console.print()
    console.print(Text(encodable(_headline(results), console), style="bold"))


def _summary(results) -> Table:
    rows = []
    for row, seeds in results.items():
        mean = mean_inheritance(list(seeds.values()))
        (overall,) = bootstrap_over_seeds(
            [[one.mean_robustness_improvement] for one in seeds.values()]
        )
        start, harmed, change = _worst_of_all(mean)
        rows.append(
            (
                Cell(row),
                Cell(signed(overall.estimate), bounds(overall, signed_figures=True)),
                Cell(signed(change), f"{harmed}, after {start}"),
                Cell(signed(float(np.diag(mean.changes).mean()))),
                Cell(str(len(seeds))),
            )
        )
    return Table(("start", "mRI", "worst change", "own task", "seeds"), tuple(rows))


def _matrix(seeds) -> Table:
    """Before, and the change of every task after fine-tuning on each."""
    runs = list(seeds.values())
    mean = mean_inheritance(runs)
    improvements = bootstrap_over_seeds([one.robustness_improvement for one in runs])
    before = [Cell("nothing: the metric"), *(Cell(number(value)) for value in mean.before)]
    rows = [(*before, Cell(""), Cell(""))]
    for index, task in enumerate(mean.tasks):
        changes = [signed(value) for value in mean.changes[index].tolist()]
        cells = [
            Cell(f"({text})" if other == index else text) for other, text in enumerate(changes)
        ]
        harmed, change = mean.worst(task)
        improvement = improvements[index]
        rows.append(
            (
                Cell(task),
                *cells,
                Cell(signed(improvement.estimate), bounds(improvement, signed_figures=True)),
                Cell(f"{harmed} {signed(change)}"),
            )
        )
    header = ("fine-tuned on", *mean.tasks, "RI", "worst other task")
    return Table(header, tuple(rows), text_columns=(0, len(header) - 1))


def _headline(results) -> str:
    means = {row: mean_inheritance(list(seeds.values())) for row, seeds in results.items()}
    best = max(means, key=lambda row: means[row].mean_robustness_improvement)
    mean = means[best]
    start, harmed, change = _worst_of_all(mean)
    most = f' of "{best}" is the highest' if len(means) > 1 else f' of "{best}"'
    link = ", " if len(means) > 1 else " is "
    return (
        f"The mean robustness improvement{most}{link}"
        f"{signed(mean.mean_robustness_improvement)}; its worst change is {signed(change)}, of "
        f"{harmed} by fine-tuning on {start}."
    )


def _notes(results):
    yield (
        "RI: the mean change of the other tasks' metrics by fine-tuning on a task; mRI: the mean "
        "of RI. In brackets, and in neither: the change of the task fine-tuned on. All start from "
        "one head trained beforehand."
    )
    several = any(len(seeds) > 1 for seeds in results.values())
    yield (
        f"Square brackets: {PERCENT} percentile bootstrap intervals over the seeds. {FEW_SEEDS} "
        "Worst changes are of the means over the seeds."
        if several
        else "One seed: there are no intervals, and other seeds may give other figures."
    )


def _worst_of_all(mean: Inheritance) -> tuple[str, str, float]:
    """The task fine-tuned on, the other task harmed most, and the change."""
    worst = {task: mean.worst(task) for task in mean.tasks}
    start = min(worst, key=lambda task: worst[task][1])
    return (start, *worst[start])


def _csv_rows(results):
    tables = [
        ((row, str(seed)), result.rows())
        for row, seeds in results.items()
        for seed, result in seeds.items()
    ]
    yield ["start", "seed", *tables[0][1][0]]
    for key, (_, *rows) in tables:
        yield from ([*key, *cells] for cells in rows)


def _failure_blocks(failures) -> list[Block]:
    if not failures:
        return []
    return [
        Heading("Failed"),
        Paragraph(
            "Starts and seeds with a failed cell are in no figure. The same command tries again."
        ),
        Table(
            ("start", "seed", "fine-tuned on", "reason"),
            tuple(
                (Cell(row), Cell(str(seed)), Cell(task), Cell(reason))
                for row, seed, task, reason in failures
            ),
            text_columns=(0, 2, 3),
        ),
    ]


def _for_terminal(table: Table, title: str, console: Console) -> RichTable:
    heading = Text(encodable(title, console), style="table.title")
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=heading)
    for index, name in enumerate(table.header):
        drawn.add_column(
            Text(encodable(name, console)),
            overflow="fold",
            justify="left" if index in table.text_columns else "right",
        )
    for row in table.rows:
        texts = ("\n".join(filter(None, (cell.text, cell.detail))) for cell in row)
        drawn.add_row(*(Text(encodable(text, console)) for text in texts))
    return drawn
