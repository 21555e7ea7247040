"""The tables of downstream results, for a report and for the terminal."""

import dataclasses
import math

from keras_taskrobust.evaluation.downstream_comparison import DownstreamComparison
from keras_taskrobust.evaluation.figures import (
    NOTHING,
    PERCENT,
    difference_entry,
    interval_entry,
    number,
    worst_names,
)
from keras_taskrobust.evaluation.rendering import MARK, Block, Entry, Paragraph, Table, broken
from keras_taskrobust.evaluation.report_files import table_of_rows

#: Characters of a row's name in a line of the terminal, if it can be broken.
_NAME = 12


def summary_table(comparison: DownstreamComparison) -> Table:
    """The worst and mean gain of each row, its rank, and its differences to the baselines."""
    header = ["pre-training", "worst gain", "worst task", "mean score", "mean gain", "mean rank"]
    several = len(comparison.rows) > 1
    if several and comparison.reference:
        header.append("Delta_m, percent")
    baselines = comparison.baselines if several else ()
    for name in baselines:
        header += [f"worst, minus {name}", f"mean, minus {name}", f"wins / losses to {name}"]
    header += ["seeds", "pre-training, s", "fine-tuning, s"]
    best = comparison.best_row
    rows = []
    for row in comparison.rows:
        entries = [
            Entry(row.name),
            interval_entry(row.worst, "best" if row is best and several else ""),
            Entry(worst_names(row.worst_tasks)),
            interval_entry(row.mean),
            Entry(number(row.mean_gain)),
            Entry(NOTHING if math.isnan(row.rank) else f"{row.rank:.2f}"),
        ]
        if several and comparison.reference:
            entries.append(Entry(_percent_change(row.relative_change)))
        for name in baselines:
            entries += _difference_entries(row.differences.get(name))
        entries += [
            Entry(_seeds(row)),
            Entry(f"{row.pretraining_seconds:.1f}"),
            Entry(f"{row.seconds:.1f}"),
        ]
        rows.append(tuple(entries))
    return Table(tuple(header), tuple(rows), text_columns=(0, 2), title="Downstream: summary")


def scores_table(comparison: DownstreamComparison) -> Table:
    """The score of each row on each task, and that of the trivial baseline."""
    columns = _headings(comparison)
    table = table_of_rows(
        "pre-training",
        comparison.rows,
        columns,
        lambda row, task: interval_entry(row.scores[task]),
        "Downstream: score of each task",
    )
    return _with_trivial(table, [_trivial_score(comparison, task) for task in columns])


def gains_table(comparison: DownstreamComparison) -> Table:
    """The gain of each row on each task, its worst one marked."""
    return table_of_rows(
        "pre-training",
        comparison.rows,
        _headings(comparison),
        lambda row, task: interval_entry(
            row.gains[task], "worst" if task == row.worst_task else ""
        ),
        "Downstream: gain over the trivial baseline, as a share of what there was to gain",
    )


def difference_blocks(comparison: DownstreamComparison, baseline: str) -> list[Block]:
    """The differences of the scores to a baseline; empty if no row has any."""
    rows = [row for row in comparison.rows if baseline in row.differences]
    if not rows:
        return []
    text = (
        f'Difference to "{baseline}": above 0, the row is better. * {PERCENT} interval excludes 0.'
    )
    table = table_of_rows(
        f"minus {baseline}",
        rows,
        _headings(comparison),
        lambda row, task: difference_entry(row.differences[baseline].tasks[task]),
    )
    return [Paragraph(text), table]


def metrics_table(comparison: DownstreamComparison) -> Table:
    """Every metric of each row, and that of the trivial baseline."""
    columns = {
        (task, metric): f"{task}: {metric}"
        for task in (*comparison.tasks, *comparison.floor)
        for metric in comparison.trivial.get(task, {})
    }
    table = table_of_rows(
        "pre-training",
        comparison.rows,
        columns,
        lambda row, column: Entry(number(row.metrics[column[0]].get(column[1], math.nan))),
        "Downstream: all metrics",
    )
    return _with_trivial(table, [comparison.trivial[task][metric] for task, metric in columns])


def terminal_table(comparison: DownstreamComparison) -> Table:
    """Tasks as rows, their scores under each pre-training, the smallest gain of each marked."""
    lines = []
    for task in (*comparison.tasks, *comparison.floor):
        name = f"({task})" if task in comparison.floor else task
        lines.append(
            (
                Entry(name),
                Entry(number(_trivial_score(comparison, task))),
                *(
                    _marked(row.scores[task].estimate, task == row.worst_task)
                    for row in comparison.rows
                ),
            )
        )
    header = ("task", "trivial", *(broken(row.name, _NAME) for row in comparison.rows))
    return Table(header, tuple(lines), title="Downstream scores")


def _marked(value, is_worst):
    """All as wide as a marked one."""
    return Entry(number(value), mark=MARK) if is_worst else Entry(f"{number(value)}  ")


def _headings(comparison):
    """The tasks to their headings."""
    not_counted = {task: f"{task} (not counted)" for task in comparison.floor}
    return {**{task: task for task in comparison.tasks}, **not_counted}


def _trivial_score(comparison, task):
    values = comparison.trivial.get(task, {}).values()
    return sum(values) / len(values) if values else math.nan


def _with_trivial(table, values):
    line = (Entry("trivial baseline"), *(Entry(number(value)) for value in values))
    return dataclasses.replace(table, rows=(*table.rows, line))


def _difference_entries(difference):
    if difference is None or not difference.seeds:
        return [Entry(NOTHING)] * 3
    return [
        difference_entry(difference.worst),
        difference_entry(difference.mean),
        Entry(f"{len(difference.wins)} / {len(difference.losses)}"),
    ]


def _seeds(row):
    complete, number_of_seeds = row.complete_seeds, len(row.seeds)
    return str(complete) if complete == number_of_seeds else f"{complete} of {number_of_seeds}"


def _percent_change(share):
    return NOTHING if math.isnan(share) else f"{100 * share:+.1f}"
