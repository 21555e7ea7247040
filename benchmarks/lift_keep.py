"""Keeps finished seeds of the runs of `protocol.md`, without their weights.

    python benchmarks/lift_keep.py lift/lift_pos-bert-... --seeds 0

Copies what a report needs into `benchmarks/results/`. A folder that is copied back from there goes
on with the seeds that it lacks. Keep a seed once all of its cells are finished: what fine-tunes
needs the weights.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro

from keras_taskrobust.recipes.checks import SCRATCH

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


def main(
    folder: tyro.conf.Positional[Path], seeds: tuple[int, ...] = (), output: Path = RESULTS
) -> None:
    """Copies the finished runs and cells of the seeds.

    Args:
        folder: a result folder of `protocol.md`.
        seeds: the seeds; by default all.
        output: where the copy lies, under the same name.
    """
    copy = output / folder.name
    starts = set()
    for done in sorted(folder.glob("runs/*/finished.json")):
        run = done.parent
        seed = json.loads((run / "recipe.json").read_text())["seed"]
        if not seeds or seed in seeds:
            row = run.name.rpartition(f"-{seed}-")[0]
            starts |= {f"{row}-{seed}-", f"{SCRATCH}-{seed}-"}
            _keep_run(run, copy / "runs" / run.name)
    for cell in sorted(folder.glob("cells/*.json")):
        if cell.name.startswith(tuple(starts)):
            (copy / "cells").mkdir(exist_ok=True)
            shutil.copyfile(cell, copy / "cells" / cell.name)


def _keep_run(run, copy):
    copy.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(run / name, copy / name)
    with np.load(run / SCORES) as scores:
        np.savez_compressed(copy / SCORES, **summed(scores))


if __name__ == "__main__":
    tyro.cli(main)
