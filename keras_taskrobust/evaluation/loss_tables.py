"""The tables of held-out losses and shares, for a report and for the terminal."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from keras_taskrobust.evaluation.changes import Change
from keras_taskrobust.evaluation.figures import (
    MINUS,
    NOTHING,
    PERCENT,
    difference_entry,
    interval_entry,
    number,
    percentage,
    signed,
    worst_names,
)
from keras_taskrobust.evaluation.intervals import Interval, Intervals
from keras_taskrobust.evaluation.loss_comparison import Comparison, LossRow
from keras_taskrobust.evaluation.measures import Measure
from keras_taskrobust.evaluation.rendering import (
    MARK,
    Block,
    Entry,
    Heading,
    Paragraph,
    Table,
    longest_part,
)
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
    measure, best = comparison.measure, comparison.best_row
    columns: dict[str, Callable[[LossRow], Entry]] = {
        f"worst {measure.words}": lambda row: interval_entry(
            row.figures.worst, measure.best if row is best and len(comparison.rows) > 1 else ""
        ),
        "worst task": lambda row: Entry(worst_names(row.worst_tasks)),
        f"mean {measure.words}": lambda row: interval_entry(row.figures.mean),
    }
    if not measure.is_share:
        columns["pooled loss"] = lambda row: Entry(number(row.pooled))
    columns["spread"] = lambda row: Entry(number(row.spread))
    if comparison.has_differences:
        minus = f"minus {comparison.baseline}"
        columns[f"worst, {minus}"] = lambda row: difference_entry(_difference(row).worst)
        columns[f"mean, {minus}"] = lambda row: difference_entry(_difference(row).mean)
    if measure.is_share:
        columns["worst loss"] = lambda row: interval_entry(row.losses.worst)
        columns["mean loss"] = lambda row: interval_entry(row.losses.mean)
        columns["pooled loss"] = lambda row: Entry(number(row.pooled))
    columns["seeds"] = lambda row: Entry(str(len(row.seeds)))
    columns["seconds"] = lambda row: Entry(f"{row.seconds:.1f}")
    table = table_of_rows(
        "weighting",
        comparison.rows,
        {name: name for name in columns},
        lambda row, name: columns[name](row),
        "Summary",
    )
    return dataclasses.replace(table, text_columns=(0, 2))


def figures_table(comparison: Comparison) -> Table:
    """The loss or share of each task under each weighting, its worst one marked."""
    return table_of_rows(
        "weighting",
        comparison.rows,
        {name: name for name in comparison.tasks},
        lambda row, name: interval_entry(
            row.figures.tasks[name], "worst" if name == row.worst_task else ""
        ),
        f"Held-out {comparison.measure.words} of each task",
    )


def loss_tables(comparison: Comparison) -> list[Table]:
    """The losses behind the shares, and those of the parts of the loss, with the trivial ones."""
    return [_loss_table(comparison, measure) for measure in _losses_beside(comparison)]


def _losses_beside(comparison):
    """The losses that are not compared: those behind the shares, and those of the parts."""
    losses = (Measure("loss", part) for part in ("", *comparison.parts))
    return [measure for measure in losses if measure != comparison.measure]


def _loss_table(comparison, measure):
    table = table_of_rows(
        "weighting",
        comparison.rows,
        {name: name for name in comparison.tasks},
        lambda row, name: interval_entry(row.losses_of(measure.part).tasks[name]),
        f"Held-out {measure.words} of each task",
    )
    trivial = comparison.trivial.get(measure.part)
    if not trivial:
        return table
    constant = (
        Entry("best constant"),
        *(Entry(number(trivial[name])) for name in comparison.tasks),
    )
    return dataclasses.replace(table, rows=(*table.rows, constant))


def difference_blocks(comparison: Comparison) -> list[Block]:
    """The differences to the baseline; empty if there are none."""
    rows = [row for row in comparison.rows if row.difference]
    if not rows:
        return []
    better = (
        "above 0, the weighting has the higher share."
        if comparison.measure.is_share
        else "below 0, the weighting has the lower loss."
    )
    text = f'Difference to "{comparison.baseline}": {better} * {PERCENT} interval excludes 0.'
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
            (Entry("of all"), *(Entry(f"{one / total:.1%}") for one in numbers)),
        ),
        title="Held-out targets of each task",
    )


def change_blocks(changes: Mapping[str, Mapping[str, Change]]) -> list[Block]:
    """What training did to the loss of each task; empty if no run has a history.

    Args:
        changes: row to task to its `Change`.
    """
    if not changes:
        return []
    tasks = list(dict.fromkeys(name for of_row in changes.values() for name in of_row))
    rows = [
        (Entry(row), *(_change_entry(of_row.get(name)) for name in tasks))
        for row, of_row in changes.items()
    ]
    title = "Training loss of each task: change since the start"
    text = "Means of the last tenth of the steps minus those of the first tenth."
    table = Table(("weighting", *tasks), tuple(rows), title=title)
    return [table, Paragraph(text)]


def _change_entry(change):
    if change is None:
        return Entry(NOTHING)
    return Entry(
        signed(change.end - change.start), f"{number(change.start)} to {number(change.end)}"
    )


def apart_blocks(comparison: Comparison) -> list[Block]:
    """The tasks with too few targets; empty if there are none."""
    if not comparison.apart:
        return []
    text = (
        f"Too few held-out targets to be compared (fewer than {comparison.minimum_targets:,}); in "
        "neither worst, mean nor spread. Pooled figures include them."
    )
    kinds: dict[str, Callable[[LossRow, str], Entry]] = {
        comparison.measure.words: lambda row, name: interval_entry(row.figures.tasks[name]),
        "loss": lambda row, name: interval_entry(row.losses.tasks[name]),
    }
    if comparison.has_accuracies:
        kinds["accuracy, percent"] = lambda row, name: Entry(percentage(row.accuracies[name]))
    columns = {(name, kind): f"{name}: {kind}" for name in comparison.apart for kind in kinds}
    heading = Heading("Shown apart: " + ", ".join(comparison.apart))
    table = table_of_rows(
        "weighting", comparison.rows, columns, lambda row, column: kinds[column[1]](row, column[0])
    )
    return [heading, Paragraph(text), table]


def terminal_tables(comparison: Comparison, width: int) -> Iterator[Table]:
    """Tasks as rows, the weightings evenly over as many tables as lines of `width` ask for.

    What is compared comes first, then the losses behind it.
    """
    rows = comparison.rows
    least = max(_LEAST, *(longest_part(row.name) for row in rows))
    room = width - 1 - (_NAME + _BETWEEN) - (_TARGETS + _BETWEEN)
    tables = math.ceil(len(rows) * (least + _BETWEEN) / max(room, least + _BETWEEN))
    each = math.ceil(len(rows) / tables)
    figures = max(least, min(_MOST, room // each - _BETWEEN))
    groups = [rows[start : start + each] for start in range(0, len(rows), each)]
    for group in groups:
        yield _terminal_table(comparison, group, figures)
    for measure in _losses_beside(comparison):
        for group in groups:
            yield _terminal_losses(comparison, group, figures, measure)


def _terminal_table(comparison, rows, width):
    sections = list(_terminal_sections(comparison, rows))
    return Table(
        ("task", "targets", *(row.name for row in rows)),
        tuple(itertools.chain.from_iterable(sections)),
        title=f"Held-out {comparison.measure.words}",
        rules=tuple(itertools.accumulate(map(len, sections))),
        widths=(_NAME, _TARGETS, *(width for _ in rows)),
    )


def _terminal_losses(comparison, rows, width, measure):
    """The losses that shares are of, beside the trivial ones."""
    trivial = comparison.trivial.get(measure.part, {})
    lines = []
    for name in (*comparison.tasks, *comparison.apart):
        label = name if name in comparison.tasks else f"({name})"
        losses = (row.losses_of(measure.part).tasks[name].estimate for row in rows)
        figures = [Entry(number(loss)) for loss in losses]
        lines.append(_line(label, number(trivial.get(name, math.nan)), figures))
    if not measure.part:
        lines.append(_line("pooled", "", [Entry(number(row.pooled)) for row in rows]))
    return Table(
        ("task", "trivial", *(row.name for row in rows)),
        tuple(lines),
        title=f"Held-out {measure.words}",
        widths=(_NAME, _TARGETS, *(width for _ in rows)),
    )


def _terminal_sections(comparison, rows):
    """Lists of lines of entries, a rule between the lists."""
    yield [_task_line(comparison, rows, name, name) for name in comparison.tasks]
    pooled = _line("pooled", "", [Entry(number(row.pooled)) for row in rows])
    yield [
        *_interval_lines("worst", [row.figures.worst for row in rows], interval_entry),
        *_interval_lines("mean", [row.figures.mean for row in rows], interval_entry),
        *([] if comparison.measure.is_share else [pooled]),
        _line("spread", "", [Entry(number(row.spread)) for row in rows]),
    ]
    if comparison.has_differences:
        names = [f"{figure} {MINUS} {comparison.baseline}" for figure in ("worst", "mean")]
        differences = [_difference(row) for row in rows]
        yield [
            *_interval_lines(names[0], [one.worst for one in differences], difference_entry),
            *_interval_lines(names[1], [one.mean for one in differences], difference_entry),
        ]
    if comparison.apart:
        yield [_task_line(comparison, rows, name, f"({name})") for name in comparison.apart]


def _difference(row):
    return row.difference or _NO_DIFFERENCE


def _task_line(comparison, rows, name, label):
    figures = [
        Entry(number(row.figures.tasks[name].estimate), mark=MARK if name == row.worst_task else "")
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
