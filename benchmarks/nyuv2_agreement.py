"""Ten steps of mm-mae-tiny on NYU Depth v2 on each backend, from one file of weights and masks.

    python benchmarks/nyuv2_agreement.py --data nyuv2_64x48.npz

Starts one process a backend, and prints the largest relative difference of the losses for minimax
and its baselines.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import tyro
from backend_agreement import BACKENDS, compare_losses, train_on_each, train_recorded

WEIGHTINGS = ("minimax", "uniform", "uncertainty", "gradnorm", "dwa")
TOLERANCE = 1e-3
SIZE = (48, 64)


def recipe_on(data: Path, steps: int):
    """mm-mae-tiny at the size of the images, with a constant rate."""
    from keras_taskrobust.recipes.image_settings import TINY

    return dataclasses.replace(
        TINY,
        data=str(data),
        num_classes=13,
        image_size=SIZE,
        visible_tokens=24,
        steps=steps,
        warmup_steps=0,
        steps_per_report=1,
        batch_size=16,
    )


def make_batches(path: Path, data: Path, steps: int) -> None:
    """Stores the maps and the visible tokens of every step."""
    from keras_taskrobust.recipes.images import IMAGES, build_mm_mae, open_images

    recipe = recipe_on(data, steps)
    images = open_images(recipe)
    batches = IMAGES.batches(recipe, images)(0)
    maps = [batches[step] for step in range(steps)]
    arrays = {name: np.concatenate([batch[name] for batch in maps]) for name in maps[0]}
    model = build_mm_mae(recipe, images.train.class_names)
    arrays["visible_ids"] = model.visible_ids(model.draw_masks(arrays, seed=0))
    np.savez(path, class_names=np.array(images.train.class_names), **arrays)


def train(folder: Path, data: Path, steps: int, weightings: tuple[str, ...]) -> None:
    """Trains under every weighting; stores the losses of each step."""
    from keras_taskrobust.recipes.images import build_mm_mae

    if not (folder / "batches.npz").exists():
        make_batches(folder / "batches.npz", data, steps)
    arrays = dict(np.load(folder / "batches.npz"))
    class_names = tuple(arrays.pop("class_names"))
    recipe = recipe_on(data, steps)

    def build(name):
        return build_mm_mae(dataclasses.replace(recipe, weighting=name), class_names)

    train_recorded(folder, build, weightings, (arrays,), steps)


def main(
    data: Path,
    folder: Path,
    steps: int = 10,
    weightings: tuple[str, ...] = WEIGHTINGS,
    backends: tuple[str, ...] = BACKENDS,
    here: bool = False,
) -> None:
    """Trains on one backend after the other and compares them.

    Args:
        data: the .npz of aligned arrays.
        folder: of the batches, the initial weights and the losses; batches and weights that it has
            are used again.
        steps: optimizer steps.
        weightings: which weightings to train under.
        backends: which backends to compare.
        here: train in this process alone, and compare nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if here:
        train(folder, data, steps, weightings)
        return
    arguments = ["--data", str(data), "--folder", str(folder), "--steps", str(steps)]
    train_on_each(backends, [__file__, *arguments, "--weightings", *weightings, "--here"])
    largest = compare_losses(folder, weightings, backends)
    if not largest <= TOLERANCE:
        sys.exit(f"A loss differs by {largest:.1e}, more than {TOLERANCE:g}.")


if __name__ == "__main__":
    tyro.cli(main)
