"""Test beds (a) and (b) of `protocol.md`, and what is exploratory: MM-MAE on NYU Depth v2.

    cd SOMEWHERE-WITH-nyuv2_64x48.npz
    KERAS_BACKEND=jax python .../benchmarks/lift_images.py select
    KERAS_BACKEND=jax python .../benchmarks/lift_images.py compare --seeds 0 --no-report
    KERAS_BACKEND=jax python .../benchmarks/lift_images.py compare

Every command writes a folder of `protocol.md`'s name into `--output`. Finished runs and cells are
kept. Without a report, several processes may share a folder with different seeds or rows.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import keras
import matplotlib.pyplot as plt
import numpy as np
import tyro
from downstream_images import FINETUNING, MINIMUM, RECIPE
from lift_runs import (
    RAW,
    UNIFORM,
    UNIT_FREE,
    UNIT_FREE_CLIPPED,
    anchored,
    chosen,
    finetune_starts,
    run,
)

from keras_taskrobust.downstream.images import ImageTasks
from keras_taskrobust.files import replacing
from keras_taskrobust.recipes.cells import Start
from keras_taskrobust.recipes.comparison import grid, starts_from_grid
from keras_taskrobust.recipes.image_settings import ImageData, split_images
from keras_taskrobust.recipes.images import (
    ImageFamily,
    OpenedImages,
    build_mm_mae,
    open_images,
)
from keras_taskrobust.vision import ImageSubset, MultiModalMAE

SELECTION = "lift-selection_mm-mae-4x128_1000-steps_1-seed_jax-cpu"
COMPARISON = "lift_mm-mae-4x128_3000-steps_5-seeds_jax-cpu"
LABELS = "lift-labels_mm-mae-4x128_3000-steps_3-seeds_jax-cpu"
HALF_WAY = "lift-half-way_mm-mae-4x128_1500-steps_1-seed_jax-cpu"
UNITS = "lift-units_mm-mae-4x128_3000-steps_3-seeds_jax-cpu"
EXPLORATORY = "lift-exploratory_mm-mae-4x128_3000-steps_1-seed_jax-cpu"

NYUV2 = "nyuv2_64x48.npz"
SELECTION_SHARE = 0.12
SELECTION_SEED = 100
SEEDS = (0, 1, 2, 3, 4)
TENFOLD = 10.0

#: Sixths: the points inside the simplex, for the losses of rgb, depth and semseg.
STATIC = (
    *((2, 2, 2), (4, 1, 1), (1, 4, 1), (1, 1, 4)),
    *((3, 2, 1), (3, 1, 2), (2, 3, 1), (1, 3, 2), (2, 1, 3), (1, 2, 3)),
)
BEST_STATIC = "best static"
#: Those of the first round.
ROWS = ("uniform", BEST_STATIC, "uncertainty", "raw minimax", "anchored", "unit-free")
UNITS_ROWS = {"uniform": UNIFORM, "raw minimax": RAW, "unit-free": UNIT_FREE}
#: Every so-manieth training image has labels.
SHARES = {"eighth": 8, "quarter": 4, "half": 2}
PICTURED = 4

Output = Annotated[Path, tyro.conf.arg(help="Folder of the result folders.")]
Seeds = Annotated[tuple[int, ...], tyro.conf.arg(help="The seeds.")]
Rows = Annotated[tuple[str, ...], tyro.conf.arg(help="The rows; by default all.")]
Report = Annotated[bool, tyro.conf.arg(help="Whether to write the report.")]


@dataclasses.dataclass(frozen=True)
class LabelledImages(ImageData):
    """The training images that select nothing, and of these every so-manieth."""

    every: int = 1

    def open(self, wanted, image_size, **options):
        train, held_out = super().open(wanted, image_size, **options)
        kept, _ = split_images(train, SELECTION_SHARE)
        return ImageSubset(kept, range(0, len(kept), self.every)), held_out


class Nyuv2(ImageFamily):
    """MM-MAE on the training images that select nothing; keeps the model of half-way."""

    half_way = "half_way.keras"

    def prepare(self, recipe, directory):
        images = open_images(recipe)
        train, _ = split_images(images.train, SELECTION_SHARE)
        return OpenedImages(train, images.held_out)

    def draw(self, model, recipe, data, directory, stage):
        super().draw(model, recipe, data, directory, stage)
        if stage == "half_way":
            with replacing(directory / self.half_way) as partial:
                model.save(partial)


class Selection(Nyuv2):
    """The same, scored on the training images that select."""

    def prepare(self, recipe, directory):
        return OpenedImages(*split_images(open_images(recipe).train, SELECTION_SHARE))


@keras.saving.register_keras_serializable("benchmarks")
class TenfoldDepth(MultiModalMAE):
    """The loss of depth is ten times as large in training; held-out losses are as ever."""

    def compute_task_totals(self, x, y, y_pred, sample_weight):
        sums = super().compute_task_totals(x, y, y_pred, sample_weight)
        factors = [TENFOLD if name == "depth" else 1.0 for name in self.task_names]
        return sums._replace(totals=sums.totals * keras.ops.convert_to_tensor(factors, "float32"))


class TenfoldNyuv2(Nyuv2):
    """As Nyuv2, from the same initial weights, with that loss."""

    def build(self, recipe, data):
        return build_mm_mae(recipe, data.train.class_names, TenfoldDepth)


class PicturedTasks(ImageTasks):
    """Image tasks whose cells leave some of their predictions."""

    def files(self, result, opened, task):
        maps = result.predictions["last"]
        return {"maps.json": json.dumps(maps[_pictured(len(maps))].tolist())}


RECIPE = dataclasses.replace(RECIPE, data=NYUV2)
SELECTING = dataclasses.replace(RECIPE, steps=1_000)
IMAGES = LabelledImages(NYUV2, num_classes=13)
ROOMS = ImageData(NYUV2, split="test", held_out_split="test")


def select(output: Output = Path("lift"), report: Report = True):
    """The ten static weightings at one seed, scored on the images that select."""
    weightings = {"static {} {} {}".format(*point): _static(point) for point in STATIC}
    runs = run(
        Selection(),
        SELECTING,
        output / SELECTION,
        weightings,
        (SELECTION_SEED,),
        minimum_targets=1,
        title="MM-MAE: static weights",
        report=report,
    )
    shares = [one.run.scores.worst_share()[1] for one in runs]
    if not np.isfinite(shares).all():
        raise ValueError(
            "The runs must be scored with trivial losses: remove their `finished.json`, and they "
            f"are scored again. Received: worst shares {shares}"
        )
    for row, share in zip(weightings, shares, strict=True):
        print(f"{row}: worst share {share:.4f}")
    return list(weightings.values())[int(np.argmax(shares))]


def compare(
    output: Output = Path("lift"), seeds: Seeds = SEEDS, rows: Rows = ROWS, report: Report = True
):
    """(a): pre-training, and fine-tuning with all labels."""
    tasks = ImageTasks(
        ("semseg", "depth", "classification"),
        FINETUNING,
        IMAGES,
        other_images={"classification": ROOMS},
    )
    _run(output, Nyuv2(), COMPARISON, _weightings(output, rows), seeds, tasks, report)


def labels(output: Output = Path("lift"), seeds: Seeds = SEEDS[:3], report: Report = True):
    """(a): fine-tuning with fewer labels, as many steps."""
    starts = _starts(output, ("uniform", "unit-free"), seeds, Nyuv2.preset)
    for name, every in SHARES.items():
        settings = dataclasses.replace(
            FINETUNING,
            epochs=FINETUNING.epochs * every,
            warmup_epochs=FINETUNING.warmup_epochs * every,
        )
        images = dataclasses.replace(IMAGES, every=every)
        tasks = ImageTasks(("semseg", "depth"), settings, images)
        title = f"MM-MAE: fine-tuning with the labels of one image in {every}"
        finetune_starts(starts, tasks, output / LABELS / name, title, report)


def half_way(output: Output = Path("lift"), seeds: Seeds = SEEDS[:1], report: Report = True):
    """(a): the models of half-way, fine-tuned on segmentation, and their predictions."""
    starts = _starts(output, ROWS, seeds, Nyuv2.half_way)
    tasks = PicturedTasks(("semseg",), FINETUNING, IMAGES)
    title = "MM-MAE: half-way through pre-training"
    directory = output / HALF_WAY
    keys = finetune_starts(starts, tasks, directory, title, report)
    if report:
        first = {
            start.row: np.array(json.loads((directory / "cells" / key / "maps.json").read_text()))
            for start, key in zip(starts, keys, strict=True)
            if start.seed == seeds[0]
        }
        _plot(first, directory / "predictions.png")


def units(output: Output = Path("lift"), seeds: Seeds = SEEDS[:3], report: Report = True):
    """(b): the loss of depth times ten."""
    _run(output, TenfoldNyuv2(), UNITS, UNITS_ROWS, seeds, None, report)


def explore(output: Output = Path("lift"), rows: Rows = (), report: Report = True):
    """What is exploratory: variants at one seed."""
    at_end = _losses_at_end(output)
    variants = {
        "uniform": UNIFORM,
        "unit-free": UNIT_FREE,
        "DWA": {"weighting": "dwa"},
        **{f"unit-free, alpha {alpha:g}": {**UNIT_FREE, "alpha": alpha} for alpha in (0.3, 3, 30)},
        "unit-free, clip": UNIT_FREE_CLIPPED,
        "unit-free, F": {**UNIT_FREE, "weighting_options": {"reference_losses": at_end}},
        "through weights": {**RAW, "weighting_options": {"through_weights": True}},
        "UPGrad": {"weighting": "upgrad"},
    }
    _run(output, Nyuv2(), EXPLORATORY, chosen(variants, rows), SEEDS[:1], None, report)


def _run(output, family, name, weightings, seeds, tasks, report):
    title = "MM-MAE on NYU Depth v2: the worst task"
    return run(
        family, RECIPE, output / name, weightings, seeds, MINIMUM, title, tasks, report=report
    )


def _static(point):
    weights = [sixths / 6 for sixths in point]
    return {"weighting": "static", "weighting_options": {"weights": weights}}


def _weightings(output, rows):
    """The named rows of (a). The best static weights are selected where they are asked for."""
    known = {
        "uniform": UNIFORM,
        "uncertainty": {"weighting": "uncertainty"},
        "raw minimax": RAW,
        "anchored": anchored(3.0),
        "unit-free": UNIT_FREE,
        "unit-free, clip": UNIT_FREE_CLIPPED,
    }
    if BEST_STATIC in rows:
        known[BEST_STATIC] = select(output, report=False)
    return chosen(known, rows)


def _starts(output, rows, seeds, preset) -> list[Start]:
    """Where fine-tuning starts from finished runs of (a), and scratch."""
    family, directory = Nyuv2(), output / COMPARISON
    runs = _run(output, family, COMPARISON, _weightings(output, rows), seeds, None, False)
    return starts_from_grid(RECIPE, runs, directory, preset, from_scratch=True)


def _losses_at_end(output):
    """The training losses of the uniform run, averaged over the last tenth."""
    (one,) = grid(RECIPE, {"uniform": UNIFORM}, SEEDS[:1])
    path = output / COMPARISON / one.folder / "history.csv"
    history = np.genfromtxt(path, delimiter=",", names=True)
    last = history[-len(history) // 10 :]
    return [float(last[f"{name}_loss"].mean()) for name in RECIPE.modalities]


def _pictured(number):
    return np.linspace(0, number - 1, PICTURED).astype(int)


def _plot(predictions, path):
    """A row an image: RGB, the truth, what each row predicts."""
    _, held_out = IMAGES.open(("rgb", "semseg"), RECIPE.image_size)
    records = [held_out[index] for index in _pictured(len(held_out))]
    columns = {
        "RGB": [record["rgb"] for record in records],
        "truth": [np.where(r["semseg"] == 255, np.nan, r["semseg"]) for r in records],
        **predictions,
    }
    figure, grid_of_axes = plt.subplots(
        PICTURED, len(columns), figsize=(1.6 * len(columns), 1.3 * PICTURED), squeeze=False
    )
    for column, (name, maps) in zip(grid_of_axes.T, columns.items(), strict=True):
        column[0].set_title(name, fontsize="small")
        for axes, shown in zip(column, maps, strict=True):
            axes.imshow(shown, cmap="tab20", vmin=0, vmax=19, interpolation="nearest")
            axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    commands = (select, compare, labels, half_way, units, explore)
    tyro.extras.subcommand_cli_from_dict({one.__name__: one for one in commands})
