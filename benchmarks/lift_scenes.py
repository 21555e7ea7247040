"""Test bed (d) of `protocol.md`: MM-MAE on procedural scenes without end, few labels downstream.

    KERAS_BACKEND=jax python benchmarks/lift_scenes.py trial
    KERAS_BACKEND=jax python benchmarks/lift_scenes.py compare --steps 4000

The trial finds the number of steps. Finished runs and cells are kept; without a report, several
processes may share a folder with different seeds.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro
from downstream_images import FINETUNING, MINIMUM, RECIPE
from lift_runs import RAW, UNIFORM, UNIT_FREE, run

from keras_taskrobust.downstream.images import ImageTasks
from keras_taskrobust.recipes.images import ImageFamily, OpenedImages
from keras_taskrobust.vision import ProceduralScenes

TRIAL = "lift-trial_scenes-mm-mae-4x128_{steps}-steps_1-seed_jax-cpu"
COMPARISON = "lift_scenes-mm-mae-4x128_{steps}-steps_3-seeds_jax-cpu"

Steps = Literal[2_000, 4_000, 8_000]

TRIAL_SEED = 100
SEEDS = (0, 1, 2)
LABELLED = 200
HELD_OUT = 500
SCORED = 1_000
#: Each set of scenes has a seed of its own.
TRAINING, SCORING = 0, 1
LABELS, TESTS = 2, 3
TRIAL_LABELS, TRIAL_TESTS = 4, 5
WEIGHTINGS = {"uniform": UNIFORM, "raw minimax": RAW, "unit-free": UNIT_FREE}


@dataclasses.dataclass(frozen=True)
class LabelledScenes:
    """Scenes to fine-tune on and to score on."""

    labels: int = LABELS
    tests: int = TESTS
    data: str = "scenes"

    def open(self, wanted, image_size):
        return (
            ProceduralScenes(LABELLED, *image_size, seed=self.labels, keep=True),
            ProceduralScenes(HELD_OUT, *image_size, seed=self.tests, keep=True),
        )


class Scenes(ImageFamily):
    """MM-MAE on scenes, each seen once."""

    def prepare(self, recipe, directory):
        return OpenedImages(
            ProceduralScenes(recipe.scenes, *recipe.image_size, seed=TRAINING),
            ProceduralScenes(SCORED, *recipe.image_size, seed=SCORING),
        )


def trial(steps: Steps = 2_000, output: Path = Path("lift")):
    """Uniform and scratch at one seed, on scenes that are not scored again.

    Args:
        steps: the steps of pre-training.
        output: folder of the result folders.
    """
    images = LabelledScenes(TRIAL_LABELS, TRIAL_TESTS)
    weightings = {"uniform": UNIFORM}
    _run(TRIAL, steps, output, weightings, (TRIAL_SEED,), images, True)


def compare(
    steps: Steps,
    output: Path = Path("lift"),
    seeds: tuple[int, ...] = SEEDS,
    report: bool = True,
):
    """Pre-training, and fine-tuning with few labels.

    Args:
        steps: the steps of pre-training that the trial found.
        output: folder of the result folders.
        seeds: the seeds.
        report: whether to write the report.
    """
    _run(COMPARISON, steps, output, WEIGHTINGS, seeds, LabelledScenes(), report)


def _run(name, steps, output, weightings, seeds, images, report):
    number = steps * RECIPE.batch_size
    recipe = dataclasses.replace(RECIPE, data="scenes", scenes=number, steps=steps)
    # As many steps as on NYU Depth v2, and the same share of them to warm up.
    settings = dataclasses.replace(FINETUNING, epochs=80, warmup_epochs=8)
    run(
        Scenes(),
        recipe,
        output / name.format(steps=steps),
        weightings,
        seeds,
        MINIMUM,
        "MM-MAE on procedural scenes: the worst task",
        ImageTasks(("semseg", "depth"), settings, images),
        report=report,
    )


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"trial": trial, "compare": compare})
