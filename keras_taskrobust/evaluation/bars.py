"""Bars with intervals: a group a task, a bar a weighting."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from keras_taskrobust.evaluation.drawing import (
    FONT,
    HATCHES,
    INK,
    WEIGHTING_COLOURS,
    WIDTH,
    plain_axes,
    save_figure,
    shown,
)
from keras_taskrobust.evaluation.figures import number
from keras_taskrobust.evaluation.intervals import Interval
from keras_taskrobust.evaluation.loss_comparison import Comparison
from keras_taskrobust.evaluation.measures import Measure

_BAR = 0.15
_GAP = 0.2


@dataclass(frozen=True)
class BarGroup:
    """One group of bars.

    Attributes:
        label: its name; a line break starts small print.
        values: one `Interval` a weighting.
        marked: one bool a weighting, whether its bar is the worst.
        pale: whether the group stands apart.
    """

    label: str
    values: Sequence[Interval]
    marked: Sequence[bool]
    pale: bool = False


def draw_bars(
    groups: Sequence[BarGroup],
    names: Sequence[str],
    path: str | os.PathLike,
    title: str,
    key: str,
    axis: str,
) -> None:
    """Draws groups of bars as a PNG.

    Args:
        groups: the groups, from top to bottom.
        names: the weightings, in the order of the groups' values.
        path: where the picture goes.
        title: the heading.
        key: how to read the picture, in a line.
        axis: what the numbers are.
    """
    names = [shown(name) for name in names]
    group_height = _BAR * len(names) + _GAP
    top, bottom = 0.75 + 0.21 * _legend_rows(names), 0.55
    height = group_height * len(groups) + top + bottom
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    left = 0.35 + 0.085 * max(len(line) for one in groups for line in one.label.split("\n"))
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - 0.35) / WIDTH, 1 - (top + bottom) / height)
    )
    ends: list[float] = []
    for position, group in enumerate(groups):
        for index, interval in enumerate(group.values):
            y = position * group_height + (index - (len(names) - 1) / 2) * _BAR
            ends += _bar(axes, y, index, interval, group.marked[index], group.pale)
    low, high = min([0.0, *ends]), max([0.0, *ends])
    high = high if high > low else 1.0
    axes.set_xlim(low * 1.13, high + 0.13 * (high - low))
    axes.set_ylim(len(groups) * group_height - group_height / 2, -group_height / 2)
    axes.set_yticks([position * group_height for position in range(len(groups))])
    axes.set_yticklabels([group.label for group in groups])
    for position in range(1, len(groups)):
        axes.axhline((position - 0.5) * group_height, color="#dddddd", linewidth=0.6)
    axes.set_xlabel(axis, fontsize=FONT, color=INK)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0, labelsize=FONT + 1)
    axes.spines["left"].set_visible(True)
    for place, text, size in ((0.3, title, FONT + 4), (0.53, key, FONT + 1)):
        figure.text(0.02, 1 - place / height, text, fontsize=size, color=INK, va="center")
    _legend(figure, names, height)
    save_figure(figure, path)


def draw_final_bars(comparison: Comparison, path: str | os.PathLike, measure: Measure) -> None:
    """Draws a held-out figure of every task under every weighting, with intervals, as a PNG."""
    numbers = {len(row.seeds) for row in comparison.rows}
    over_seeds = ["interval of Student's t over seeds"] if max(numbers) > 1 else []
    over_records = ["bootstrap interval over records"] if min(numbers) == 1 else []
    whiskers = ", with one seed ".join(over_seeds + over_records)
    draw_bars(
        _task_groups(comparison, measure),
        [row.name for row in comparison.rows],
        path,
        f"Held-out {measure.words} of each task",
        _key(comparison, measure),
        f"held-out {measure.words}; whiskers: 95% {whiskers}",
    )


def _task_groups(comparison, measure):
    compared = measure == comparison.measure
    rows = comparison.rows
    figures = [row.figures if compared else row.losses_of(measure.part) for row in rows]
    nothing = [False] * len(rows)
    groups = [
        BarGroup("worst task", [one.worst for one in figures], nothing),
        BarGroup("mean of tasks", [one.mean for one in figures], nothing),
    ]
    for name in (*comparison.tasks, *comparison.apart):
        targets = comparison.targets[name]
        if targets:
            apart = name in comparison.apart
            label = f"{shown(name)}\n{'only ' if apart else ''}{targets:,} targets"
            values = [one.tasks[name] for one in figures]
            worst = [compared and row.worst_task == name for row in rows]
            groups.append(BarGroup(label, values, worst, apart))
    return groups


def _key(comparison, measure):
    sentences = []
    if measure.is_share:
        sentences.append("0: the best constant; 1: perfect.")
    if measure == comparison.measure:
        sentences.append("Bold: the worst task of each weighting.")
    if comparison.apart:
        sentences.append(
            f"Pale: fewer than {comparison.minimum_targets:,} targets, in neither the worst nor "
            "the mean."
        )
    return " ".join(sentences)


def _bar(axes, y, index, interval, worst, pale):
    """Draws one bar, its interval and its number; returns how far left and right they go."""
    value, lower, upper = interval
    if not math.isfinite(value):
        axes.text(0, y, " not finite", va="center", fontsize=FONT - 1, color=INK)
        return ()
    colour = WEIGHTING_COLOURS[index % len(WEIGHTING_COLOURS)]
    if worst:  # seen where the bar is short
        axes.axhline(y, color=colour, alpha=0.18, linewidth=72 * _BAR, zorder=0.5)
    axes.barh(
        y,
        value,
        _BAR * 0.86,
        color=colour,
        alpha=0.45 if pale else 1.0,
        hatch=_hatch(index),
        edgecolor="white",
        linewidth=0,
    )
    ends = [value]
    if math.isfinite(upper):
        axes.plot([lower, upper], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")
        ends += [lower, upper]
    axes.annotate(
        number(value) + ("  worst" if worst else ""),
        (max(0.0, *ends), y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=FONT - 1,
        color=INK,
        fontweight="bold" if worst else "normal",
    )
    return min(ends), max(ends)


def _hatch(index):
    return HATCHES[index // len(WEIGHTING_COLOURS) % len(HATCHES)]


def _legend_rows(names):
    return math.ceil(len(names) / _legend_columns(names))


def _legend_columns(names):
    longest = max(len(name) for name in names)
    return max(1, min(len(names), int((WIDTH - 0.5) / (0.6 + 0.085 * longest))))


def _legend(figure, names, height):
    handles = [
        figure.axes[0].barh(
            [0],
            [0],
            color=WEIGHTING_COLOURS[index % len(WEIGHTING_COLOURS)],
            hatch=_hatch(index),
            edgecolor="white",
            linewidth=0,
        )
        for index in range(len(names))
    ]
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.02, 1 - 0.68 / height),
        ncols=_legend_columns(names),
        frameon=False,
        fontsize=FONT + 1,
        labelcolor=INK,
        handlelength=1.2,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.8,
    )
