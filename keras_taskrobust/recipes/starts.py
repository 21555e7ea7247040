"""Where fine-tuning starts: finished presets, or their architecture with random weights."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust import checks
from keras_taskrobust.downstream.preset_files import preset_files
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.recipes.cells import Start
from keras_taskrobust.recipes.checks import SCRATCH, check_rows


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
    presets: Mapping[str, str], seeds: Sequence[int], family: TaskFamily, from_scratch: bool
) -> list[Start]:
    """The starts from finished presets.

    Args:
        presets: rows of the report to presets.
        seeds: sequence of ints.
        family: `TaskFamily`.
        from_scratch: bool. Whether to add the first preset's architecture with random weights.

    Returns:
        list of `Start`.

    Raises:
        ValueError: there are no presets or seeds, a row or seed twice, or no such preset.
    """
    check_rows("presets", presets, from_scratch)
    checks.seeds("seeds", seeds)
    found = {row: family.find(preset) for row, preset in presets.items()}
    starts = [
        start_from_preset(row, seed, preset) for row, preset in found.items() for seed in seeds
    ]
    if from_scratch:
        first = start_from_preset(SCRATCH, 0, next(iter(found.values())))
        starts += [dataclasses.replace(first, seed=seed, from_scratch=True) for seed in seeds]
    return starts
