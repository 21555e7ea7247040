"""Pictures of a comparison: training losses, task weights, held-out losses or shares."""

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_taskrobust.evaluation.bars import draw_final_bars
from keras_taskrobust.evaluation.drawing import (
    FONT,
    INK,
    LINE_HEIGHT,
    LINE_STYLES,
    TASK_COLOURS,
    WEIGHTING_COLOURS,
    WIDTH,
    plain_axes,
    save_figure,
    shown,
)
from keras_taskrobust.evaluation.loss_comparison import check_runs, compare
from keras_taskrobust.evaluation.runs import Run

_LONGEST_LABEL = 24
_AGREEMENT = {
    "Cosine, mean over the pairs of tasks": "gradient_cosine",
    "Share of the pairs in conflict": "gradient_conflict",
}


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


def plot_gradient_norms(runs: Sequence[Run], path: str | os.PathLike) -> None:
    """Draws the norm of every task's gradient over the steps, one panel a weighting, as a PNG.

    Several seeds are averaged, and the lines smoothed.

    Args:
        runs: the runs; those with a history are drawn. It is of models compiled with
            `gradient_diagnostics=True`.
        path: where the picture goes.
    """
    _plot_training(runs, path, "gradient_norm", "Gradient norm of each task")


def plot_gradient_conflicts(runs: Sequence[Run], path: str | os.PathLike) -> None:
    """Draws how the tasks' gradients agree over the steps, one line a weighting, as a PNG.

    Left the mean cosine of two tasks' gradients, right the share of the pairs with a negative one.
    Several seeds are averaged. The smoothed line is drawn over the faint raw one.

    Args:
        runs: the runs; those with a history are drawn. It is of models compiled with
            `gradient_diagnostics=True`.
        path: where the picture goes.
    """
    check_runs(runs)
    histories = {
        weighting: [history for history in group if "gradient_cosine" in history]
        for weighting, group in _histories(runs).items()
    }
    histories = {weighting: group for weighting, group in histories.items() if group}
    if not histories:
        raise ValueError(
            "`runs` must have the series 'gradient_cosine' and 'gradient_conflict' in at least one "
            f"history. Received: {sorted({name for run in runs for name in run.history})}"
        )
    panels = {
        title: {weighting: _mean_series(group, name) for weighting, group in histories.items()}
        for title, name in _AGREEMENT.items()
    }
    limits = [_limits({title: series}) for title, series in panels.items()]
    heading = _heading("Agreement of the task gradients", runs)
    _plot(panels, limits, path, heading, columns=2, colours=WEIGHTING_COLOURS)


def plot_final_bars(
    runs: Sequence[Run], path: str | os.PathLike, minimum_targets: int = 1000
) -> None:
    """Draws the held-out share of every task under every weighting, with intervals, as a PNG.

    Of runs without trivial losses it draws the loss.

    Args:
        runs: the runs.
        path: where the picture goes.
        minimum_targets: tasks with fewer held-out targets are shown apart.
    """
    comparison = compare(runs, minimum_targets)
    draw_final_bars(comparison, path, comparison.measure)


def has_series(runs: Sequence[Run], kind: str) -> bool:
    """Whether any run has a history of its tasks' `kind`: "loss", "weight" or "gradient_norm"."""
    return any(f"{name}_{kind}" in run.history for run in runs for name in run.scores.task_names)


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
        for weighting, group in _histories(run for run in runs if has_series([run], kind)).items()
    }
    low, high = _limits(panels)
    low = min(low, 0.0) if kind == "weight" else low
    columns = min(3 if len(panels) != 4 else 2, len(panels))
    label = kind.replace("_", " ")
    limits = [(low, high)] * len(panels)
    _plot(panels, limits, path, _heading(heading, runs), columns, label, raw=kind == "loss")


def _heading(text, runs):
    seeds = len({run.seed for run in runs})
    return text + (f" (mean of {seeds} seeds)" if seeds > 1 else "")


def _plot(panels, limits, path, heading, columns, label="", raw=True, colours=TASK_COLOURS):
    """Panels of lines, `{title: {name: series}}`; a `label` names the axis that a row shares."""
    names = next(iter(panels.values()))
    gap = 0.12 if label else 0.5
    figure, grid = _panel_grid(math.ceil(len(panels) / columns), columns, names, gap)
    for index, (title, series) in enumerate(panels.items()):
        axes = grid[index]
        for position, line in enumerate(series.values()):
            _line(axes, line, position, raw, colours)
        axes.set_ylim(*limits[index])
        axes.set_xlim(*_step_range(panels))
        axes.set_title(shown(title), fontsize=FONT + 2, color=INK, loc="left")
        plain_axes(axes)
        _label_ends(axes, series, limits[index], colours)
        if label and index % columns:
            axes.tick_params(axis="y", labelleft=False)
        elif label:
            axes.set_ylabel(label, fontsize=FONT, color=INK)
        if index + columns >= len(panels):
            axes.set_xlabel("step", fontsize=FONT, color=INK)
    for axes in grid[len(panels) :]:
        axes.remove()
    top = 1 - 0.28 / figure.get_figheight()
    figure.text(0.02, top, heading, fontsize=FONT + 4, color=INK, va="center")
    save_figure(figure, path)


def _histories(runs):
    """Weighting name to the histories of its seeds, of those that have one."""
    groups: dict[str, list[dict[str, list[float]]]] = {}
    for run in runs:
        if run.history:
            groups.setdefault(run.row, []).append(run.history)
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


def _line(axes, series, position, raw, colours):
    steps, values = series
    if not len(steps):
        return
    colour = colours[position % len(colours)]
    style = LINE_STYLES[position // len(colours) % len(LINE_STYLES)]
    if raw:
        finite = np.isfinite(values)
        axes.plot(steps[finite], values[finite], color=colour, alpha=0.16, linewidth=0.6)
    axes.plot(steps, _smooth(values), color=colour, linestyle=style, linewidth=1.6)


def _label_ends(axes, series, limits, colours):
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
    gap = min(LINE_HEIGHT / height, 1 / max(1, len(ends) - 1))
    size = min(FONT, FONT * gap * height / LINE_HEIGHT)
    places = spread_out([share for share, *_ in ends], gap)
    for (share, name, position), place in zip(ends, places, strict=True):
        axes.plot(
            [1.0, 1 + leader],
            [share, place],
            transform=axes.transAxes,
            color=colours[position % len(colours)],
            linewidth=1.2,
            clip_on=False,
        )
        axes.text(
            1 + 1.25 * leader,
            place,
            shown(name, _LONGEST_LABEL),
            transform=axes.transAxes,
            va="center_baseline",
            fontsize=size,
            color=INK,
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


def _panel_grid(rows, columns, labels, gap):
    """A figure with equal panels, room for the labels of lines at the right of each, and a gap."""
    names = 0.25 + 0.075 * max(len(shown(label, _LONGEST_LABEL)) for label in labels)
    left, top, bottom, heading = 0.75, 0.4, 0.5, 0.32
    width = (WIDTH - left - columns * names - (columns - 1) * gap) / columns
    height = max(2.6, min(4.5, LINE_HEIGHT * len(labels)))
    total = top + bottom + rows * (height + heading) + (rows - 1) * 0.3
    figure = Figure(figsize=(WIDTH, total), facecolor="white")
    panels: list[Axes] = []
    for index in range(rows * columns):
        row, column = divmod(index, columns)
        x = left + column * (width + names + gap)
        y = total - top - heading - height - row * (height + heading + 0.3)
        panels.append(figure.add_axes((x / WIDTH, y / total, width / WIDTH, height / total)))
    return figure, panels
