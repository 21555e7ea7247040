"""The examples of an image task: sources of images, labels, and batches for fine-tuning."""

import dataclasses
import functools
import math
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_taskrobust import randomness
from keras_taskrobust.downstream.image_task import ImageTask, image_task
from keras_taskrobust.downstream.settings import TARGETS, ImageFineTuning
from keras_taskrobust.map_folders import MAPS
from keras_taskrobust.vision import ImageSource, normalize_rgb, standardize_depth
from keras_taskrobust.vision.augmentation import (
    central_view,
    draw_jitter,
    draw_view,
    fit,
    generator_of_view,
    place,
    show_view,
)

if TYPE_CHECKING:
    import grain

_MOST_EXAMINED = 2000

Inputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTaskData:
    """An image task with its data, brought to one image size.

    Args:
        task: `ImageTask`.
        train: `ImageSource`.
        held_out: `ImageSource`.
        size: `(height, width)` of the model's images.
        strides: names of input maps to image pixels per map pixel.

    Raises:
        ValueError: a split is empty, lacks what the task predicts or has other classes.
    """

    task: ImageTask
    train: ImageSource
    held_out: ImageSource
    size: tuple[int, int]
    strides: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, source in (("training", self.train), ("held-out", self.held_out)):
            if not len(source):
                raise ValueError(f"The {name} split must have images. Received: none")
            if self.task.target not in source.modalities:
                raise ValueError(
                    f"The {name} split must have {self.task.target!r}, which the task "
                    f"{self.task.name!r} predicts. Received: images with "
                    f"{', '.join(source.modalities)}"
                )
            names = _class_names(self.task.name, source)
            if self.task.label_names != names:
                raise ValueError(
                    f"The {name} split must have the task's classes {self.task.label_names}. "
                    f"Received: {names}"
                )

    @functools.cached_property
    def train_labels(self) -> np.ndarray:
        """The targets of at most 2,000 training images, evenly spaced, in the model's size."""
        number = min(len(self.train), _MOST_EXAMINED)
        chosen = np.linspace(0, len(self.train) - 1, number).astype(int).tolist()
        return self._labels(self.train, chosen)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The targets of the held-out images, in the model's size; depth in metres."""
        return self._labels(self.held_out, range(len(self.held_out)))

    @functools.cached_property
    def depth_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training depths, by which targets are normalised."""
        if self.task.target != "depth":
            return 0.0, 1.0
        known = self.train_labels[np.isfinite(self.train_labels)].astype("float64")
        if not len(known) or not known.std():
            raise ValueError(
                "The training depths must be known and differ somewhere. "
                f"Received: {len(known)} known depths"
            )
        return float(known.mean()), float(known.std())

    def _labels(self, source, chosen):
        target = self.task.target
        arrays = []
        for index in chosen:
            record = source[index]
            if target == "label":
                arrays.append(_checked_label(record, self.task, index))
                continue
            shown = _fitted({target: record[target]}, self.size, {})[target]
            arrays.append(shown[..., 0] if target == "depth" else shown)
        return np.stack(arrays)


def open_image_task(
    name: str,
    train: ImageSource,
    held_out: ImageSource,
    size: tuple[int, int],
    strides: Mapping[str, int] | None = None,
) -> ImageTaskData:
    """Brings together an image task and its data.

    Args:
        name: string, one of "classification", "semseg" and "depth".
        train: `ImageSource`.
        held_out: `ImageSource`, on which models are scored.
        size: `(height, width)` of the model's images.
        strides: names of input maps to image pixels per map pixel.

    Returns:
        `ImageTaskData`.

    Raises:
        ValueError: as `image_task` and `ImageTaskData`.

    Example:

    >>> from keras_taskrobust.vision import ProceduralScenes
    >>> train, held_out = ProceduralScenes(4, 16, 16), ProceduralScenes(2, 16, 16, seed=1)
    >>> data = open_image_task("depth", train, held_out, size=(16, 24))
    >>> data.labels.shape
    (2, 16, 24)
    """
    if name in TARGETS and TARGETS[name] not in train.modalities:
        raise ValueError(
            f"The training split must have {TARGETS[name]!r}, which the task {name!r} predicts. "
            f"Received: images with {', '.join(train.modalities)}"
        )
    task = image_task(name, _class_names(name, train))
    return ImageTaskData(task, train, held_out, size, dict(strides or {}))


def training_batches(
    data: ImageTaskData, settings: ImageFineTuning, seed: int, augment: bool = True
) -> "grain.MapDataset":
    """Makes endless batches of augmented examples for `fit`.

    Classification: random resized crops and flips, then RandAugment, mixup and cutmix. Dense
    tasks: flips and large-scale jitter. All are a function of the seed, the record and the
    epoch, those of whole batches of the seed and the step.

    Args:
        data: `ImageTaskData`.
        settings: `ImageFineTuning`.
        seed: int.
        augment: bool.

    Returns:
        `grain.MapDataset` of `(inputs, targets)`: dicts of normalised maps, and

        - classification: `(B, classes)` float32 shares;
        - semseg: `(B, H, W)` int32, 255 where there is no class;
        - depth: `(B, H, W, 1)` float32, normalised by `data.depth_scale`, NaN where missing.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    batch_size = min(settings.batch_size, len(data.train))
    prepare = _Preparation(data, data.train, settings)
    number = len(data.train)

    def example(index: int, place: int) -> dict[str, Any]:
        epoch = index // number
        record = int(randomness.shuffled_epoch(number, seed, epoch)[place])
        return prepare(record, generator_of_view(seed, epoch, record) if augment else None)

    batches = (
        grain.MapDataset.range(number)
        .repeat()
        .map_with_index(example)
        .batch(batch_size, drop_remainder=True)
    )
    return batches.map_with_index(_Targets(data, settings if augment else None, seed))


def held_out_batches(data: ImageTaskData, settings: ImageFineTuning) -> "grain.MapDataset":
    """Makes the batches of the held-out examples, in order, without augmentation.

    The last batch is filled up with the first examples.

    Args:
        data: `ImageTaskData`.
        settings: `ImageFineTuning`.

    Returns:
        `grain.MapDataset` of `{modality: maps}`.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    number = len(data.held_out)
    batch_size = min(settings.batch_size, number)
    total = math.ceil(number / batch_size) * batch_size
    prepare = _Preparation(data, data.held_out, settings, with_target=False)
    return (
        grain.MapDataset.range(total)
        .map(lambda index: prepare(index % number))
        .batch(batch_size)
        .map(_normalized)
    )


class _Preparation:
    """From the number of a record to its maps and target."""

    def __init__(self, data, source, settings, with_target=True):
        self._data = data
        self._source = source
        self._settings = settings
        target = [data.task.target] if with_target else []
        self._wanted = (*settings.modalities, *target)
        missing = set(settings.modalities) - set(source.modalities)
        if missing:
            raise ValueError(
                f"`modalities` must be some of {', '.join(source.modalities)}, which the images "
                f"have. Received: modalities={settings.modalities}"
            )

    def __call__(self, number: int, draws: np.random.Generator | None = None) -> dict[str, Any]:
        record = self._source[number]
        if "label" in self._wanted:
            _checked_label(record, self._data.task, number)
        record = {name: record[name] for name in self._wanted}
        shown = self._shown(record, draws)
        for name, array in shown.items():
            if name == "semseg":
                shown[name] = array.astype("int32")
            elif name == "depth" and name != self._data.task.target:
                shown[name] = standardize_depth(array)
        return shown

    def _shown(self, record, draws):
        data, settings = self._data, self._settings
        height, width = _size_of(record)
        if data.task.target == "label":
            view = (
                central_view(height, width, data.size)
                if draws is None
                else draw_view(height, width, draws, (settings.least_crop, 1.0))
            )
            return show_view(record, view, data.size, data.strides)
        if draws is None:
            return _fitted(record, data.size, data.strides)
        multiple = math.lcm(*data.strides.values())
        placement = draw_jitter(height, width, data.size, draws, settings.jitter, multiple=multiple)
        return place(record, placement, data.size, data.strides)


class _Targets:
    """From a batch of records, and its number, to inputs and targets; mixes whole batches."""

    def __init__(self, data, settings, seed):
        self._data = data
        self._mixing = None if settings is None else _Mixing(settings, seed)

    def __call__(self, step: int, batch: Inputs) -> tuple[Inputs, np.ndarray]:
        task = self._data.task
        inputs = dict(batch)
        target = inputs.pop(task.target)
        if task.target == "depth":
            mean, deviation = self._data.depth_scale
            return _normalized(inputs), ((target - mean) / deviation).astype("float32")
        if task.target == "semseg":
            return _normalized(inputs), target
        shares = np.eye(task.num_outputs, dtype="float32")[target]
        if self._mixing is None:
            return _normalized(inputs), shares
        return self._mixing(step, inputs, shares)


class _Mixing:
    """RandAugment, mixup and cutmix by Keras's layers, as a function of the seed and the step."""

    def __init__(self, settings: ImageFineTuning, seed: int):
        self._seed = seed
        self._lock = threading.Lock()
        self._augment = None
        if settings.rand_augment:
            self._augment = keras.layers.RandAugment(
                (0, 255), factor=settings.rand_augment / 10, seed=0
            )
        self._mixers = []
        if settings.mixup:
            self._mixers.append(keras.layers.MixUp(settings.mixup, seed=0))
        if settings.cutmix:
            self._mixers.append(keras.layers.CutMix((settings.cutmix, settings.cutmix), seed=0))

    def __call__(self, step, inputs, shares):
        draw = randomness.generator(self._seed, step)
        with self._lock:  # grain's threads share the layers and their state
            if self._augment is not None:
                rgb = _run(self._augment, draw, {"images": inputs["rgb"]})["images"]
                inputs = {**inputs, "rgb": np.clip(rgb, 0, 255)}
            inputs = _normalized(inputs)
            if self._mixers:
                mixer = self._mixers[draw.integers(len(self._mixers))]
                mixed = _run(mixer, draw, {"images": inputs["rgb"], "labels": shares})
                inputs, shares = {**inputs, "rgb": mixed["images"]}, mixed["labels"]
        return inputs, shares


def _run(layer, draw, data):
    """Calls a layer whose random state is drawn anew."""
    layer.generator.state.assign(draw.integers(2**31, size=2).astype("uint32"))
    data = {name: array.astype("float32") for name, array in data.items()}
    # MixUp asks JAX for int64 indices, RandAugment transposes scalars in PyTorch.
    with warnings.catch_warnings():
        for message in (".*requested dtype int64", ".*Tensor.T is deprecated"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        outputs = layer(data, training=True)
    return {
        name: keras.ops.convert_to_numpy(array).astype("float32") for name, array in outputs.items()
    }


def _normalized(inputs: Inputs) -> Inputs:
    if "rgb" not in inputs:
        return inputs
    return {**inputs, "rgb": normalize_rgb(inputs["rgb"])}


def _fitted(record, size, strides):
    height, width = _size_of(record)
    multiple = math.lcm(*strides.values())
    return place(record, fit(height, width, size, multiple), size, strides)


def _size_of(record: Mapping[str, np.ndarray]) -> tuple[int, int]:
    return next(record[name].shape[:2] for name in MAPS if name in record)


def _class_names(name: str, source: ImageSource) -> tuple[str, ...]:
    names = {"label": source.label_names, "semseg": source.class_names}
    return names.get(TARGETS.get(name, ""), ())


def _checked_label(record: Mapping[str, np.ndarray], task: ImageTask, index: int) -> int:
    label = int(record["label"])
    if not 0 <= label < task.num_outputs:
        raise ValueError(
            f"A label must be below {task.num_outputs}, the number of classes. "
            f"Received: {label} in image {index}"
        )
    return label
