"""MM-MAE under several weightings, from the same initial weights and batches."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes import finetuning
from keras_taskrobust.recipes.comparison import (
    described,
    failures,
    finished_runs,
    grid,
    pretrain_all,
    settings_of_training,
)
from keras_taskrobust.recipes.image_settings import TINY, ImagePretraining
from keras_taskrobust.recipes.images import IMAGES, open_images, pretrain_images
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw
from keras_taskrobust.recipes.starts import starts_from_grid

WEIGHTINGS: dict[str, dict] = {
    "uniform": {"weighting": "uniform"},
    "minimax": {"weighting": "minimax"},
}
DEMO = dataclasses.replace(TINY, steps=120, warmup_steps=12)
DEMO_MINIMUM = 100
INTRODUCTION = (
    "Each row is the same small MM-MAE, trained on the same batches from the same initial weights. "
    "Only the weighing of its tasks, one a modality, differs: uniform is the mean over the tasks, "
    "minimax weighs the worst task most. The losses are of different kinds, and on different "
    "scales: squared errors of RGB, absolute errors of depth, cross-entropy of labels."
)


@locks_directory
def compare_images(
    recipe: ImagePretraining,
    directory: Path,
    weightings: Mapping[str, dict] = WEIGHTINGS,
    seeds: Iterable[int] = (0,),
    minimum_targets: int = 1000,
    title: str = "MM-MAE: who pays for the mean?",
    downstream: TaskFamily | None = None,
    from_scratch: bool = True,
    select: str = "last",
) -> Drawn:
    """Trains each weighting with each seed, fine-tunes each on downstream tasks, writes one report.

    Finished runs and cells are kept under the hash of their settings and never computed again; a
    killed comparison goes on where it was. What fails is marked in the report, and the rest goes
    on.

    Args:
        recipe: the settings that all runs share, without options of a weighting.
        directory: the folder for `report.md`, `report.html`, `metrics.csv`, the plots, `runs/`
            and `cells/`.
        weightings: names for the report to the recipe fields that differ, such as `weighting`,
            `weighting_options`.
        seeds: each fixes initial weights, order and masks of a run of every weighting.
        minimum_targets: held-out images that a task needs to count for worst and mean.
        title: the heading of the report.
        downstream: `TaskFamily` to fine-tune on, such as `ImageTasks`, or `None`.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the report of a fine-tuning run whose scores are shown.

    Returns:
        `Drawn`.

    Raises:
        ValueError: a weighting is unknown, no run is finished, or another process is in the folder.
    """
    from_scratch = from_scratch and downstream is not None
    planned = grid(recipe, weightings, seeds, from_scratch)
    images = open_images(recipe)
    cells = pretrain_all(
        planned, directory, lambda cell, folder, name: pretrain_images(cell, folder, images, name)
    )
    shared = recipe.with_steps(len(images.train))
    settings = {
        "weightings": described(weightings),
        **IMAGES.describe(shared, images),
        **settings_of_training(shared, IMAGES.unit),
    }
    introduction, keys = INTRODUCTION, []
    if downstream is not None:
        starts = starts_from_grid(recipe, cells, directory, "model.keras", from_scratch)
        keys = finetuning.finetune_cells(starts, downstream, directory)
        settings |= finetuning.finetuning_settings(downstream, select)
        introduction = f"{INTRODUCTION} {finetuning.INTRODUCTION}"
    manifest = Manifest(
        title,
        settings,
        introduction,
        finished_runs(cells),
        keys,
        failures(cells),
        minimum_targets,
        select,
    )
    return save_and_draw(manifest, directory)
