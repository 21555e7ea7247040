"""The same pre-training under several weightings, from the same initial weights and batches."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from keras_taskrobust import checks
from keras_taskrobust.evaluation import Run
from keras_taskrobust.files import file_name, make_folder, path_to_write
from keras_taskrobust.recipes.cells import digest
from keras_taskrobust.recipes.checks import check_rows
from keras_taskrobust.recipes.failures import tried
from keras_taskrobust.recipes.settings import Pretraining

Recipe = TypeVar("Recipe", bound=Pretraining)


@dataclasses.dataclass(frozen=True)
class PretrainedCell(Generic[Recipe]):
    """A weighting and a seed of the grid.

    Attributes:
        row: string. The weighting's name in the report.
        folder: string. The folder of the run, from that of the comparison.
        recipe: the settings, seed included.
        run: the finished `Run`, or `None`.
        failure: string. Why there is none, "" if there is.
    """

    row: str
    folder: str
    recipe: Recipe
    run: Run | None = None
    failure: str = ""


def grid(
    recipe: Recipe,
    weightings: Mapping[str, dict],
    seeds: Iterable[int],
    from_scratch: bool = False,
) -> list[PretrainedCell[Recipe]]:
    """Each weighting with each seed, not yet trained.

    Args:
        recipe: the settings that all runs share, without options of a weighting.
        weightings: names for the report to the recipe fields that differ, such as `weighting`,
            `weighting_options`.
        seeds: each gives a run of every weighting.
        from_scratch: bool. Whether fine-tuning adds a row without pre-training.

    Returns:
        list of `PretrainedCell`.

    Raises:
        ValueError: a recipe refuses its fields, options that its weighting does not have among
            them; all share such options; there are no weightings or seeds, or a row or
            seed twice.
    """
    seeds = tuple(seeds)
    if recipe.has_options:
        raise ValueError(
            "The options of a weighting must be given with it, as "
            "{'row': {'weighting': 'minimax', 'alpha': 3.0}}: what rows of other weightings share "
            f"has none. Received: weighting_options={dict(recipe.weighting_options)}, "
            f"alpha={recipe.alpha}, loss_momentum={recipe.loss_momentum}"
        )
    check_rows("weightings", weightings, from_scratch)
    checks.seeds("seeds", seeds)
    return [
        PretrainedCell(name, *_cell(name, recipe, seed, fields))
        for seed in seeds
        for name, fields in weightings.items()
    ]


def pretrain_all(
    cells: Iterable[PretrainedCell[Recipe]],
    directory: Path,
    pretrain: Callable[[Recipe, Path, str], Run],
) -> list[PretrainedCell[Recipe]]:
    """Trains what is not yet trained.

    Finished runs are kept under the hash of their settings and never computed again; a killed
    comparison goes on where it was. What fails is marked, its traceback kept beside its folder,
    and the rest goes on.

    Args:
        cells: what `grid` returned.
        directory: the folder in which the runs have theirs, in `runs/`.
        pretrain: from settings, folder and label to a `Run`.

    Returns:
        list of `PretrainedCell`, with their runs or failures.

    Raises:
        ValueError: the folder cannot be written to.
    """
    make_folder(directory)
    return [_pretrain(cell, directory, pretrain) for cell in cells]


def finished_runs(cells: Sequence[PretrainedCell]) -> dict[str, str]:
    """The folder of each finished run, to its row."""
    return {cell.folder: cell.row for cell in cells if cell.run is not None}


def failures(cells: Sequence[PretrainedCell]) -> dict[str, str]:
    """The row and seed of each failed run, to the reason."""
    return {f"{cell.row}, seed {cell.recipe.seed}": cell.failure for cell in cells if cell.failure}


def settings_of_training(recipe: Pretraining, unit: str) -> dict[str, str]:
    """The lines of a report's settings that all recipes have.

    Args:
        recipe: the settings.
        unit: what a batch has several of, such as "sequences".
    """
    return {
        "training": f"{recipe.steps} steps of {recipe.batch_size} {unit}, AdamW, peak rate "
        f"{recipe.peak_learning_rate:g}",
    }


def described(weightings: Mapping[str, dict]) -> str:
    """The rows of a comparison, with what is more of them than the name of a weighting."""
    return "; ".join(_described(name, fields) for name, fields in weightings.items())


def _described(name, fields):
    options = {**fields, **fields.get("weighting_options", {})}
    method = options.pop("weighting", name)
    options.pop("weighting_options", None)
    words = [f"{option} {value}" for option, value in options.items()]
    words = words if method == name else [method, *words]
    return f"{name}: {', '.join(words)}" if words else name


def _cell(name, recipe, seed, fields):
    """Folder and settings."""
    settings = dataclasses.replace(recipe, seed=seed, **fields)
    return f"runs/{file_name(name)}-{seed}-{digest(settings.decisive())}", settings


def _pretrain(cell, directory, pretrain):
    folder = path_to_write(directory, cell.folder)
    hint = f"--batch-size, which is {cell.recipe.batch_size}"
    run = None
    with tried(directory, f"{cell.folder}.traceback.txt", hint) as failure:
        run = pretrain(cell.recipe, folder, cell.row)
    return dataclasses.replace(cell, run=run, failure=failure.reason)
