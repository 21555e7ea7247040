"""Keeps finished runs of `protocol.md` and their cells, without weights.

    python benchmarks/lift_keep.py lift/lift_pos-bert-... --cells 5

Copies what a report needs into `benchmarks/results/`. A folder that is copied back from there goes
on with what it lacks. A run is kept once all of its cells are finished: what fine-tunes needs the
weights.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro

from keras_taskrobust.files import file_name

RESULTS = Path(__file__).parent / "results"
COPIED = ("recipe.json", "finished.json", "history.csv")
SCORES = "scores.npz"
#: The held-out scores of so many texts are kept as one sum; their mean stays as it is.
SUMMED = 100
MOST_KEPT = 1_000


def summed(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores `(records, tasks)` summed over every hundred of many records.

    Args:
        scores: the arrays of a `scores.npz`.

    Returns:
        dict of strings to arrays.

    Example:

    >>> summed({"counts": np.ones((1_050, 2), int)})["counts"].shape
    (11, 2)
    """
    return {
        name: np.add.reduceat(found, np.arange(0, len(found), SUMMED))
        if found.ndim == 2 and len(found) > MOST_KEPT
        else found
        for name, found in scores.items()
    }


def main(folder: tyro.conf.Positional[Path], cells: int = 0, output: Path = RESULTS) -> None:
    """Copies the runs that have all of their cells, and these.

    Args:
        folder: a result folder of `protocol.md`.
        cells: how many cells a run has.
        output: where the copy lies, under the same name.
    """
    copy = output / folder.name
    cells_of = defaultdict(list)
    for cell in sorted(folder.glob("cells/*.json")):
        found = json.loads(cell.read_text())
        cells_of[file_name(found["row"]), found["seed"]].append(cell)
    whole = {start for start, found in cells_of.items() if len(found) >= cells}
    for done in sorted(folder.glob("runs/*/finished.json")):
        run = done.parent
        seed = json.loads((run / "recipe.json").read_text())["seed"]
        if not cells or (run.name.rpartition(f"-{seed}-")[0], seed) in whole:
            _keep_run(run, copy / "runs" / run.name)
    for cell in (cell for start in whole for cell in cells_of[start]):
        (copy / "cells").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cell, copy / "cells" / cell.name)


def _keep_run(run, copy):
    copy.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(run / name, copy / name)
    with np.load(run / SCORES) as scores:
        np.savez_compressed(copy / SCORES, **summed(scores))


if __name__ == "__main__":
    tyro.cli(main)
