"""The same pre-training under several weightings, from the same initial weights and batches."""

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
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw
from keras_taskrobust.recipes.starts import starts_from_grid
from keras_taskrobust.recipes.text import TEXTS, prepare_text, pretrain_text
from keras_taskrobust.recipes.text_settings import TINY, TextPretraining

WEIGHTINGS: dict[str, dict] = {
    "pooled": {"weighting": "pooled"},
    "uniform": {"weighting": "uniform"},
    "minimax": {"weighting": "minimax"},
}
DEMO = dataclasses.replace(TINY, steps=400, warmup_steps=40)
DEMO_MINIMUM = 100
INTRODUCTION = (
    "Each row is the same small PoS-BERT, trained on the same batches from the same initial "
    "weights. Only the weighing of its part-of-speech tasks differs: pooled is plain masked "
    "language modelling, uniform the mean over the tasks, minimax weighs the worst task most."
)


@locks_directory
def compare_text(
    recipe: TextPretraining,
    directory: Path,
    weightings: Mapping[str, dict] = WEIGHTINGS,
    seeds: Iterable[int] = (0,),
    minimum_targets: int = 1000,
    title: str = "PoS-BERT: who pays for the mean?",
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
        directory: the folder for `report.md`, `report.html`, `metrics.csv`, the plots, `runs/`,
            `cells/` and `predictions/`.
        weightings: names for the report to the recipe fields that differ, such as `weighting`,
            `weighting_options`.
        seeds: each fixes initial weights, order, masks and dropout of a run of every weighting.
        minimum_targets: held-out targets that a task needs to count for worst and mean.
        title: the heading of the report.
        downstream: `TaskFamily` to fine-tune on, such as `TextTasks`, or `None`.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the epoch of fine-tuning whose scores are shown.

    Returns:
        `Drawn`.

    Raises:
        ValueError: a weighting is unknown, nothing is finished, or another process is in the
            folder.
    """
    from_scratch = from_scratch and downstream is not None
    planned = grid(recipe, weightings, seeds, from_scratch)
    text = prepare_text(recipe, directory)
    pretrained = pretrain_all(
        planned, directory, lambda cell, folder, name: pretrain_text(cell, folder, text, name)
    )
    settings = {
        "weightings": described(weightings),
        **TEXTS.describe(recipe, text),
        **settings_of_training(recipe, TEXTS.unit),
    }
    introduction, cells = INTRODUCTION, []
    if downstream is not None:
        starts = starts_from_grid(recipe, pretrained, directory, "preset", from_scratch)
        cells = finetuning.finetune_cells(starts, downstream, directory)
        settings |= finetuning.finetuning_settings(downstream, select)
        introduction = f"{INTRODUCTION} {finetuning.INTRODUCTION}"
    manifest = Manifest(
        title,
        settings,
        introduction,
        finished_runs(pretrained),
        cells,
        failures(pretrained),
        minimum_targets,
        select,
    )
    return save_and_draw(manifest, directory)
