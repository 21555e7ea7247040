"""The tables of held-out losses, for a report and for the terminal."""

import itertools
import math
from collections.abc import Iterator

from keras_taskrobust.evaluation.figures import (
    MINUS,
    PERCENT,
    difference_entry,
    interval_entry,
    number,
    percentage,
    worst_names,
)
from keras_taskrobust.evaluation.intervals import Interval, Intervals
from keras_taskrobust.evaluation.loss_comparison import Comparison
from keras_taskrobust.evaluation.rendering import MARK, Block, Entry, Heading, Paragraph, Table
from keras_taskrobust.evaluation.report_files import table_of_rows

# Characters of the terminal's table: of the longest name of a task, of the number of targets, of
# the figures of a weighting at least and at most, and between columns.
_NAME = 16
_TARGETS = len("targets")
_LEAST = len("[-10.000,")
_MOST = len("[-0.000, -0.000]")
_BETWEEN = 2
_NO_INTERVAL = Interval(math.nan, math.nan, math.nan)
_NO_DIFFERENCE = Intervals({}, _NO_INTERVAL, _NO_INTERVAL)


def summary_table(comparison: Comparison) -> Table:
    """Worst, mean, pooled and spread of each weighting, and its differences to the baseline."""
    header = ["weighting", "worst loss", "worst task", "mean loss", "pooled loss", "spread"]
    if comparison.baseline:
        header += [f"worst, minus {comparison.baseline}", f"mean, minus {comparison.baseline}"]
    header += ["seeds", "seconds"]
    best = comparison.best_row
    rows = tuple(_summary_row(comparison, row, row is best) for row in comparison.rows)
    return Table(tuple(header), rows, text_columns=(0, 2), title="Summary")


def _summary_row(comparison, row, is_best):
    entries = [
        Entry(row.name),
        interval_entry(row.losses.worst, "lowest" if is_best else ""),
        Entry(worst_names(row.worst_tasks)),
        interval_entry(row.losses.mean),
        Entry(number(row.pooled)),
        Entry(number(row.spread)),
    ]
    if comparison.baseline:
        difference = row.difference or _NO_DIFFERENCE
        entries += [difference_entry(difference.worst), difference_entry(difference.mean)]
    return (*entries, Entry(str(len(row.seeds))), Entry(f"{row.seconds:.1f}"))


def loss_table(comparison: Comparison) -> Table:
    """The loss of each task under each weighting, its worst one marked."""
    return table_of_rows(
        "weighting",
        comparison.rows,
        {name: name for name in comparison.tasks},
        lambda row, name: interval_entry(
            row.losses.tasks[name], "worst" if name == row.worst_task else ""
        ),
        "Held-out loss of each task",
    )


def difference_blocks(comparison: Comparison) -> list[Block]:
    """The differences to the baseline; empty if there are none."""
    rows = [row for row in comparison.rows if row.difference]
    if not rows:
        return []
    text = (
        f'Difference to "{comparison.baseline}": below 0, the weighting has the lower loss. '
        f"* {PERCENT} interval excludes 0."
    )
    table = table_of_rows(
        f"minus {comparison.baseline}",
        rows,
        {name: name for name in comparison.tasks},
        lambda row, name: difference_entry(row.difference.tasks[name]),
    )
    return [Paragraph(text), table]


def accuracy_blocks(comparison: Comparison) -> list[Block]:
    """The shares of correct predictions; empty if none were counted."""
    if not comparison.has_accuracies:
        return []
    table = table_of_rows(
        "weighting",
        comparison.rows,
        {**{name: name for name in comparison.tasks}, None: "all targets"},
        lambda row, name: Entry(
            percentage(row.pooled_accuracy if name is None else row.accuracies[name])
        ),
        "Held-out accuracy of each task, in percent",
    )
    return [table]


def targets_table(comparison: Comparison) -> Table:
    """How many held-out targets each task has."""
    targets = {name: comparison.targets[name] for name in (*comparison.tasks, *comparison.apart)}
    total = sum(targets.values())
    numbers = (*targets.values(), total)
    return Table(
        ("", *targets, "all"),
        (
            (Entry("targets"), *(Entry(f"{one:,}") for one in numbers)),
            (Entry("share"), *(Entry(f"{one / total:.1%}") for one in numbers)),
        ),
        title="Held-out targets of each task",
    )


def apart_blocks(comparison: Comparison) -> list[Block]:
    """The tasks with too few targets; empty if there are none."""
    if not comparison.apart:
        return []
    text = (
        f"Too few held-out targets to be compared (fewer than {comparison.minimum_targets:,}); in "
        "neither worst, mean nor spread. Pooled figures include them."
    )
    kinds = ("loss", "accuracy, percent") if comparison.has_accuracies else ("loss",)
    columns = {(name, kind): f"{name}: {kind}" for name in comparison.apart for kind in kinds}
    heading = Heading("Shown apart: " + ", ".join(comparison.apart))
    table = table_of_rows("weighting", comparison.rows, columns, _apart_entry)
    return [heading, Paragraph(text), table]


def _apart_entry(row, column):
    name, kind = column
    if kind == "loss":
        return interval_entry(row.losses.tasks[name])
    return Entry(percentage(row.accuracies[name]))


def terminal_tables(comparison: Comparison, width: int) -> Iterator[Table]:
    """Tasks as rows, the weightings evenly over as many tables as lines of `width` ask for."""
    rows = comparison.rows
    room = width - 1 - (_NAME + _BETWEEN) - (_TARGETS + _BETWEEN)
    tables = math.ceil(len(rows) * (_LEAST + _BETWEEN) / max(room, _LEAST + _BETWEEN))
    each = math.ceil(len(rows) / tables)
    figures = max(_LEAST, min(_MOST, room // each - _BETWEEN))
    for start in range(0, len(rows), each):
        yield _terminal_table(comparison, rows[start : start + each], figures)


def _terminal_table(comparison, rows, width):
    sections = list(_terminal_sections(comparison, rows))
    return Table(
        ("task", "targets", *(row.name for row in rows)),
        tuple(itertools.chain.from_iterable(sections)),
        title="Held-out loss",
        rules=tuple(itertools.accumulate(map(len, sections))),
        widths=(_NAME, _TARGETS, *(width for _ in rows)),
    )


def _terminal_sections(comparison, rows):
    """Lists of lines of entries, a rule between the lists."""
    yield [_task_line(comparison, rows, name, name) for name in comparison.tasks]
    yield [
        *_interval_lines("worst", [row.losses.worst for row in rows], interval_entry),
        *_interval_lines("mean", [row.losses.mean for row in rows], interval_entry),
        _line("pooled", "", [Entry(number(row.pooled)) for row in rows]),
        _line("spread", "", [Entry(number(row.spread)) for row in rows]),
    ]
    if comparison.baseline:
        names = [f"{figure} {MINUS} {comparison.baseline}" for figure in ("worst", "mean")]
        differences = [row.difference or _NO_DIFFERENCE for row in rows]
        yield [
            *_interval_lines(names[0], [one.worst for one in differences], difference_entry),
            *_interval_lines(names[1], [one.mean for one in differences], difference_entry),
        ]
    if comparison.apart:
        yield [_task_line(comparison, rows, name, f"({name})") for name in comparison.apart]


def _task_line(comparison, rows, name, label):
    figures = [
        Entry(number(row.losses.tasks[name].estimate), mark=MARK if name == row.worst_task else "")
        for row in rows
    ]
    return _line(label, f"{comparison.targets[name]:,}", figures)


def _interval_lines(label, intervals, entry):
    """The figures, and under them their bounds."""
    entries = [entry(interval) for interval in intervals]
    yield _line(label, "", [Entry(one.text) for one in entries])
    yield _line("", PERCENT, [Entry(one.detail) for one in entries])


def _line(label, targets, entries):
    return (Entry(label), Entry(targets), *entries)
