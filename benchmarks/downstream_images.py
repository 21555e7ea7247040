"""Small MM-MAEs under several weightings, fine-tuned on NYU Depth v2: who pays, downstream?

    KERAS_BACKEND=torch python benchmarks/downstream_images.py --nyuv2 nyuv2_64x48.npz

Pre-trained on the training triples; fine-tuned from RGB alone on segmentation (13 classes), depth
and the type of the room, which only the test images have: four fifths of them train, the rest is
scored. Finished runs and cells are kept. Several processes may share the folder with different
seeds; a last call with all seeds writes the report.
"""

import dataclasses
from pathlib import Path

import tyro

from keras_taskrobust.downstream.images import ImageTasks
from keras_taskrobust.evaluation import print_downstream, print_report
from keras_taskrobust.recipes.finetuning_settings import SMALL_IMAGES
from keras_taskrobust.recipes.image_settings import TINY, ImageData
from keras_taskrobust.recipes.images import compare_images

RECIPE = dataclasses.replace(
    TINY,
    image_size=(48, 64),
    visible_tokens=24,
    batch_size=16,
    steps=3_000,
    warmup_steps=100,
    reports_per_checkpoint=20,
    pictures=3,
)
WEIGHTINGS = {
    "uniform": {"weighting": "uniform"},
    "uncertainty": {"weighting": "uncertainty"},
    "GradNorm": {"weighting": "gradnorm"},
    "DWA": {"weighting": "dwa"},
    "hard maximum": {"weighting": "hard_max"},
    "minimax": {"weighting": "minimax"},
}
FINETUNING = dataclasses.replace(
    SMALL_IMAGES,
    batch_size=16,
    max_steps=500,
    head="linear",
    layer_decay=1.0,
    least_crop=0.7,
    jitter=(0.8, 1.25),
    reports=1,
)
MINIMUM = 100


def main(
    nyuv2: Path, output: Path = Path("runs/downstream-images"), seeds: tuple[int, ...] = (0, 1, 2)
):
    """Trains every weighting with every seed, fine-tunes on every task and writes the report.

    Args:
        nyuv2: the `.npz` of aligned arrays.
        output: folder of the report, the runs and the cells.
        seeds: the seeds.
    """
    recipe = dataclasses.replace(RECIPE, data=str(nyuv2))
    rooms = ImageData(str(nyuv2), split="test", held_out_split="test")
    downstream = ImageTasks(
        ("semseg", "depth", "classification"),
        FINETUNING,
        ImageData(str(nyuv2), num_classes=13),
        other_images={"classification": rooms},
    )
    title = "MM-MAE: what the weighting is worth downstream"
    drawn = compare_images(
        recipe, output, WEIGHTINGS, seeds, MINIMUM, title=title, downstream=downstream
    )
    print_report(drawn.runs, minimum_targets=MINIMUM)
    print_downstream(drawn.results)


if __name__ == "__main__":
    tyro.cli(main)
