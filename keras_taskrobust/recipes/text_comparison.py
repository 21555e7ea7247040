"""The same pre-training under several weightings, from the same initial weights and batches."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from keras_taskrobust.evaluation import Run, write_report
from keras_taskrobust.recipes.comparison import run_all, settings_of_training
from keras_taskrobust.recipes.text_pretraining import prepare_text, pretrain_text
from keras_taskrobust.recipes.text_recipe import TINY, TextPretraining

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


def compare_text(
    recipe: TextPretraining,
    directory: Path,
    weightings: Mapping[str, dict] = WEIGHTINGS,
    seeds: Iterable[int] = (0,),
    minimum_targets: int = 1000,
    title: str = "PoS-BERT: who pays for the mean?",
) -> list[Run]:
    """Trains each weighting with each seed, and writes one report.

    Finished runs are kept under the hash of their settings and never computed again; a killed
    comparison goes on where it was.

    Args:
        recipe: the settings that all runs share.
        directory: the folder for `report.md`, `report.html`, `metrics.csv`, the plots and `runs/`.
        weightings: names for the report to the recipe fields that differ.
        seeds: each fixes initial weights, order, masks and dropout of a run of every weighting.
        minimum_targets: held-out targets that a task needs to count for worst and mean.
        title: the heading of the report.

    Returns:
        The list of `Run`s.
    """
    text = prepare_text(recipe, directory / "text")
    runs = run_all(
        recipe,
        directory,
        weightings,
        seeds,
        lambda cell, folder, name: pretrain_text(cell, folder, text, name),
    )
    write_report(
        list(runs.values()),
        directory,
        title,
        _settings(recipe, text),
        introduction=INTRODUCTION,
        minimum_targets=minimum_targets,
        baseline="uniform",
    )
    return list(runs.values())


def _settings(recipe, text):
    return {
        "corpus": f"{recipe.corpus}, {len(text.train)} training and {len(text.held_out)} held-out "
        f"sequences of {recipe.sequence_length} tokens",
        "tagger": text.train.manifest["settings"]["tagger"],
        "model": f"{recipe.num_layers} layers of {recipe.hidden_dim}, {recipe.num_heads} heads, "
        f"vocabulary of {text.encoder.vocabulary_size}",
        **settings_of_training(recipe, "sequences"),
    }
