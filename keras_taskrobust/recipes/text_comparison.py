"""The same pre-training under several weightings, from the same initial weights and batches."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_taskrobust import checks
from keras_taskrobust.downstream import text_task
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.cells import (
    DOWNSTREAM_INTRODUCTION,
    special_settings,
    starts_from_grid,
    starts_from_presets,
)
from keras_taskrobust.recipes.comparison import (
    described,
    failures,
    finished_runs,
    grid,
    pretrain_all,
    settings_of_training,
)
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw
from keras_taskrobust.recipes.text import TEXTS, prepare_text, pretrain_text
from keras_taskrobust.recipes.text_finetuning import finetune_cells
from keras_taskrobust.recipes.text_finetuning_recipe import SMALL
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


@dataclasses.dataclass(frozen=True)
class Downstream:
    """The downstream stage of a comparison.

    Args:
        tasks: names of text tasks.
        settings: `FineTuning`, the same for all.
        data_dir: folder of GLUE's tables, or `None` for TFDS.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the epoch whose scores are shown.

    Raises:
        ValueError: there is no such task, no task, or one twice.
    """

    tasks: tuple[str, ...]
    settings: FineTuning = SMALL
    data_dir: str | None = None
    from_scratch: bool = True
    select: str = "last"

    def __post_init__(self):
        checks.distinct("tasks", self.tasks)
        for name in self.tasks:
            text_task(name)


@locks_directory
def compare_text(
    recipe: TextPretraining,
    directory: Path,
    weightings: Mapping[str, dict] = WEIGHTINGS,
    seeds: Iterable[int] = (0,),
    minimum_targets: int = 1000,
    title: str = "PoS-BERT: who pays for the mean?",
    downstream: Downstream | None = None,
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
        downstream: `Downstream`, or `None` for no fine-tuning.

    Returns:
        `Drawn`.

    Raises:
        ValueError: a weighting is unknown, nothing is finished, or another process is in the
            folder.
    """
    from_scratch = downstream is not None and downstream.from_scratch
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
        starts = starts_from_grid(recipe, pretrained, directory, "preset", downstream.from_scratch)
        cells = finetune_cells(
            starts, downstream.tasks, downstream.settings, directory, downstream.data_dir
        )
        settings |= finetuning_settings(downstream.settings, downstream.select)
        introduction = f"{INTRODUCTION} {DOWNSTREAM_INTRODUCTION}"
    manifest = Manifest(
        title,
        settings,
        introduction,
        finished_runs(pretrained),
        cells,
        failures(pretrained),
        minimum_targets,
        downstream.select if downstream else "last",
    )
    return save_and_draw(manifest, directory)


@locks_directory
def finetune_presets(
    presets: Mapping[str, str], seeds: Iterable[int], downstream: Downstream, directory: Path
) -> Drawn:
    """Fine-tunes finished presets on downstream tasks and writes a report.

    Args:
        presets: rows of the report to folders, names or URIs of KerasHub BERT presets.
        seeds: each fixes the head's initial weights, the order and dropout.
        downstream: `Downstream`.
        directory: the folder for the report, the cells and the predictions.

    Returns:
        `Drawn`.
    """
    starts = starts_from_presets(presets, tuple(seeds), downstream.from_scratch)
    cells = finetune_cells(
        starts, downstream.tasks, downstream.settings, directory, downstream.data_dir
    )
    settings = {
        "presets": ", ".join(f"{row}: {preset}" for row, preset in presets.items()),
        **finetuning_settings(downstream.settings, downstream.select),
    }
    title = "Fine-tuning on downstream tasks"
    return save_and_draw(
        Manifest(title, settings, cells=cells, select=downstream.select), directory
    )


def finetuning_settings(settings: FineTuning, select: str) -> dict[str, str]:
    """The lines of a report's table that say how fine-tuning was done."""
    steps = f", at most {settings.max_steps} steps" if settings.max_steps else ""
    return {
        "fine-tuning": f"{settings.epochs} epochs{steps} of {settings.batch_size} examples, AdamW, "
        f"peak rate {settings.learning_rate:g}, weight decay {settings.weight_decay:g}, warm-up "
        f"{settings.warmup_share:.0%}",
        "method of fine-tuning": special_settings(settings),
        "scores": f"of the {select} epoch",
    }
