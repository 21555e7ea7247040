"""Pictures of a comparison: training losses, task weights, held-out losses."""

import io
import math
import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_taskrobust.evaluation.comparison import Comparison, check_runs, compare
from keras_taskrobust.evaluation.files import write_atomically
from keras_taskrobust.evaluation.runs import Run

# Told apart with any common colour blindness: Paul Tol's "muted" for tasks, Okabe and Ito's set for
# weightings. Beyond their number, colours return with another line style or hatching.
_TASK_COLOURS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#DDAA33",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#888888",
)
_WEIGHTING_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#666666",
)
_LINE_STYLES = ("-", "--", ":", "-.")
_HATCHES = ("", "///", "...", "xxx")

_INK = "#222222"
_FAINT = "#8a8a8a"
# Inches. 12 inches at 150 dots are 1800 pixels, legible when shown at 1200.
_WIDTH = 12.0
_DOTS_PER_INCH = 150
_FONT = 9.0
_LINE_HEIGHT = 0.165


def plot_task_losses(runs: Sequence[Run], path: str | os.PathLike) -> None:
    """Draws the training loss of every task over the steps, one panel a weighting, as a PNG.

    Several seeds are averaged. The smoothed line is drawn over the faint raw one.

    Args:
        runs: the runs; those with a history are drawn.
        path: where the picture goes.
    """
    _plot_training(runs, path, "loss", "Training loss of each task")


def plot_task_weights(runs: Sequence[Run], path: str | os.PathLike) -> None:
    """Draws the weight of every task over the steps, one panel a weighting, as a PNG.

    Several seeds are averaged, and the lines smoothed.

    Args:
        runs: the runs; those with a history are drawn.
        path: where the picture goes.
    """
    _plot_training(runs, path, "weight", "Weight of each task in the objective")


def plot_final_bars(
    runs: Sequence[Run], path: str | os.PathLike, minimum_targets: int = 1000
) -> None:
    """Draws the held-out loss of every task under every weighting, with intervals, as a PNG.

    Args:
        runs: the runs.
        path: where the picture goes.
        minimum_targets: tasks with fewer held-out targets are shown apart.
    """
    draw_final_bars(compare(runs, minimum_targets), path)


def has_series(runs: Sequence[Run], kind: str) -> bool:
    """Whether any run has a history of its tasks' `kind`, "loss" or "weight"."""
    return any(f"{name}_{kind}" in run.history for run in runs for name in run.scores.task_names)


def draw_final_bars(comparison: Comparison, path: str | os.PathLike) -> None:
    """As `plot_final_bars`, for a comparison that is there already."""
    groups = _bar_groups(comparison)
    step, gap = 0.15, 0.2
    group_height = step * len(comparison.rows) + gap
    top, bottom = 0.75 + 0.21 * _legend_rows(comparison), 0.55
    height = group_height * len(groups) + top + bottom
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    left = 0.35 + 0.085 * max(len(line) for label, *_ in groups for line in label.split("\n"))
    axes = figure.add_axes(
        (
            left / _WIDTH,
            bottom / height,
            (_WIDTH - left - 0.35) / _WIDTH,
            1 - (top + bottom) / height,
        )
    )
    ends = []
    for position, (_, apart, values, worst) in enumerate(groups):
        centre = position * group_height
        for index, interval in enumerate(values):
            y = centre + (index - (len(values) - 1) / 2) * step
            ends.append(_bar(axes, y, step, index, interval, worst[index], apart))
    limit = max([end for end in ends if math.isfinite(end)], default=1.0)
    axes.set_xlim(0, limit * 1.13)
    axes.set_ylim(len(groups) * group_height - group_height / 2, -group_height / 2)
    axes.set_yticks([position * group_height for position in range(len(groups))])
    axes.set_yticklabels([label for label, *_ in groups])
    for position in range(1, len(groups)):
        axes.axhline((position - 0.5) * group_height, color="#dddddd", linewidth=0.6)
    axes.set_xlabel(
        "held-out loss; whiskers: 95% bootstrap interval over "
        + (
            "records and seeds" if any(len(row.seeds) > 1 for row in comparison.rows) else "records"
        ),
        fontsize=_FONT,
        color=_INK,
    )
    _plain(axes)
    axes.tick_params(axis="y", length=0, labelsize=_FONT + 1)
    axes.spines["left"].set_visible(True)
    figure.text(
        0.02,
        1 - 0.3 / height,
        "Held-out loss of each task",
        fontsize=_FONT + 4,
        color=_INK,
        va="center",
    )
    figure.text(
        0.02, 1 - 0.53 / height, _bar_key(comparison), fontsize=_FONT + 1, color=_INK, va="center"
    )
    _legend(figure, comparison, height)
    save_figure(figure, path)


def _bar_groups(comparison):
    """Label, whether apart, intervals and worst marks (one a row) of each group of bars."""
    rows = comparison.rows
    nothing = [False] * len(rows)
    groups = [
        ("worst task", False, [row.losses.worst for row in rows], nothing),
        ("mean of tasks", False, [row.losses.mean for row in rows], nothing),
    ]
    for name in (*comparison.tasks, *comparison.apart):
        number = comparison.targets[name]
        if number:
            apart = name in comparison.apart
            label = f"{name}\n{'only ' if apart else ''}{number:,} targets"
            values = [row.losses.tasks[name] for row in rows]
            groups.append((label, apart, values, [row.worst_task == name for row in rows]))
    return groups


def _bar_key(comparison):
    key = "Bold: the worst task of each weighting."
    if comparison.apart:
        key += (
            f" Pale: fewer than {comparison.minimum_targets:,} targets, in neither the worst nor "
            "the mean."
        )
    return key


def _bar(axes, y, height, index, interval, worst, apart):
    """Draws one bar, its interval and its number; returns where it ends."""
    value, lower, upper = interval
    if not math.isfinite(value):
        axes.text(0, y, " not finite", va="center", fontsize=_FONT - 1, color=_INK)
        return float("nan")
    colour = _WEIGHTING_COLOURS[index % len(_WEIGHTING_COLOURS)]
    hatch = _HATCHES[index // len(_WEIGHTING_COLOURS) % len(_HATCHES)]
    axes.barh(
        y,
        value,
        height * 0.86,
        color=colour,
        alpha=0.45 if apart else 1.0,
        hatch=hatch,
        edgecolor="white",
        linewidth=0,
    )
    end = value
    if math.isfinite(upper):
        axes.plot([lower, upper], [y, y], color=_INK, linewidth=1.1, solid_capstyle="butt")
        end = max(value, upper)
    axes.annotate(
        f"{value:.3f}" + ("  worst" if worst else ""),
        (end, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=_FONT - 1,
        color=_INK,
        fontweight="bold" if worst else "normal",
    )
    return end


def _legend_rows(comparison):
    return math.ceil(len(comparison.rows) / _legend_columns(comparison))


def _legend_columns(comparison):
    longest = max(len(row.weighting) for row in comparison.rows)
    return max(1, min(len(comparison.rows), int((_WIDTH - 0.5) / (0.6 + 0.085 * longest))))


def _legend(figure, comparison, height):
    from_top = 0.68
    handles = [
        figure.axes[0].barh(
            [0],
            [0],
            color=_WEIGHTING_COLOURS[index % len(_WEIGHTING_COLOURS)],
            hatch=_HATCHES[index // len(_WEIGHTING_COLOURS) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0,
        )
        for index in range(len(comparison.rows))
    ]
    figure.legend(
        handles,
        [row.weighting for row in comparison.rows],
        loc="upper left",
        bbox_to_anchor=(0.02, 1 - from_top / height),
        ncols=_legend_columns(comparison),
        frameon=False,
        fontsize=_FONT + 1,
        labelcolor=_INK,
        handlelength=1.2,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.8,
    )


def _plot_training(runs, path, kind, heading):
    """One panel a weighting, one line a task."""
    check_runs(runs)
    if not has_series(runs, kind):
        raise ValueError(
            f"`runs` must have series of the name '<task>_{kind}' in at least one history. "
            f"Received: {sorted({name for run in runs for name in run.history})}"
        )
    tasks = runs[0].scores.task_names
    panels = {
        weighting: {name: _mean_series(group, f"{name}_{kind}") for name in tasks}
        for weighting, group in _histories(runs).items()
    }
    columns = min(3 if len(panels) != 4 else 2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid = _panel_grid(rows, columns, max(len(name) for name in tasks), len(tasks))
    low, high = _limits(panels)
    low = min(low, 0.0) if kind == "weight" else low
    for index, (weighting, series) in enumerate(panels.items()):
        axes = grid[index]
        for position, name in enumerate(tasks):
            _line(axes, series[name], position, raw=kind == "loss")
        axes.set_ylim(low, high)
        axes.set_xlim(*_step_range(panels))
        axes.set_title(
            textwrap.shorten(weighting, 48, placeholder=" ..."),
            fontsize=_FONT + 2,
            color=_INK,
            loc="left",
        )
        _plain(axes)
        _label_ends(axes, series, (low, high))
        if index % columns:
            axes.tick_params(axis="y", labelleft=False)
        else:
            axes.set_ylabel(kind, fontsize=_FONT, color=_INK)
        if index + columns >= len(panels):
            axes.set_xlabel("step", fontsize=_FONT, color=_INK)
    for axes in grid[len(panels) :]:
        axes.remove()
    seeds = len({run.seed for run in runs})
    figure.text(
        0.02,
        1 - 0.28 / figure.get_figheight(),
        heading + (f" (mean of {seeds} seeds)" if seeds > 1 else ""),
        fontsize=_FONT + 4,
        color=_INK,
        va="center",
    )
    save_figure(figure, path)


def _histories(runs):
    """Weighting name to the histories of its seeds, of those that have one."""
    groups: dict[str, list[dict[str, list[float]]]] = {}
    for run in runs:
        if run.history:
            groups.setdefault(run.weighting, []).append(run.history)
    return groups


def _mean_series(histories, name):
    """`(T,)` steps and `(T,)` values, averaged over the histories that have the step."""
    values: dict[float, list[float]] = {}
    for history in histories:
        for step, value in zip(history["step"], history.get(name, ()), strict=False):
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    return np.array(steps), np.array([_mean_of_finite(values[step]) for step in steps])


def _mean_of_finite(values):
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")


def _smooth(values):
    """Centred moving average of what is finite: wider for a task that is seldom there."""
    finite = np.isfinite(values)
    width = len(values) / 20 / max(finite.mean(), 0.1)
    kernel = np.hanning(2 * round(width) + 3)[1:-1]
    sums = _convolve(np.where(finite, values, 0.0), kernel)
    numbers = _convolve(finite, kernel)
    return np.divide(sums, numbers, out=np.full(len(values), np.nan), where=numbers > 1e-6)


def _convolve(values, kernel):
    """As many values as there were, whichever of the two is longer."""
    half = len(kernel) // 2
    return np.convolve(values, kernel)[half : half + len(values)]


def _limits(panels):
    """The range of the smoothed lines of all panels, with a margin."""
    smoothed = [_smooth(values) for series in panels.values() for _, values in series.values()]
    everything = np.concatenate(smoothed)
    everything = everything[np.isfinite(everything)]
    if not everything.size:
        return 0.0, 1.0
    low, high = float(everything.min()), float(everything.max())
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _step_range(panels):
    steps = np.concatenate([steps for series in panels.values() for steps, _ in series.values()])
    low, high = float(steps.min()), float(steps.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(axes, series, position, raw):
    steps, values = series
    if not len(steps):
        return
    colour = _TASK_COLOURS[position % len(_TASK_COLOURS)]
    style = _LINE_STYLES[position // len(_TASK_COLOURS) % len(_LINE_STYLES)]
    if raw:
        finite = np.isfinite(values)
        axes.plot(steps[finite], values[finite], color=colour, alpha=0.16, linewidth=0.6)
    axes.plot(steps, _smooth(values), color=colour, linestyle=style, linewidth=1.6)


def _label_ends(axes, series, limits):
    """Writes each task's name at the end of its line, moved apart where lines end close."""
    low, high = limits
    ends = []
    for position, (name, (_, values)) in enumerate(series.items()):
        smooth = _smooth(values)
        finite = np.flatnonzero(np.isfinite(smooth))
        if finite.size:
            share = (smooth[finite[-1]] - low) / (high - low)
            ends.append((float(share), name, position))
    ends.sort()
    height = axes.get_position().height * axes.figure.get_figheight()
    leader = 0.12 / (axes.get_position().width * axes.figure.get_figwidth())
    gap = min(_LINE_HEIGHT / height, 1 / max(1, len(ends) - 1))
    size = min(_FONT, _FONT * gap * height / _LINE_HEIGHT)
    places = spread_out([share for share, *_ in ends], gap)
    for (share, name, position), place in zip(ends, places, strict=True):
        axes.plot(
            [1.0, 1 + leader],
            [share, place],
            transform=axes.transAxes,
            color=_TASK_COLOURS[position % len(_TASK_COLOURS)],
            linewidth=1.2,
            clip_on=False,
        )
        axes.text(
            1 + 1.25 * leader,
            place,
            name,
            transform=axes.transAxes,
            va="center_baseline",
            fontsize=size,
            color=_INK,
        )


def spread_out(positions: Sequence[float], gap: float) -> list[float]:
    """Moves sorted positions in [0, 1] as little as possible, to be at least `gap` apart.

    Args:
        positions: ascending numbers.
        gap: the distance; `gap * (len(positions) - 1)` is at most 1.

    Returns:
        The new positions, ascending, in [0, 1].

    Example:

    >>> [round(place, 3) for place in spread_out([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    blocks: list[list[float]] = []  # The mean of `position - index * gap`, and the length.
    for index, position in enumerate(positions):
        blocks.append([position - index * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, number = blocks.pop()
            before, length = blocks[-1]
            blocks[-1] = [(before * length + mean * number) / (length + number), length + number]
    starts = [start for start, number in blocks for _ in range(int(number))]
    highest = 1 - (len(starts) - 1) * gap
    return [min(max(start, 0.0), highest) + index * gap for index, start in enumerate(starts)]


def _panel_grid(rows, columns, name_length, tasks):
    """A figure with equal panels, room for task names at the right of each."""
    names = 0.25 + 0.075 * name_length
    left, top, bottom, heading = 0.75, 0.4, 0.5, 0.32
    width = (_WIDTH - left - columns * names - (columns - 1) * 0.12) / columns
    height = max(2.6, min(4.5, _LINE_HEIGHT * tasks))
    total = top + bottom + rows * (height + heading) + (rows - 1) * 0.3
    figure = Figure(figsize=(_WIDTH, total), facecolor="white")
    panels: list[Axes] = []
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        x = left + column * (width + names + 0.12)
        y = total - top - heading - height - row * (height + heading + 0.3)
        panels.append(figure.add_axes((x / _WIDTH, y / total, width / _WIDTH, height / total)))
    return figure, panels


def _plain(axes):
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(labelsize=_FONT - 1, color=_FAINT, labelcolor=_INK)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a figure as a PNG, whole or not at all."""
    canvas = FigureCanvasAgg(figure)
    picture = io.BytesIO()
    canvas.print_figure(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
    write_atomically(path, picture.getvalue())
