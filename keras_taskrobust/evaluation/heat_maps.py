"""Heat maps of changes: red where fine-tuning harmed a task, blue where it helped."""

import math
import os
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from keras_taskrobust.evaluation.drawing import FONT, INK, WIDTH, save_figure, shown
from keras_taskrobust.evaluation.figures import signed
from keras_taskrobust.evaluation.inheritance import Inheritance

_CELL = 0.34
_LONGEST = 20
_COLUMNS = 2
#: The share of the largest change from which ink is hard to read on its colour.
_DARK = 0.6


def draw_changes(results: Mapping[str, Inheritance], path: str | os.PathLike) -> None:
    """Draws the changes of all tasks, one panel a row of the report, as a PNG.

    Args:
        results: rows of the report to the `Inheritance` of each.
        path: where the picture goes.
    """
    tasks = next(iter(results.values())).tasks
    columns = min(_COLUMNS, len(results))
    lines = math.ceil(len(results) / columns)
    names = 0.3 + 0.075 * max(len(shown(task, _LONGEST)) for task in tasks)
    width = min(WIDTH / columns - names - 0.4, 0.75 * len(tasks))
    panel = _CELL * len(tasks)
    height = 0.6 + lines * (panel + names + 0.5)
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    largest = max(float(np.abs(one.changes).max()) for one in results.values()) or 1.0
    for index, (row, result) in enumerate(results.items()):
        line, column = divmod(index, columns)
        left = names + column * (WIDTH / columns)
        bottom = height - 0.6 - line * (panel + names + 0.5) - 0.35 - panel
        place = (left / WIDTH, bottom / height, width / WIDTH, panel / height)
        _draw_panel(figure.add_axes(place), row, result, largest)
    heading = "Change of each task (column) by fine-tuning on another (row)"
    figure.text(0.02, 1 - 0.25 / height, heading, fontsize=FONT + 4, color=INK, va="center")
    save_figure(figure, path)


def _draw_panel(axes, title, result, largest):
    changes = result.changes
    axes.imshow(changes, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for (line, column), change in np.ndenumerate(changes):
        text = f"({signed(change)})" if line == column else signed(change)
        colour = "white" if abs(change) > _DARK * largest else INK
        axes.text(column, line, text, ha="center", va="center", fontsize=FONT - 1, color=colour)
    names = [shown(task, _LONGEST) for task in result.tasks]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=FONT, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=FONT, color=INK)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(shown(title), fontsize=FONT + 2, color=INK, loc="left")
