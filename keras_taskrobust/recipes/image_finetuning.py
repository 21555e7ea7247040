"""Fine-tuning pre-trained ViTs and MM-MAEs on image tasks: a grid of cells, each computed once."""

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
from keras_taskrobust.recipes.image_finetuning_recipe import SMALL, TaskImages
from keras_taskrobust.recipes.reporting import Drawn, Manifest, save_and_draw


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
