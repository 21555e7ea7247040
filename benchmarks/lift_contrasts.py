"""The contrasts of `protocol.md`, from the runs and cells of a result folder.

    python benchmarks/lift_contrasts.py FOLDER --row unit-free --against uniform "best static"

Writes `contrasts.md` into the folder: worst share, worst downstream gain over scratch, and their
differences, each the mean over the seeds with its interval of Student's t.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tyro

from keras_taskrobust.evaluation import DownstreamResult, Run, compare_downstream
from keras_taskrobust.evaluation.intervals import Interval, interval_over_seeds
from keras_taskrobust.files import write_atomically
from keras_taskrobust.recipes.checks import SCRATCH
from keras_taskrobust.recipes.reporting import Drawn, draw

WITHIN = "within"
Figures = Mapping[str, Mapping[int, float]]


def worst_shares(runs: Iterable[Run], minimum_targets: int) -> Figures:
    """Row to seed to the smallest share of a task; of the word within its task, for texts."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        scores = run.scores.parts.get(WITHIN, run.scores)
        found.setdefault(run.row, {})[run.seed] = scores.worst_share(minimum_targets)[1]
    return found


def worst_gains_over_scratch(results: Iterable[DownstreamResult]) -> Figures:
    """Row to seed to the smallest gain over scratch of the tasks that count."""
    results = list(results)
    counted = compare_downstream(results).tasks
    scratch = {(one.seed, one.task): one.gain for one in results if one.row == SCRATCH}
    gains: dict[str, dict[int, list[float]]] = {}
    for one in results:
        if one.task in counted and one.row != SCRATCH:
            gain = one.gain - scratch.get((one.seed, one.task), math.nan)
            gains.setdefault(one.row, {}).setdefault(one.seed, []).append(gain)
    return {
        row: {seed: float(np.min(found)) for seed, found in seeds.items()}
        for row, seeds in gains.items()
    }


def contrast(figures: Figures, row: str, other: str) -> Interval:
    """A row minus another, in pairs of the same seed."""
    ours, theirs = figures[row], figures[other]
    return interval_over_seeds([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def main(
    folder: tyro.conf.Positional[Path],
    row: str,
    against: tuple[str, ...] = ("uniform",),
    seeds: tuple[int, ...] = (),
):
    """Writes and prints the endpoints of all rows and the contrasts of one.

    Args:
        folder: a result folder with its report.
        row: the row whose contrasts are taken.
        against: the rows that it is compared with.
        seeds: the seeds that count; by default all.
    """
    text = "\n".join(_lines(draw(folder), row, against, seeds))
    write_atomically(folder / "contrasts.md", f"{text}\n".encode())
    print(text)


def _lines(drawn: Drawn, row, against, counted):
    runs, results = (
        [one for one in ones if not counted or one.seed in counted]
        for ones in (drawn.runs, drawn.results)
    )
    endpoints = {"worst share": worst_shares(runs, drawn.manifest.minimum_targets)}
    if results:
        endpoints["worst gain over scratch"] = worst_gains_over_scratch(results)
    for name, figures in endpoints.items():
        yield from (f"| {name} | mean and 95% interval | seeds |", "| :-- | --: | --: |")
        for one, seeds in figures.items():
            yield _line(one, interval_over_seeds(list(seeds.values())), len(seeds), "")
        for other in against:
            seeds = figures[row].keys() & figures[other].keys()
            yield _line(f"{row} minus {other}", contrast(figures, row, other), len(seeds), "+")
        yield ""


def _line(name, found, seeds, sign):
    bounds = f"[{found.lower:{sign}.4f}, {found.upper:{sign}.4f}]"
    star = " \\*" if sign and found.excludes_zero else ""
    return f"| {name} | {found.estimate:{sign}.4f} {bounds}{star} | {seeds} |"


if __name__ == "__main__":
    tyro.cli(main)
