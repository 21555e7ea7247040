"""What fine-tuning does to related tasks: the report of the protocol of ImageNet-RIB."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from keras_taskrobust.evaluation.figures import about_seeds, bounds, number, signed
from keras_taskrobust.evaluation.heat_maps import draw_changes
from keras_taskrobust.evaluation.inheritance import Inheritance, mean_inheritance
from keras_taskrobust.evaluation.intervals import interval_over_seeds
from keras_taskrobust.evaluation.rendering import (
    Block,
    Entry,
    Notes,
    Paragraph,
    Picture,
    Table,
    to_terminal,
)
from keras_taskrobust.evaluation.report_files import failure_blocks, failure_notes, write_files
from keras_taskrobust.evaluation.runs import Failure

PICTURE = "inheritance.png"
Results = Mapping[str, Mapping[int, Inheritance]]


def write_inheritance_report(
    results: Results,
    directory: str | os.PathLike,
    title: str,
    settings: Mapping[str, str],
    failures: Sequence[Failure] = (),
    computed_with: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Path, ...]:
    """Writes `report.md`, `report.html`, `inheritance.csv` and `inheritance.png`.

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
    means = {row: mean_inheritance(list(seeds.values())) for row, seeds in results.items()}
    draw_changes(means, directory / PICTURE)
    sections: list[Block] = [
        Paragraph(_headline(results), important=True),
        Paragraph(_next_step(results, failures)),
        _summary(results, "Summary"),
        Notes(tuple(_notes(results))),
        Picture(
            PICTURE,
            "What fine-tuning on a task (row) did to the metric of each (column). Red: harmed; "
            "blue: helped; in brackets: the task itself.",
        ),
        *_matrices(results),
        *failure_blocks(
            failures,
            "Starts and seeds with a failed cell are in no figure. The same command tries again.",
            ("start", "seed", "fine-tuned on", "reason"),
        ),
    ]
    written = write_files(
        directory,
        title,
        sections,
        settings,
        computed_with or {},
        {"inheritance.csv": _csv_rows(results)},
    )
    return (directory / PICTURE, *written)


def print_inheritance(
    results: Results, failures: Sequence[Failure] = (), console: Console | None = None
) -> None:
    """Prints the tables of the report.

    Args:
        results: rows of the report to seeds to `Inheritance`, all of the same tasks.
        failures: `(row, seed, task, reason)` of what failed.
        console: a `rich` console. `None`: one on the standard output.
    """
    blocks: list[Block] = [
        *_matrices(results),
        _summary(results, "Robustness improvement"),
        failure_notes(failures),
        Notes(tuple(_notes(results))),
        Paragraph(_headline(results), important=True),
        Paragraph(_next_step(results, failures)),
    ]
    to_terminal(Console() if console is None else console, blocks)


def _summary(results: Results, title: str) -> Table:
    rows = []
    for row, seeds in results.items():
        mean = mean_inheritance(list(seeds.values()))
        overall = interval_over_seeds([one.mean_robustness_improvement for one in seeds.values()])
        start, harmed, change = _worst_of_all(mean)
        rows.append(
            (
                Entry(row),
                Entry(signed(overall.estimate), bounds(overall, signed_figures=True)),
                Entry(signed(change), f"{harmed}, after {start}"),
                Entry(signed(float(np.diag(mean.changes).mean()))),
                Entry(str(len(seeds))),
            )
        )
    header = ("start", "mRI", "worst change", "own task", "seeds")
    return Table(header, tuple(rows), title=title)


def _matrices(results: Results) -> list[Table]:
    return [_matrix(seeds, f"{row}: change of each task") for row, seeds in results.items()]


def _matrix(seeds: Mapping[int, Inheritance], title: str) -> Table:
    """Before, and the change of every task after fine-tuning on each."""
    runs = list(seeds.values())
    mean = mean_inheritance(runs)
    improvements = np.transpose([one.robustness_improvement for one in runs])
    before = [Entry("nothing: the metric"), *(Entry(number(value)) for value in mean.before)]
    rows = [(*before, Entry(""), Entry(""))]
    for index, task in enumerate(mean.tasks):
        changes = [signed(value) for value in mean.changes[index].tolist()]
        entries = [
            Entry(f"({text})" if other == index else text) for other, text in enumerate(changes)
        ]
        harmed, change = mean.worst(task)
        improvement = interval_over_seeds(improvements[index])
        rows.append(
            (
                Entry(task),
                *entries,
                Entry(signed(improvement.estimate), bounds(improvement, signed_figures=True)),
                Entry(f"{harmed} {signed(change)}"),
            )
        )
    header = ("fine-tuned on", *mean.tasks, "RI", "worst other task")
    return Table(header, tuple(rows), text_columns=(0, len(header) - 1), title=title)


def _headline(results: Results) -> str:
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


def _next_step(results: Results, failures: Sequence[Failure]) -> str:
    if failures:
        return "Next: run the same command again: it tries what failed, and keeps the rest."
    if max(len(seeds) for seeds in results.values()) == 1:
        return "Next: more seeds, --seeds 0 1 2: one says nothing about others."
    return (
        "Next: where a task is harmed most, try a gentler fine-tuning, such as --method lora or "
        "--wise-share 0.5."
    )


def _notes(results):
    yield (
        "RI: the mean change of the other tasks' metrics by fine-tuning on a task; mRI: the mean "
        "of RI. In brackets, and in neither: the change of the task fine-tuned on. All start from "
        "one head trained beforehand."
    )
    numbers = [len(seeds) for seeds in results.values()]
    yield (
        f"Square brackets: {about_seeds(numbers, 'held-out examples')} "
        "Worst changes are of the means over the seeds."
        if max(numbers) > 1
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
        yield from ([*key, *entries] for entries in rows)
