"""What the scripts of `protocol.md` share: the rules, and runs that several processes make."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.recipes.cells import Start
from keras_taskrobust.recipes.comparison import (
    compare,
    grid,
    pretrain_all,
    starts_from_grid,
)
from keras_taskrobust.recipes.finetuning import (
    INTRODUCTION,
    finetune_cells,
    finetuning_settings,
)
from keras_taskrobust.recipes.pretraining import PretrainingFamily, pretrain
from keras_taskrobust.recipes.reporting import Manifest, save_and_draw
from keras_taskrobust.recipes.settings import Pretraining

MOMENTUM = 0.9
UNIFORM = {"weighting": "uniform"}
RAW = {"weighting": "minimax", "alpha": 1.0}
UNIT_FREE = {"weighting": "scale_free_minimax", "loss_momentum": MOMENTUM}
CLIP = {"largest_score": 1.0}
UNIT_FREE_CLIPPED = {**UNIT_FREE, "weighting_options": CLIP}


def anchored(alpha: float) -> dict:
    """Weights on the raw losses, from a softmax of `alpha L / T`."""
    return {
        "weighting": "minimax",
        "alpha": alpha,
        "loss_momentum": MOMENTUM,
        "weighting_options": {"trivial_losses": "measure"},
    }


def anchored_and_clipped(alpha: float) -> dict:
    """The same, of scores up to 1 and averages over elements."""
    options = {"trivial_losses": "measure", "loss_memory": 3000.0, **CLIP}
    return {"weighting": "minimax", "alpha": alpha, "weighting_options": options}


def chosen(weightings: Mapping[str, dict], rows: Iterable[str]) -> dict[str, dict]:
    """The named rows, or all if none is named."""
    return {row: weightings[row] for row in rows} if rows else dict(weightings)


def run(
    family: PretrainingFamily,
    recipe: Pretraining,
    directory: Path,
    weightings: Mapping[str, dict],
    seeds: Iterable[int],
    minimum_targets: int,
    title: str,
    downstream: TaskFamily | None = None,
    report: bool = True,
) -> list:
    """Pre-trains and fine-tunes what is missing, without a lock on the folder if without a report.

    Returns:
        The `PlannedRun`s.
    """
    seeds = tuple(seeds)
    planned = grid(recipe, weightings, seeds, downstream is not None)
    data = family.prepare(recipe, directory)
    planned = pretrain_all(
        planned, directory, lambda one, folder, row: pretrain(family, one, folder, data, row)
    )
    if downstream is not None:
        starts = starts_from_grid(recipe, planned, directory, family.preset, True)
        finetune_cells(starts, downstream, directory)
    if report:
        compare(
            family,
            recipe,
            directory,
            weightings,
            seeds,
            minimum_targets,
            title=title,
            downstream=downstream,
        )
    return planned


def finetune_starts(
    starts: list[Start], downstream: TaskFamily, directory: Path, title: str, report: bool = True
) -> list[str]:
    """Fine-tunes finished runs in a folder of its own.

    Returns:
        The keys of the cells.
    """
    cells = finetune_cells(starts, downstream, directory)
    if report:
        settings = finetuning_settings(downstream, "last")
        save_and_draw(Manifest(title, settings, INTRODUCTION, cells=cells), directory)
    return cells
