"""The settings of fine-tuning on related tasks: those of fine-tuning, with a longer probe."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.files import file_name
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.recipes import image_finetuning_recipe, text_finetuning_recipe
from keras_taskrobust.recipes.image_finetuning_recipe import TaskImages

TEXT_RECIPES = {
    name: (text, dataclasses.replace(settings, probe_epochs=settings.epochs))
    for name, (text, settings) in text_finetuning_recipe.FINETUNING_RECIPES.items()
}
IMAGE_RECIPES = {
    name: (text, dataclasses.replace(settings, probe_epochs=settings.epochs))
    for name, (text, settings) in image_finetuning_recipe.FINETUNING_RECIPES.items()
    if name in ("imagenet-classification", "small")
}


#: The sets related to ImageNet have the split "test" alone, but for this one.
_ONLY_SPLIT = {"tfds:imagenet2012_corrupted": "validation"}


def unused_of_settings(settings: Adaptation, tasks: Collection[str] = ()) -> dict[str, str]:
    """As `Adaptation.unused`, but for the settings of the head, which every method has here."""
    unused = settings.unused(tasks)
    return {name: what for name, what in unused.items() if not name.startswith("probe_")}


def unused_of_images(
    settings: Adaptation, tasks: Collection[str], images: TaskImages
) -> dict[str, str]:
    """The settings that change nothing under the others, and what they are for.

    Args:
        settings: `Adaptation`.
        tasks: names of tasks; none for all.
        images: `TaskImages`.

    Returns:
        dict of names to what they are for.
    """
    with starting_keras():
        from keras_taskrobust.vision import CORRUPTIONS

    found = unused_of_settings(settings, ("classification",)) | images.unused()
    if tasks and not set(tasks) & set(CORRUPTIONS):
        found["severity"] = "corruptions among the `tasks`"
    return found


def related_images(images: TaskImages, source: str) -> TaskImages:
    """The images of another source, of one split: a share of it is held out, as of `images`."""
    split = _ONLY_SPLIT.get(source.split("/")[0], "test")
    return TaskImages(
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
