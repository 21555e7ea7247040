"""The same pre-training under several weightings, from the same initial weights and batches."""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import keras
import keras_hub
import numpy as np

from keras_taskrobust.evaluation import Run
from keras_taskrobust.recipes.pretraining_recipe import Pretraining

Recipe = TypeVar("Recipe", bound=Pretraining)


def run_all(
    recipe: Recipe,
    directory: Path,
    weightings: Mapping[str, dict],
    seeds: Iterable[int],
    pretrain: Callable[[Recipe, Path, str], Run],
) -> dict[str, Run]:
    """Trains each weighting with each seed.

    Finished runs are kept under the hash of their settings and never computed again; a killed
    comparison goes on where it was.

    Args:
        recipe: the settings that all runs share.
        directory: the folder in which the runs have theirs, in `runs/`.
        weightings: names for the report to the recipe fields that differ.
        seeds: each gives a run of every weighting.
        pretrain: from settings, folder and label to a `Run`.

    Returns:
        The runs by the paths of their folders from `directory`.
    """
    runs = {}
    for seed in seeds:
        for name, fields in weightings.items():
            cell = dataclasses.replace(recipe, seed=seed, **fields)
            folder = f"runs/{_key(name, cell)}"
            runs[folder] = pretrain(cell, directory / folder, name)
    return runs


def settings_of_training(recipe: Pretraining, unit: str) -> dict[str, str]:
    """The lines of a report's settings that all recipes have.

    Args:
        recipe: the settings.
        unit: what a batch has several of, such as "sequences".
    """
    return {
        "training": f"{recipe.steps} steps of {recipe.batch_size} {unit}, AdamW, peak rate "
        f"{recipe.peak_learning_rate:g}",
        "alpha of minimax": f"{recipe.alpha:g}",
        "backend": keras.backend.backend(),
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"Keras {keras.__version__}, KerasHub {keras_hub.__version__}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _key(name, cell):
    content = json.dumps(dataclasses.asdict(cell), sort_keys=True).encode()
    return f"{name.replace(' ', '-')}-{cell.seed}-{hashlib.sha256(content).hexdigest()[:8]}"
