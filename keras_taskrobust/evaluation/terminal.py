"""The table of a comparison in the terminal."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from keras_taskrobust.evaluation.bootstrap import Interval
from keras_taskrobust.evaluation.comparison import Comparison, compare
from keras_taskrobust.evaluation.downstream_comparison import (
    DownstreamResult,
    compare_downstream,
)
from keras_taskrobust.evaluation.downstream_wording import downstream_headline, downstream_notes
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.wording import (
    MINUS,
    NOTHING,
    PERCENT,
    bounds,
    headline,
    notes,
    number,
    signed,
)
from keras_taskrobust.plain_text import printable

_MARK = "◀"
_WIDTH = 100
# Columns of characters: the longest name of a line, the number of targets, the figures of a
# weighting at least and at most, and what stands between columns.
_NAME = 16
_TARGETS = len("targets")
_LEAST = len("[-10.000,")
_MOST = len("[-0.000, -0.000]")
_BETWEEN = 2
_ASCII = str.maketrans({NOTHING: "-", MINUS: "-", _MARK: "<"})
_NO_INTERVAL = Interval(math.nan, math.nan, math.nan)


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
    # The weightings, evenly over as many tables as the width asks for.
    room = width - 1 - (_NAME + _BETWEEN) - (_TARGETS + _BETWEEN)
    tables = math.ceil(len(comparison.rows) * (_LEAST + _BETWEEN) / max(room, _LEAST + _BETWEEN))
    each = math.ceil(len(comparison.rows) / tables)
    figures = max(_LEAST, min(_MOST, room // each - _BETWEEN))
    for start in range(0, len(comparison.rows), each):
        rows = comparison.rows[start : start + each]
        console.print(_table(comparison, rows, figures, console), width=width)
    key = f"{_MARK} The worst task of the weighting."
    for line in (key, *notes(comparison, baseline)):
        console.print(Text(encodable(line, console), style="dim"), width=width)
    console.print()
    console.print(Text(encodable(headline(comparison), console), style="bold"), width=width)


def _table(comparison, rows, figures, console):
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Held-out loss")
    table.add_column("task", overflow="fold", width=_NAME)
    table.add_column("targets", justify="right", width=_TARGETS)
    for row in rows:
        table.add_column(
            Text(encodable(row.weighting, console)), justify="right", overflow="fold", width=figures
        )
    for section in _sections(comparison, rows):
        for line in section:
            table.add_row(*(Text(encodable(text, console), style=_style(text)) for text in line))
        table.add_section()
    return table


def _style(text):
    return "bold red" if text.endswith(_MARK) else ""


def _sections(comparison: Comparison, rows):
    """Lists of lines of texts, a rule between the lists."""
    yield [_task_line(comparison, rows, name, name) for name in comparison.tasks]
    yield [
        *_interval_lines("worst", [row.losses.worst for row in rows]),
        *_interval_lines("mean", [row.losses.mean for row in rows]),
        ["pooled", "", *(f"{number(row.pooled)}  " for row in rows)],
        ["spread", "", *(f"{number(row.spread)}  " for row in rows)],
    ]
    if comparison.baseline:
        worst = [row.difference.worst if row.difference else _NO_INTERVAL for row in rows]
        mean = [row.difference.mean if row.difference else _NO_INTERVAL for row in rows]
        yield [
            *_difference_lines(f"worst {MINUS} {comparison.baseline}", worst),
            *_difference_lines(f"mean {MINUS} {comparison.baseline}", mean),
        ]
    if comparison.apart:
        yield [_task_line(comparison, rows, name, f"({name})") for name in comparison.apart]


def _task_line(comparison, rows, name, label):
    figures = [
        number(row.losses.tasks[name].estimate) + (f" {_MARK}" if name == row.worst_task else "  ")
        for row in rows
    ]
    return [label, f"{comparison.targets[name]:,}", *figures]


def _interval_lines(label, intervals):
    return [
        [label, "", *(f"{number(interval.estimate)}  " for interval in intervals)],
        ["", PERCENT, *(bounds(interval) for interval in intervals)],
    ]


def _difference_lines(label, intervals):
    figures = [
        signed(interval.estimate) + ("* " if interval.excludes_zero else "  ")
        for interval in intervals
    ]
    return [
        [label, "", *figures],
        ["", PERCENT, *(bounds(interval, signed_figures=True) for interval in intervals)],
    ]


def encodable(text, console):
    """The text in characters that the console's encoding has, none of which steers it."""
    text = printable(text)
    if console.encoding.lower().startswith("utf"):
        return text
    return text.translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)


def print_downstream(
    results: Sequence[DownstreamResult],
    console: Console | None = None,
    baselines: Sequence[str] = ("uniform", "pooled"),
) -> None:
    """Prints the scores of a downstream comparison: tasks as rows, the worst task marked.

    Args:
        results: one `DownstreamResult` for each row, seed and task.
        console: a `rich` console. `None`: one on the standard output.
        baselines: the rows that the others are compared with.
    """
    console = Console() if console is None else console
    comparison = compare_downstream(results, baselines)
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Downstream scores")
    table.add_column("task", overflow="fold")
    table.add_column("trivial", justify="right")
    for row in comparison.rows:
        heading = Text(encodable(row.weighting, console))
        table.add_column(heading, justify="right", overflow="fold")
    for task in (*comparison.tasks, *comparison.floor):
        trivial = list(comparison.trivial.get(task, {}).values())
        lines = [
            number(row.scores[task].estimate) + (f" {_MARK}" if task == row.worst_task else "  ")
            for row in comparison.rows
        ]
        name = f"({task})" if task in comparison.floor else task
        texts = [name, number(sum(trivial) / len(trivial)) if trivial else NOTHING, *lines]
        table.add_row(*(Text(encodable(text, console), style=_style(text)) for text in texts))
    console.print(table)
    for weighting, seed, task, reason in comparison.failures:
        line = f"Failed: {weighting}, seed {seed}, {task}: {reason}"
        console.print(Text(encodable(line, console), style="red"))
    key = f"{_MARK} The smallest gain over the trivial baseline."
    for line in (key, *downstream_notes(comparison)):
        console.print(Text(encodable(line, console), style="dim"))
    console.print()
    console.print(Text(encodable(downstream_headline(comparison), console), style="bold"))
