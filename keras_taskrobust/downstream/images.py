"""The kind of downstream task that images are, and sets of images that share their classes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from keras_taskrobust import checks
from keras_taskrobust.downstream.image_encoder import (
    OpenedModel,
    find_image_model,
    open_image_model,
)
from keras_taskrobust.downstream.image_examples import ImageTaskData, open_image_task
from keras_taskrobust.downstream.image_finetuning import (
    finetune_images,
    image_size_of,
    score_images,
    strides_of,
)
from keras_taskrobust.downstream.settings import TARGETS, ImageFineTuning
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.vision import CORRUPTIONS, CorruptedImages, ImageSource, RelabelledImages

CLEAN = "clean"

Splits = tuple[ImageSource, ImageSource]


class Images(Protocol):
    """Where the images of a task come from: a dataclass of JSON values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> str:
        """The source, in words for a report."""

    def open(self, wanted: Sequence[str], image_size: tuple[int, int]) -> Splits:
        """Opens the images.

        Args:
            wanted: the keys of records that are needed.
            image_size: `(height, width)` of procedural scenes.

        Returns:
            Those to fine-tune on, and those held out.
        """

    def check(self, wanted: Sequence[str]) -> None:
        """Refuses what `open` would, as far as it is known without reading all images."""


@dataclasses.dataclass(frozen=True)
class ImageTasks(TaskFamily):
    """Image tasks, for MM-MAEs and ViTs.

    Args:
        tasks: some of "classification", "semseg" and "depth".
        settings: `ImageFineTuning`.
        images: `Images`, such as the recipes' `ImageData`.
        other_images: names of tasks to `Images`, for those with images of their own.

    Raises:
        ValueError: there is no such task, no task, or one twice.
    """

    kind = "image tasks"
    scored = "report: accuracy, mean IoU, delta_1; RMSE and REL of depth are in its cells"

    settings: ImageFineTuning
    images: Images
    other_images: Mapping[str, Images] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        self._check_tasks()

    def identity(self, task):
        return {"images": dataclasses.asdict(self._images_of(task))}

    def find(self, preset):
        return find_image_model(preset)

    def check(self, tasks):
        for task in tasks:
            self._images_of(task).check(self._wanted(task))

    def open(self, preset, from_scratch=False):
        return open_image_model(preset, self.settings.dtype_policy, from_scratch)

    def finetune(self, opened, task, settings, seed, head=None):
        return finetune_images(opened, self._data(opened, task), settings, seed, head)

    def score(self, model, opened, task):
        return score_images(model, self._data(opened, task), self.settings)

    def describe(self):
        settings = self.settings
        return {
            "downstream images": f"{self.images.data}, seen as {', '.join(settings.modalities)}",
            "fine-tuning": f"{settings.in_words()}, {settings.warmup_epochs} epochs of warm-up, "
            f"then a cosine; {settings.head} heads",
        }

    def sources(self, task: str, size: tuple[int, int]) -> Splits:
        """Opens the images of a task.

        Args:
            task: string.
            size: `(height, width)` of procedural scenes.

        Returns:
            Those to fine-tune on, and those held out.

        Raises:
            ValueError: there are none.
        """
        return self._open(task, size)

    def _open(self, task: str, size: tuple[int, int]) -> Splits:
        return self._images_of(task).open(self._wanted(task), size)

    def _wanted(self, task: str) -> tuple[str, ...]:
        wanted = (*self.settings.modalities, TARGETS[self._kind_of(task)])
        return tuple(dict.fromkeys(wanted))

    def _images_of(self, task: str) -> Images:
        return self.other_images.get(task, self.images)

    def _kind_of(self, task: str) -> str:
        """The name of the image task that it is."""
        return task

    def _data(self, opened: OpenedModel, task: str) -> ImageTaskData:
        size, strides = image_size_of(opened, self.settings), strides_of(opened, self.settings)

        def prepare():
            return open_image_task(self._kind_of(task), *self.sources(task, size), size, strides)

        return self.once(task, (size, *strides.items()), prepare)

    def _check_tasks(self):
        if not set(self.tasks) <= set(TARGETS):
            raise ValueError(
                f"`tasks` must be some of {', '.join(TARGETS)}. Received: {self.tasks}"
            )


@dataclasses.dataclass(frozen=True)
class RelatedImages(ImageTasks):
    """Classification of images, of corrupted images and of sets with the same classes.

    Args:
        tasks: "clean", names of corruptions, keys of `other_images`.
        settings: as in `ImageTasks`. `probe_epochs` and `probe_learning_rate` are those of the
            head.
        images: as in `ImageTasks`, those that "clean" is.
        other_images: names of tasks to `Images`, the other sets.
        severity: int, 1 to 5, of the corruptions.
        head_task: as in `TaskFamily`; it need not be among `tasks`. Its classes are those of all:
            the other sets may have some of them.

    Raises:
        ValueError: a task is none of these.
    """

    keeps_all = True

    severity: int = 3

    def identity(self, task):
        return {
            "images": dataclasses.asdict(self.images),
            "severity": self.severity,
            "sets": {name: images.data for name, images in self.other_images.items()},
        }

    def finetune(self, opened, task, settings, seed, head=None):
        for name in self.tasks:  # what cannot be opened is known before anything is trained
            self._data(opened, name)
        return super().finetune(opened, task, settings, seed, head)

    def describe(self):
        return {
            "images": self.images.data,
            "other sets": ", ".join(one.data for one in self.other_images.values()) or "none",
            "corruptions": f"severity {self.severity}: the constants of CIFAR-10-C for sides up to "
            "64 pixels, else ImageNet-C's",
            "accuracy": "among the classes that the held-out images of a set have",
            "fine-tuning": self.settings.in_words(),
        }

    def sources(self, task, size):
        """As in `ImageTasks`, labelled with the classes of the head's task.

        Raises:
            ValueError: there are none, or they have classes that the head's task lacks.
        """
        train, held_out = self._own_sources(task, size)
        names = self._own_sources(self.head_task, size)[0].label_names
        if train.label_names == names:
            return train, held_out
        try:
            return RelabelledImages(train, names), RelabelledImages(held_out, names)
        except ValueError as error:
            raise ValueError(f"{task}, with the head of {self.head_task}: {error}") from error

    def _own_sources(self, task: str, size: tuple[int, int]) -> Splits:
        """Those of a task, with the classes that they come with. A set is opened once."""
        name = task if task in self.other_images else CLEAN
        splits = self.once(name, ("sources", size), lambda: self._open(name, size))
        if task not in CORRUPTIONS:
            return splits
        train, held_out = (CorruptedImages(one, task, self.severity) for one in splits)
        return train, held_out

    def _kind_of(self, task):
        return "classification"

    def _check_tasks(self):
        known = all_tasks(self.other_images)
        unknown = [name for name in (*self.tasks, self.head_task) if name not in known]
        if unknown or len(set(known)) < len(known):
            raise ValueError(
                f"The tasks must be different ones of {', '.join(known)}. "
                f"Received: {', '.join(unknown or self.other_images)}"
            )
        checks.integer("severity", self.severity, 1, 5)


def all_tasks(sets: Iterable[str]) -> tuple[str, ...]:
    """The names of all tasks that there are beside other sets, those of the sets last."""
    return (CLEAN, *CORRUPTIONS, *sets)
