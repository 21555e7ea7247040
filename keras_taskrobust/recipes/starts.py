"""Where fine-tuning starts: finished presets, the runs of a comparison, random weights."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust import checks
from keras_taskrobust.downstream.preset_files import preset_files
from keras_taskrobust.recipes.cells import Start
from keras_taskrobust.recipes.checks import SCRATCH, check_rows
from keras_taskrobust.recipes.comparison import PretrainedCell
from keras_taskrobust.recipes.settings import Pretraining


def start_from_preset(row: str, seed: int, preset: str) -> Start:
    """The start from a finished preset, known by the content of what is read of it.

    Args:
        row: string. The row of the report.
        seed: int.
        preset: string. Folder, file, name or URI of a pre-trained model.

    Returns:
        `Start`.
    """
    folder = Path(preset)
    digest = hashlib.sha256(str(preset).encode())
    if folder.is_file():
        digest = hashlib.sha256(folder.read_bytes())
    elif folder.is_dir():
        digest = hashlib.sha256()
        for file in preset_files(folder):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return Start(row, seed, preset, digest.hexdigest())


def starts_from_presets(
    presets: Mapping[str, str], seeds: Sequence[int], from_scratch: bool
) -> list[Start]:
    """The starts from finished presets.

    Args:
        presets: rows of the report to presets.
        seeds: sequence of ints.
        from_scratch: bool. Whether to add the first preset's architecture with random weights.

    Returns:
        list of `Start`.

    Raises:
        ValueError: there are no presets or seeds, or a row or seed twice.
    """
    check_rows("presets", presets, from_scratch)
    checks.seeds("seeds", seeds)
    starts = [
        start_from_preset(row, seed, preset) for row, preset in presets.items() for seed in seeds
    ]
    if from_scratch:
        first = start_from_preset(SCRATCH, 0, next(iter(presets.values())))
        starts += [dataclasses.replace(first, seed=seed, from_scratch=True) for seed in seeds]
    return starts


def starts_from_grid(
    recipe: Pretraining,
    cells: Sequence[PretrainedCell],
    directory: Path,
    preset: str,
    from_scratch: bool,
) -> list[Start]:
    """The starts from the runs of a comparison.

    Args:
        recipe: the settings that all runs share.
        cells: what `pretrain_all` returned.
        directory: the folder of the comparison.
        preset: string. The preset's name in the folder of a run.
        from_scratch: bool. Whether to add the same architecture with random weights.

    Returns:
        list of `Start`.
    """
    starts = [
        Start(
            cell.row,
            cell.recipe.seed,
            str(directory / cell.folder / preset),
            json.dumps(cell.recipe.decisive(), sort_keys=True),
            cell.run.seconds if cell.run is not None else 0.0,
            failure=cell.failure,
        )
        for cell in cells
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
