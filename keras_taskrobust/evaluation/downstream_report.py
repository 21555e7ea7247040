"""The report of downstream results: what was found, in files and printed."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_taskrobust.evaluation.bars import BarGroup, draw_bars
from keras_taskrobust.evaluation.downstream_comparison import (
    DownstreamComparison,
    DownstreamResult,
    compare_downstream,
    share_of_gain,
)
from keras_taskrobust.evaluation.downstream_tables import (
    difference_blocks,
    gains_table,
    metrics_table,
    scores_table,
    summary_table,
    terminal_table,
)
from keras_taskrobust.evaluation.drawing import shown
from keras_taskrobust.evaluation.environments import environments
from keras_taskrobust.evaluation.figures import (
    PERCENT,
    about_seeds,
    bounds,
    number,
    signed,
    worst_legend,
    worst_names,
)
from keras_taskrobust.evaluation.rendering import (
    MARK,
    Block,
    Notes,
    Paragraph,
    Picture,
    to_terminal,
)
from keras_taskrobust.evaluation.report_files import failure_blocks, failure_notes, write_files

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
    comparison = compare_downstream(results, baselines)
    draw_downstream(comparison, directory)
    written = write_files(
        directory,
        title,
        downstream_sections(comparison),
        settings,
        environments(results=results),
        {TABLE: downstream_rows(results)},
        introduction,
    )
    return (directory / PICTURE, *written)


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
    comparison = compare_downstream(results, baselines)
    key = f"{MARK} The smallest gain over the trivial baseline."
    blocks: list[Block] = [
        terminal_table(comparison),
        failure_notes(comparison.failures),
        Notes((key, *downstream_notes(comparison))),
        Paragraph(downstream_headline(comparison), important=True),
        Paragraph(downstream_next_step(comparison)),
    ]
    to_terminal(Console() if console is None else console, blocks)


def downstream_sections(comparison: DownstreamComparison) -> list[Block]:
    """The downstream part of a report, with the picture that `draw_downstream` draws."""
    return [
        Paragraph(downstream_headline(comparison), important=True),
        Paragraph(downstream_next_step(comparison)),
        summary_table(comparison),
        Notes(tuple(downstream_notes(comparison))),
        *failure_blocks(
            comparison.failures,
            "These cells have no figures. The same command tries them again.",
            ("pre-training", "seed", "task", "reason"),
        ),
        scores_table(comparison),
        gains_table(comparison),
        Picture(PICTURE, "Gain of each row on each task over the trivial baseline."),
        *(block for name in comparison.baselines for block in difference_blocks(comparison, name)),
        metrics_table(comparison),
    ]


def downstream_rows(results: Sequence[DownstreamResult]) -> Iterable[Sequence[Any]]:
    """The rows of `downstream.csv`: one a metric, numbers in full; of a failure, its reason."""
    yield "weighting", "seed", "task", "metric", "value", "trivial", "gain", "seconds", "failure"
    for one in results:
        key, seconds = (one.row, one.seed, one.task), repr(one.seconds)
        for metric, value in one.scores.items():
            trivial = one.trivial[metric]
            figures = (value, trivial, share_of_gain(value, trivial))
            yield *key, metric, *map(repr, figures), seconds, ""
        if one.failure:
            yield *key, "", "", "", "", seconds, one.failure


def draw_downstream(comparison: DownstreamComparison, directory: Path) -> None:
    """Draws the gains as `downstream.png`."""
    rows = comparison.rows
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
    axis = "gain over the trivial baseline, as a share of what there was to gain"
    if any(len(row.seeds) > 1 for row in rows):
        axis += "; whiskers: 95% interval of Student's t over seeds"
    draw_bars(
        groups,
        [row.name for row in rows],
        directory / PICTURE,
        "Gain on each downstream task",
        key,
        axis,
    )


def downstream_headline(comparison: DownstreamComparison) -> str:
    """Which row has the best worst task, how sure that is, and which tasks do not count."""
    left_out = (
        " Not counted, since no row lies clear of the trivial baseline there: "
        f"{', '.join(comparison.floor)}."
    )
    return _finding(comparison) + (left_out if comparison.floor else "")


def downstream_next_step(comparison: DownstreamComparison) -> str:
    """What to do next, in a sentence."""
    rows = comparison.rows
    if comparison.failures:
        return "Next: run the same command again: it tries what failed, and keeps the rest."
    if comparison.nothing_clear:
        return (
            "Next: longer fine-tuning, a longer pre-training, or tasks with more examples: nothing "
            "was learned here that a comparison could rest on."
        )
    if len(rows) == 1:
        return (
            "Next: set other presets beside it, --preset A B, or the same network without "
            "pre-training, --from-scratch."
        )
    if max(len(row.seeds) for row in rows) == 1:
        return "Next: more seeds, --seeds 0 1 2: one says nothing about others."
    best = comparison.best_row
    rows = (best,) if best is not None and best.differences else rows
    compared = [one.worst for row in rows for one in row.differences.values()]
    if compared and not any(one.excludes_zero for one in compared):
        return "Next: more seeds: these do not tell the worst tasks of the rows apart."
    return "Next: look at the worst task of each row below: is it one that you need?"


def _finding(comparison):
    row = comparison.best_row
    if row is None:
        return "No row has figures for all tasks that count."
    worst = f"{number(row.worst.estimate)} ({worst_names(row.worst_tasks)})"
    if row.complete_seeds < len(row.seeds):
        worst += f", over {row.complete_seeds} of {len(row.seeds)} seeds"
    if comparison.nothing_clear:
        return (
            "Under no row does any task lie clear of the trivial baseline: these figures say "
            f'nothing about the rows. The best worst gain, of "{row.name}", is {worst}.'
        )
    if len(comparison.rows) == 1:
        return f'The smallest gain of "{row.name}" on a downstream task is {worst}.'
    start = f'"{row.name}" has the best worst downstream task: a gain of {worst}'
    if not row.differences:
        return f"{start}."
    against = []
    for name, difference in row.differences.items():
        verdict = _verdict(difference.worst)
        against.append(f'{signed(difference.worst.estimate)} to "{name}" ({verdict})')
    return f"{start}; {', '.join(against)}."


def downstream_notes(comparison: DownstreamComparison) -> Iterable[str]:
    """What a reader must know to read the figures right."""
    numbers = [len(row.seeds) for row in comparison.rows]
    several = max(numbers) > 1
    yield (
        "The gain is (score - trivial) / (best possible - trivial), the trivial baseline being the "
        "best prediction that does not look at the example. The worst task is the one with the "
        "smallest gain; each seed has its own, and they are averaged. The score of a task is the "
        "mean of its metrics."
    )
    yield (
        f"Brackets: {about_seeds(numbers, 'held-out examples')}"
        if several
        else "One seed: there are no intervals, and other seeds may order the rows otherwise."
    )
    if comparison.floor:
        yield (
            "Not counted, since under no row the score lies clear of the trivial baseline"
            f"{' (above it with every seed)' if several else ''}: {', '.join(comparison.floor)}."
        )
    yield from worst_legend(row.worst_tasks for row in comparison.rows)
    if comparison.reference and len(comparison.rows) > 1:
        yield (
            f'Delta_m: the mean relative change of the scores to "{comparison.reference}", over '
            "the tasks where its score is above 0."
        )
    if comparison.baselines and len(comparison.rows) > 1:
        yield (
            f"Wins and losses: tasks where the {PERCENT} interval of the difference lies above, "
            "below 0. None is corrected for there being several."
        )


def _verdict(interval):
    if math.isnan(interval.lower):
        return "one seed, no interval"
    sides = "excludes" if interval.excludes_zero else "includes"
    return f"{bounds(interval, signed_figures=True)}, which {sides} 0"
