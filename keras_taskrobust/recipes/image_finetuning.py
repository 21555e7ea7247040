"""Fine-tuning pre-trained ViTs and MM-MAEs on image tasks: the paper's settings, and the grid."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_taskrobust import checks
from keras_taskrobust.downstream.image_encoder import OpenedModel, open_image_model
from keras_taskrobust.downstream.image_examples import ImageTaskData, open_image_task
from keras_taskrobust.downstream.image_finetuning import (
    finetune_images,
    image_size_of,
    strides_of,
)
from keras_taskrobust.downstream.image_task import TARGETS
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.cells import (
    Cell,
    Start,
    compute_cells,
    special_settings,
    starts_from_presets,
)
from keras_taskrobust.recipes.image_data import ImageData, split_images, unused_of_images
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw
from keras_taskrobust.vision import ImageSource

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
SMALL = ImageFineTuning(
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
FINETUNING_RECIPES = {
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
    "small": ("For models of a few layers: 1e-3, narrow heads, at most 400 steps.", SMALL),
}


@dataclasses.dataclass(frozen=True)
class TaskImages:
    """The images of downstream tasks."""

    data: str = "scenes"
    """Images: scenes, tfds:NAME, or the path of an .npz, of nyu_depth_v2_labeled.mat, of a folder
    with rgb/, depth/ and semseg/, or of a folder of one sub-folder per class."""
    split: str = "train"
    """Split to fine-tune on; folders have none."""
    held_out_split: str = "test"
    """Split to score on; folders have none. The same as `split`: a share of it is held out."""
    held_out_share: float = 0.2
    """Share of the images that is held out, if there are no splits."""
    scenes: int = 1_000
    """Procedural scenes to fine-tune on; a tenth as many others are held out."""
    num_classes: int | None = None
    """13 or 40 classes of NYU Depth v2; 13 in place of those of an .npz."""
    maps: str | None = None
    """Folder with the depth/ and semseg/ of the images of class folders and of TFDS."""
    tfds_dir: str | None = None
    """Folder of the prepared TFDS sets."""
    splits: str | None = None
    """NYU Depth v2's splits.mat; by default beside the images."""
    class_mapping: str | None = None
    """NYU Depth v2's classMapping40.mat; by default beside the images."""
    class_names: str | None = None
    """Text file of a class a line, for a folder of labels without a semseg.json."""
    depth_scale: float | None = None
    """Metres per unit of a folder's integer depth maps."""
    ignore_label: int | None = None
    """Label of a folder's pixels without a class: 1000 in ImageNet-S; by default 255."""

    def unused(self) -> dict[str, str]:
        """The settings that change nothing under the others, and what they are for."""
        unused = unused_of_images(self.data, self.maps)
        if self.split == self.held_out_split:
            unused.pop("held_out_share", None)
        return unused

    def open(
        self, wanted: Sequence[str], image_size: tuple[int, int]
    ) -> tuple[ImageSource, ImageSource]:
        """Opens the images.

        Args:
            wanted: the keys of records that are needed.
            image_size: `(height, width)` of procedural scenes.

        Returns:
            Those to fine-tune on, and those held out.

        Raises:
            ValueError: there are none as said, or they lack what is wanted.
        """
        fields = dataclasses.asdict(self)
        fields["data_dir"] = fields.pop("tfds_dir")
        images = ImageData(**fields, modalities=tuple(wanted), image_size=image_size)
        train, held_out = images.open_images()
        if self.split == self.held_out_split and len(train) == len(held_out):
            return split_images(train, self.held_out_share)
        return train, held_out


@dataclasses.dataclass(frozen=True)
class ImageDownstream:
    """The downstream stage of images.

    Args:
        tasks: names of image tasks.
        images: `TaskImages`.
        settings: `ImageFineTuning`, the same for all.
        from_scratch: bool. Whether there is a row of fine-tuning without pre-training.
        select: "last" or "best": the report of a run whose scores are shown.
        other_images: names of tasks to `TaskImages`, for those with images of their own.

    Raises:
        ValueError: there is no such task, no task, or one twice.
    """

    tasks: tuple[str, ...]
    images: TaskImages = dataclasses.field(default_factory=TaskImages)
    settings: ImageFineTuning = SMALL
    from_scratch: bool = True
    select: str = "last"
    other_images: Mapping[str, TaskImages] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        checks.distinct("tasks", self.tasks)
        if not set(self.tasks) <= set(TARGETS):
            raise ValueError(
                f"`tasks` must be some of {', '.join(TARGETS)}. Received: {self.tasks}"
            )

    def images_of(self, task: str) -> TaskImages:
        """The images of a task."""
        return self.other_images.get(task, self.images)


def finetune_image_cells(
    starts: Sequence[Start], downstream: ImageDownstream, directory: Path
) -> list[str]:
    """Fine-tunes every start on every task. Finished cells are kept; failed ones tried again.

    Args:
        starts: the starts; their presets are as `open_image_model` takes them.
        downstream: `ImageDownstream`.
        directory: the folder of the cells.

    Returns:
        list of strings, the keys of the cells.
    """
    cells = [
        Cell(start, task, downstream.settings, {"images": dataclasses.asdict(images)})
        for task, images in ((task, downstream.images_of(task)) for task in downstream.tasks)
        for start in starts
    ]
    opened = _OpenedTasks(downstream)
    return compute_cells(cells, directory, lambda cell: _compute(cell, opened))


@locks_directory
def finetune_image_presets(
    presets: Mapping[str, str],
    seeds: Sequence[int],
    downstream: ImageDownstream,
    directory: Path,
) -> Drawn:
    """Fine-tunes finished models on downstream tasks and writes a report.

    Args:
        presets: rows of the report to presets, as `open_image_model` takes them.
        seeds: each fixes the head's initial weights, the order and augmentation.
        downstream: `ImageDownstream`.
        directory: the folder for the report and the cells.

    Returns:
        `Drawn`.

    Raises:
        ValueError: nothing is finished, or another process is in the folder.
    """
    starts = starts_from_presets(presets, seeds, downstream.from_scratch)
    cells = finetune_image_cells(starts, downstream, directory)
    settings = {
        "presets": ", ".join(f"{row}: {preset}" for row, preset in presets.items()),
        **image_finetuning_settings(downstream),
    }
    manifest = Manifest(
        "Fine-tuning on image tasks", settings, cells=cells, select=downstream.select
    )
    return save_and_draw(manifest, directory)


def image_finetuning_settings(downstream: ImageDownstream) -> dict[str, str]:
    """The lines of a report's table that say how fine-tuning was done."""
    settings = downstream.settings
    steps = f", at most {settings.max_steps} steps" if settings.max_steps else ""
    return {
        "downstream images": f"{downstream.images.data}, seen as {', '.join(settings.modalities)}",
        "fine-tuning": f"{settings.epochs} epochs{steps} of {settings.batch_size} images, AdamW, "
        f"peak rate {settings.learning_rate:g}, layer decay {settings.layer_decay:g}, weight decay "
        f"{settings.weight_decay:g}, {settings.warmup_epochs} epochs of warm-up, then a cosine; "
        f"{settings.head} heads",
        "method of fine-tuning": special_settings(settings),
        "scores": f"of the {downstream.select} report: accuracy, mean IoU, delta_1; RMSE and REL "
        "of depth are in its cells",
    }


class _OpenedTasks:
    """The data of the task at hand, once for all models of one image size."""

    def __init__(self, downstream: ImageDownstream):
        self._downstream = downstream
        self._key: Any = None
        self._data: Any = None

    def get(self, name: str, model: OpenedModel) -> ImageTaskData:
        settings = self._downstream.settings
        size, strides = image_size_of(model, settings), strides_of(model, settings)
        key = (name, size, tuple(strides.items()))
        if key != self._key:
            wanted = dict.fromkeys((*settings.modalities, TARGETS[name]))
            train, held_out = self._downstream.images_of(name).open(tuple(wanted), size)
            self._data = open_image_task(name, train, held_out, size, strides)
            self._key = key
        return self._data


def _compute(cell: Cell, opened: _OpenedTasks) -> dict[str, Any]:
    keras.utils.set_random_seed(cell.start.seed)
    settings = cell.settings
    model = open_image_model(cell.start.preset, settings.dtype_policy, cell.start.from_scratch)
    result = finetune_images(model, opened.get(cell.task, model), settings, cell.start.seed)
    return {
        "scores": result.scores,
        "errors": result.errors,
        "trivial": result.trivial_scores,
        "history": result.history,
        "seconds": result.seconds,
    }
