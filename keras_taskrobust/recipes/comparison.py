"""The same pre-training under several weightings, from the same initial weights and batches."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from keras_taskrobust import checks, distribution, weighting
from keras_taskrobust.downstream.finetuning_run import check_devices
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.evaluation import Run
from keras_taskrobust.files import file_name, make_folder, path_to_write
from keras_taskrobust.recipes import finetuning
from keras_taskrobust.recipes.cells import Start, digest
from keras_taskrobust.recipes.checks import SCRATCH, check_rows
from keras_taskrobust.recipes.failures import tried
from keras_taskrobust.recipes.pretraining import (
    PretrainingFamily,
    Recipe,
    check_shares,
    pretrain,
)
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw


@dataclasses.dataclass(frozen=True)
class PlannedRun(Generic[Recipe]):
    """A weighting and a seed of the grid, and the run that came of it.

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


@distribution.main_locks_directory
def compare(
    family: PretrainingFamily[Recipe, Any],
    recipe: Recipe,
    directory: Path,
    weightings: Mapping[str, dict] | None = None,
    seeds: Iterable[int] = (0,),
    minimum_targets: int = 1000,
    title: str = "",
    downstream: TaskFamily | None = None,
    from_scratch: bool = True,
    select: str = "last",
) -> Drawn:
    """Trains each weighting with each seed, fine-tunes each on downstream tasks, writes one report.

    Finished runs and cells are kept under the hash of their settings and never computed again; a
    killed comparison goes on where it was. What fails is marked in the report, and the rest goes
    on.

    Args:
        family: `PretrainingFamily`.
        recipe: the settings that all runs share, without options of a weighting.
        directory: the folder for `report.md`, `report.html`, `metrics.csv`, the plots, `runs/`,
            `cells/` and `predictions/`.
        weightings: names for the report to the recipe fields that differ, such as `weighting`,
            `weighting_options`; by default those of the family.
        seeds: each fixes initial weights, order, masks and dropout of a run of every weighting.
        minimum_targets: held-out targets that a task needs to count for worst and mean.
        title: the heading of the report; by default that of the family.
        downstream: `TaskFamily` to fine-tune on, or `None`.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the epoch or report of fine-tuning whose scores are shown.

    Returns:
        `Drawn`.

    Raises:
        ValueError: a weighting is unknown, data of a downstream task are not there, nothing is
            finished, or another process is in the folder.
    """
    recipe = recipe.on_device()
    check_shares(recipe)
    weightings = family.weightings if weightings is None else weightings
    from_scratch = from_scratch and downstream is not None
    planned = grid(recipe, weightings, seeds, from_scratch)
    to_do = [one for one in planned if not (directory / one.folder / "finished.json").exists()]
    if downstream is not None:
        check_devices(downstream.settings)
        if to_do:
            downstream.check(downstream.tasks)
    with distribution.main_first():
        data = family.prepare(recipe, directory)
    pretrained = pretrain_all(
        planned, directory, lambda one, folder, label: pretrain(family, one, folder, data, label)
    )
    shared = family.settled(recipe, data)
    settings = {
        "weightings": described(weightings),
        **family.describe(shared, data),
        "training": f"{shared.steps} steps of {shared.batch_size} {family.unit}, AdamW, peak rate "
        f"{shared.peak_learning_rate:g}",
    }
    introduction, cells = family.introduction, []
    if downstream is not None:
        starts = starts_from_grid(recipe, pretrained, directory, family.preset, from_scratch)
        cells = finetuning.finetune_cells(starts, downstream, directory)
        settings |= finetuning.finetuning_settings(downstream, select)
        introduction = f"{introduction} {finetuning.INTRODUCTION}"
    manifest = Manifest(
        title or f"{family.model}: who pays for the mean?",
        settings,
        introduction,
        finished_runs(pretrained),
        cells,
        failures(pretrained),
        minimum_targets,
        select,
    )
    return save_and_draw(manifest, directory)


def grid(
    recipe: Recipe,
    weightings: Mapping[str, dict],
    seeds: Iterable[int],
    from_scratch: bool = False,
) -> list[PlannedRun[Recipe]]:
    """Each weighting with each seed, not yet trained.

    Args:
        recipe: the settings that all runs share, without options of a weighting.
        weightings: names for the report to the recipe fields that differ, such as `weighting`,
            `weighting_options`.
        seeds: each gives a run of every weighting.
        from_scratch: bool. Whether fine-tuning adds a row without pre-training.

    Returns:
        list of `PlannedRun`.

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
        PlannedRun(name, *_folder_and_settings(name, recipe, seed, fields))
        for seed in seeds
        for name, fields in weightings.items()
    ]


def pretrain_all(
    planned: Iterable[PlannedRun[Recipe]],
    directory: Path,
    pretrain: Callable[[Recipe, Path, str], Run],
) -> list[PlannedRun[Recipe]]:
    """Trains what is not yet trained.

    Finished runs are kept under the hash of their settings and never computed again; a killed
    comparison goes on where it was. What fails is marked, its traceback kept beside its folder,
    and the rest goes on.

    Args:
        planned: what `grid` returned.
        directory: the folder in which the runs have theirs, in `runs/`.
        pretrain: from settings, folder and the label of a progress bar to a `Run`.

    Returns:
        list of `PlannedRun`, with their runs or failures.

    Raises:
        ValueError: the folder cannot be written to.
    """
    make_folder(directory)
    planned = list(planned)
    done: list[PlannedRun[Recipe]] = []
    for one in planned:
        failed = sum(bool(other.failure) for other in done)
        place = f"{len(done) + 1}/{len(planned)} " if len(planned) > 1 else ""
        label = f"{place}{one.row}" + (f", {failed} failed" if failed else "")
        done.append(_pretrain(one, directory, pretrain, label))
    return done


def starts_from_grid(
    recipe: Recipe,
    planned: Sequence[PlannedRun[Recipe]],
    directory: Path,
    preset: str,
    from_scratch: bool,
) -> list[Start]:
    """The starts from the runs of a comparison.

    Args:
        recipe: the settings that all runs share.
        planned: what `pretrain_all` returned.
        directory: the folder of the comparison.
        preset: string. The preset's name in the folder of a run.
        from_scratch: bool. Whether to add the same architecture with random weights.

    Returns:
        list of `Start`.
    """
    starts = [
        Start(
            one.row,
            one.recipe.seed,
            str(directory / one.folder / preset),
            json.dumps(one.recipe.decisive(), sort_keys=True),
            one.run.seconds if one.run is not None else 0.0,
            failure=one.failure,
        )
        for one in planned
    ]
    finished = [start for start in starts if not start.failure]
    if not from_scratch or not finished:
        return starts
    shared = dataclasses.replace(recipe, seed=0).decisive()
    identity = json.dumps(shared, sort_keys=True)
    scratch = [
        Start(SCRATCH, seed, finished[0].preset, identity, from_scratch=True)
        for seed in dict.fromkeys(start.seed for start in starts)
    ]
    return [*scratch, *starts]


def finished_runs(planned: Sequence[PlannedRun]) -> dict[str, str]:
    """The folder of each finished run, to its row."""
    return {one.folder: one.row for one in planned if one.run is not None}


def failures(planned: Sequence[PlannedRun]) -> dict[str, str]:
    """The row and seed of each failed run, to the reason."""
    return {f"{one.row}, seed {one.recipe.seed}": one.failure for one in planned if one.failure}


def described(weightings: Mapping[str, dict]) -> str:
    """The rows of a comparison, with what is more of them than the name of a weighting.

    Those of a weighting with an `alpha` say it, also where it is the default.
    """
    return "; ".join(_described(name, fields) for name, fields in weightings.items())


def _described(name, fields):
    options = {**fields, **fields.get("weighting_options", {})}
    method = options.pop("weighting", name)
    options.pop("weighting_options", None)
    default = getattr(weighting.get(method), "alpha", None)
    options = {"alpha": default, **options} if default is not None else options
    words = [f"{option} {value}" for option, value in options.items()]
    words = words if method == name else [method, *words]
    return f"{name}: {', '.join(words)}" if words else name


def _folder_and_settings(name, recipe, seed, fields):
    settings = dataclasses.replace(recipe, seed=seed, **fields)
    return f"runs/{file_name(name)}-{seed}-{digest(settings.decisive())}", settings


def _pretrain(one, directory, pretrain, label):
    folder = path_to_write(directory, one.folder)
    hint = f"--batch-size, which is {one.recipe.batch_size}"
    run = None
    with tried(directory, f"{one.folder}.traceback.txt", hint) as failure:
        run = pretrain(one.recipe, folder, label)
    return dataclasses.replace(one, run=run, failure=failure.reason)
