"""Fine-tuning on a family of downstream tasks: a grid of cells, each computed once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_taskrobust import distribution
from keras_taskrobust.downstream.finetuning_run import check_devices
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.recipes.cells import Cell, Start, compute_cells
from keras_taskrobust.recipes.predictions import keep_predictions
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw
from keras_taskrobust.recipes.starts import starts_from_presets

#: What the introduction of a comparison adds where fine-tuning follows.
INTRODUCTION = (
    "Each of them is then fine-tuned on every downstream task, with the same settings for all; "
    '"scratch" is the same network fine-tuned from random weights.'
)


@distribution.main_locks_directory
def finetune(
    presets: Mapping[str, str],
    seeds: Iterable[int],
    family: TaskFamily,
    directory: Path,
    from_scratch: bool = True,
    select: str = "last",
) -> Drawn:
    """Fine-tunes finished presets on downstream tasks and writes a report.

    Args:
        presets: rows of the report to presets, as the family opens them.
        seeds: each fixes the head's initial weights, the order, augmentation and dropout.
        family: `TaskFamily`, such as `TextTasks` or `ImageTasks`.
        directory: the folder for the report, the cells and what they leave.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the epoch or report of a run whose scores are shown.

    Returns:
        `Drawn`.

    Raises:
        ValueError: there is no such preset, data of a task are not there, nothing is finished, or
            another process is in the folder.
    """
    starts = starts_from_presets(presets, tuple(seeds), family, from_scratch)
    cells = finetune_cells(starts, family, directory, family.check)
    settings = {
        "presets": ", ".join(f"{row}: {preset}" for row, preset in presets.items()),
        **finetuning_settings(family, select),
    }
    title = f"Fine-tuning on {family.kind}"
    return save_and_draw(Manifest(title, settings, cells=cells, select=select), directory)


def finetune_cells(
    starts: Sequence[Start],
    family: TaskFamily,
    directory: Path,
    check: Callable[[Collection[str]], None] = lambda tasks: None,
) -> list[str]:
    """Fine-tunes every start on every task. Finished cells are kept; failed ones tried again.

    Args:
        starts: the starts.
        family: `TaskFamily`.
        directory: the folder of the cells. What a cell leaves lies in `cells/<key>/`.
        check: as in `compute_cells`.

    Returns:
        list of strings, the keys of the cells.
    """
    check_devices(family.settings)
    cells = [
        Cell(start, task, family.settings, family.identity(task))
        for task in family.tasks
        for start in starts
    ]
    return compute_cells(
        cells, directory, lambda cell: _compute(cell, family, directory), check=check
    )


def finetuning_settings(family: TaskFamily, select: str) -> dict[str, str]:
    """The lines of a report's settings that say how fine-tuning was done."""
    return {
        **family.describe(),
        "method of fine-tuning": family.settings.method_in_words(),
        "scores": f"of the {select} {family.scored}",
    }


def _compute(cell: Cell, family: TaskFamily, directory: Path) -> dict[str, Any]:
    start = cell.start
    keras.utils.set_random_seed(start.seed)
    with distribution.scope():
        opened = family.open(start.preset, start.from_scratch)
        result = family.finetune(opened, cell.task, cell.settings, start.seed)
    with distribution.main_first():
        if distribution.is_main():
            keep_predictions(directory, cell.key, family.files(result, opened, cell.task))
    return {
        "scores": result.scores,
        **result.further_scores,
        "trivial": result.trivial_scores,
        "history": result.history,
        "seconds": result.seconds,
    }
