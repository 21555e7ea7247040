"""Related sets of images, and what fine-tuning on one of them leaves of the others."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_taskrobust import checks
from keras_taskrobust.downstream.image_encoder import OpenedModel, open_image_model
from keras_taskrobust.downstream.image_examples import open_image_task
from keras_taskrobust.downstream.image_finetuning import (
    finetune_images,
    image_size_of,
    score_classes,
    strides_of,
)
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.recipes.comparison import file_name
from keras_taskrobust.recipes.image_finetuning_recipe import TaskImages
from keras_taskrobust.recipes.inheritance import Inherited, RelatedTasks, inherit
from keras_taskrobust.recipes.inheritance_recipes import unused_of_settings
from keras_taskrobust.vision import CORRUPTIONS, CorruptedImages, ImageSource, RelabelledImages

CLEAN = "clean"
#: The other sets related to ImageNet have the split "test" alone.
_ONLY_SPLIT = {"tfds:imagenet2012_corrupted": "validation"}


@dataclasses.dataclass(frozen=True)
class RelatedImages(RelatedTasks):
    """Classification of images, of corrupted images and of sets with the same classes.

    Args:
        tasks: "clean", names of corruptions, keys of `sets`.
        head_task: one of these, which need not be among `tasks`. Its classes are those of all:
            the other sets may have some of them.
        settings: `ImageFineTuning`.
        images: `TaskImages`, those that "clean" is.
        severity: int, 1 to 5, of the corruptions.
        sets: names to sources of images, as `load_images` takes them, of one split.

    Raises:
        ValueError: a task is none of these.
    """

    settings: ImageFineTuning
    images: TaskImages = dataclasses.field(default_factory=TaskImages)
    severity: int = 3
    sets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    _sources: dict = dataclasses.field(default_factory=dict, init=False, compare=False)
    _tasks: dict = dataclasses.field(default_factory=dict, init=False, compare=False)
    probe_changes = {"warmup_epochs": 0}

    def __post_init__(self):
        super().__post_init__()
        known = all_tasks(self.sets)
        unknown = [name for name in (*self.tasks, self.head_task) if name not in known]
        if unknown or len(set(known)) < len(known):
            raise ValueError(
                f"The tasks must be different ones of {', '.join(known)}. "
                f"Received: {', '.join(unknown or self.sets)}"
            )
        checks.integer("severity", self.severity, 1, 5)

    @property
    def data(self) -> Mapping[str, Any]:
        return {
            "images": dataclasses.asdict(self.images),
            "severity": self.severity,
            "sets": dict(self.sets),
        }

    def finetune(self, start, task, settings, head):
        model = open_image_model(start.preset, settings.dtype_policy)
        for name in (*self.tasks, task):
            self._prepare(start.preset, name, model)
        data = self._tasks[start.preset, task]
        result = finetune_images(model, data, settings, start.seed, head)
        return result, result.model

    def score(self, model, start, task):
        return score_classes(model, self._tasks[start.preset, task], self.settings)

    def _prepare(self, preset, task, model: OpenedModel) -> None:
        """Opens the images of a task, once a preset."""
        if (preset, task) in self._tasks:
            return
        size, strides = image_size_of(model, self.settings), strides_of(model, self.settings)
        self._tasks[preset, task] = open_image_task(
            "classification", *self.open(task, size), size, strides
        )

    def open(self, task: str, size: tuple[int, int]) -> tuple[ImageSource, ImageSource]:
        """Opens the images of a task.

        Args:
            task: string.
            size: `(height, width)` of procedural scenes.

        Returns:
            Those to fine-tune on, and those held out, labelled with the classes of the head's
            task.

        Raises:
            ValueError: there are none, or they have classes that the head's task lacks.
        """
        train, held_out = self._open(task, size)
        if task == self.head_task:
            return train, held_out
        names = self._open(self.head_task, size)[0].label_names
        if train.label_names == names:
            return train, held_out
        try:
            return RelabelledImages(train, names), RelabelledImages(held_out, names)
        except ValueError as error:
            raise ValueError(f"{task}, with the head of {self.head_task}: {error}") from error

    def _open(self, task, size):
        images = self.images
        if task in self.sets:
            source = self.sets[task]
            split = _ONLY_SPLIT.get(source.split("/")[0], "test")
            images = TaskImages(
                source,
                split,
                split,
                held_out_share=images.held_out_share,
                tfds_dir=images.tfds_dir,
            )
        key = (task if task in self.sets else CLEAN, size)
        if key not in self._sources:
            wanted = dict.fromkeys((*self.settings.modalities, "label"))
            self._sources[key] = images.open(tuple(wanted), size)
        train, held_out = self._sources[key]
        if task in CORRUPTIONS:
            return tuple(CorruptedImages(one, task, self.severity) for one in (train, held_out))
        return train, held_out


def unused(settings: ImageFineTuning, tasks: Collection[str], images: TaskImages) -> dict[str, str]:
    """The settings that change nothing under the others, and what they are for.

    Args:
        settings: `ImageFineTuning`.
        tasks: names of tasks; none for all.
        images: `TaskImages`.

    Returns:
        dict of names to what they are for.
    """
    found = unused_of_settings(settings, ("classification",)) | images.unused()
    if tasks and not set(tasks) & set(CORRUPTIONS):
        found["severity"] = "corruptions among the `tasks`"
    return found


def all_tasks(sets: Mapping[str, str]) -> tuple[str, ...]:
    """The names of all tasks that there are, those of `sets` last."""
    return (CLEAN, *CORRUPTIONS, *sets)


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


def inherit_images(
    presets: Mapping[str, str],
    seeds: Sequence[int],
    related: RelatedImages,
    directory: Path,
    select: str = "last",
) -> Inherited:
    """Runs the protocol of ImageNet-RIB on ViTs and MM-MAEs, and writes a report.

    Args:
        presets: rows of the report to presets, as `open_image_model` takes them.
        seeds: each fixes the head's initial weights, the order and augmentation.
        related: `RelatedImages`.
        directory: the folder for the report, the cells and the heads.
        select: "last" or "best": the report of a run whose weights are scored.

    Returns:
        `Inherited`.

    Raises:
        ValueError: of no preset and seed all cells are finished.
    """
    settings = related.settings
    steps = f", at most {settings.max_steps} steps" if settings.max_steps else ""
    lines = {
        "images": related.images.data,
        "other sets": ", ".join(related.sets.values()) or "none",
        "corruptions": f"severity {related.severity}: the constants of CIFAR-10-C for sides up to "
        "64 pixels, else ImageNet-C's",
        "accuracy": "among the classes that the held-out images of a set have",
        "fine-tuning": f"{settings.epochs} epochs{steps} of {settings.batch_size} images, AdamW, "
        f"peak rate {settings.learning_rate:g}, layer decay {settings.layer_decay:g}, weight decay "
        f"{settings.weight_decay:g}",
    }
    return inherit(presets, seeds, related, directory, lines, select)
