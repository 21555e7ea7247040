"""The settings of fine-tuning, the paper's and small ones, and the flags of `inherit`."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from keras_taskrobust.downstream.settings import Adaptation, FineTuning, ImageFineTuning
from keras_taskrobust.files import file_name
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.recipes.image_settings import ImageData

GLUE = FineTuning()
SMALL_TEXT = FineTuning(
    learning_rate=5e-4, weight_decay=0.01, warmup_share=0.1, epochs=5, max_steps=500
)
TEXT_RECIPES = {
    "glue": (
        "Wang et al. 2023: AdamW 2e-5, batch 32, weight decay 0.1, linear decay, 6 % warm-up. The "
        "number of epochs is not given there and is ours.",
        GLUE,
    ),
    "small": ("For models of a few layers: 5e-4, at most 500 steps.", SMALL_TEXT),
}

_CLASSIFICATION = ImageFineTuning(
    learning_rate=4e-3,
    epochs=100,
    warmup_epochs=5,
    layer_decay=0.65,
    rand_augment=9,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
)
_SEMSEG = ImageFineTuning(learning_rate=1e-4, epochs=100, warmup_epochs=20, layer_decay=0.75)
_DEPTH = ImageFineTuning(
    learning_rate=1e-4,
    batch_size=2048,
    epochs=2000,
    warmup_epochs=100,
    least_learning_rate=0.0,
    weight_decay=1e-4,
    layer_decay=0.75,
    drop_path=0.0,
    image_size=(256, 256),
)
SMALL_IMAGES = ImageFineTuning(
    learning_rate=1e-3,
    batch_size=32,
    epochs=20,
    warmup_epochs=2,
    max_steps=400,
    drop_path=0.0,
    image_size=None,
    head_width=32,
    least_crop=0.5,
    jitter=(0.5, 2.0),
    reports=5,
)
_TABLE = "Wang et al. 2023, fine-tuning table"
IMAGE_RECIPES = {
    "imagenet-classification": (
        f"{_TABLE}, ImageNet-1K: RandAugment(9, 0.5) is Keras's, whose strengths are uniform up to "
        "9 of 10. Mixup, cutmix and label smoothing are not given there: MultiMAE's.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-classification": (
        f"{_TABLE}, ImageNetS-50: as imagenet-classification.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-semseg": (
        f"{_TABLE}, ImageNetS-50. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-semseg": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-depth": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's, whose augmentation is "
        "random crops, flips and changes of colour; here flips and large-scale jitter.",
        _DEPTH,
    ),
    "small": ("For models of a few layers: 1e-3, narrow heads, at most 400 steps.", SMALL_IMAGES),
}


def _with_longer_probe(recipes):
    """A head is trained for as long as all is fine-tuned."""
    return {
        name: (text, dataclasses.replace(settings, probe_epochs=settings.epochs))
        for name, (text, settings) in recipes.items()
    }


RELATED_TEXT_RECIPES = _with_longer_probe(TEXT_RECIPES)
RELATED_IMAGE_RECIPES = _with_longer_probe(
    {name: IMAGE_RECIPES[name] for name in ("imagenet-classification", "small")}
)

#: The sets related to ImageNet have the split "test" alone, but for this one.
_ONLY_SPLIT = {"tfds:imagenet2012_corrupted": "validation"}


def unused_to_inherit(settings: Adaptation, tasks: Collection[str] = ()) -> dict[str, str]:
    """As `Adaptation.unused`, but for the settings of the head, which every method has here."""
    unused = settings.unused(tasks)
    return {name: what for name, what in unused.items() if not name.startswith("probe_")}


def unused_to_inherit_images(
    settings: Adaptation, tasks: Collection[str], images: ImageData
) -> dict[str, str]:
    """The settings that change nothing under the others, and what they are for.

    Args:
        settings: `Adaptation`.
        tasks: names of tasks; none for all.
        images: `ImageData`.

    Returns:
        dict of names to what they are for.
    """
    with starting_keras():
        from keras_taskrobust.vision import CORRUPTIONS

    found = unused_to_inherit(settings, ("classification",)) | images.unused()
    if tasks and not set(tasks) & set(CORRUPTIONS):
        found["severity"] = "corruptions among the `tasks`"
    return found


def related_images(images: ImageData, source: str) -> ImageData:
    """The images of another source, of one split: a share of it is held out, as of `images`."""
    split = _ONLY_SPLIT.get(source.split("/")[0], "test")
    return ImageData(
        source,
        split,
        split,
        held_out_share=images.held_out_share,
        tfds_dir=images.tfds_dir,
    )


def named_sets(entries: Sequence[str]) -> dict[str, str]:
    """Names of tasks to sources, from SOURCE or NAME=SOURCE.

    Raises:
        ValueError: two have the same name.

    Example:

    >>> named_sets(["tfds:imagenet_v2/top-images", "a=/data/imagenet-a"])
    {'imagenet_v2-top-images': 'tfds:imagenet_v2/top-images', 'a': '/data/imagenet-a'}
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, sign, source = entry.partition("=")
        if not sign:
            source = entry
            name = entry.removeprefix("tfds:") if entry.startswith("tfds:") else Path(entry).stem
        name = file_name(name)
        if name in found:
            raise ValueError(
                "`sets` must have a name each, with NAME=SOURCE if need be. "
                f"Received: {found[name]} and {source}, both {name!r}"
            )
        found[name] = source
    return found
