"""From a source of images to batches: `grain` data sets that `model.fit` takes."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.data_loading import WHOLE, rows_of_part, with_workers
from keras_taskrobust.map_folders import MAPS
from keras_taskrobust.randomness import shuffled_epoch
from keras_taskrobust.vision.augmentation import (
    central_view,
    draw_view,
    generator_of_view,
    normalize_rgb,
    show_view,
    standardize_depth,
)
from keras_taskrobust.vision.image_source import ImageSource, Record
from keras_taskrobust.vision.mm_mae_checks import VISIBLE_IDS
from keras_taskrobust.vision.patch_masking import PatchMasking

#: Keys under which records carry their number and epoch until they are batched.
_RECORD, _EPOCH = "record", "epoch"


def image_batches(
    source: ImageSource,
    batch_size: int,
    size: int | tuple[int, int],
    seed: int = 0,
    epochs: int | None = None,
    augment: bool = True,
    shuffle: bool = True,
    modalities: Sequence[str] | None = None,
    strides: Mapping[str, int] | None = None,
    metric_depth: bool = False,
    drop_remainder: bool = True,
    num_workers: int = 0,
    masking: PatchMasking | None = None,
    part: tuple[int, int] = WHOLE,
) -> grain.MapDataset | grain.IterDataset:
    """Makes batches of normalised maps.

    With `augment`, every record is cropped (a share of 0.2 to 1 of its area, an aspect ratio of
    3/4 to 4/3), resized and mirrored (half of them), all its maps alike; without, its largest
    central part of the right aspect ratio is resized. Crops and flips are a function of
    `(seed, record, epoch)`, the order of `(seed, epoch)`.

    Args:
        source: `ImageSource`.
        batch_size: int.
        size: int or `(height, width)`, pixels.
        seed: int.
        epochs: int, how often the source is gone through. By default without end: give
            `steps_per_epoch` to `fit`. (And `shuffle=False`, or it warns that it cannot.)
        augment: bool. Whether to crop and mirror at random.
        shuffle: bool. Whether every epoch has an order of its own.
        modalities: sequence of strings, which keys of the records the batches have. By default
            all maps: `"rgb"`, `"depth"` and `"semseg"`, as far as the source has them.
        strides: dict of names of maps to ints, pixels of the image per pixel of the map:
            `{"semseg": 4}` delivers labels at a quarter of the size.
        metric_depth: bool. Whether depth stays in metres instead of being standardised image by
            image, see `augmentation.standardize_depth`.
        drop_remainder: bool. Whether to leave out the last batch if it is not full.
        num_workers: int, the processes that read and augment, each with two or three batches ready.
            By default none: threads of `fit` do, and have up to 500 batches ready, which for large
            images is more than memory has room for.
        masking: `PatchMasking`, or `None`: the model draws what it sees, step by step. With it
            the visible patches are a function of `(record, epoch, masking.seed)`.
        part: `(i, n)`: of each batch only the i-th of n equal parts is read, as `part()` of
            `keras_taskrobust.distribution` says it of a process. It has `batch_size / n` records.

    Returns:
        `grain.MapDataset` (with workers, a `grain.IterDataset`, whose iterator can save and
        restore its position) of dicts:

        - `"rgb"`: `(B, H, W, 3)` float32, normalised by ImageNet's mean and deviation;
        - `"depth"`: `(B, H, W, 1)` float32, NaN where missing;
        - `"semseg"`: `(B, H, W)` int32, 255 where there is no class;
        - `"label"`: `(B,)` int32, if it is among `modalities`;
        - `"visible_ids"`: `(B, V)` int32, with `masking`.

    Raises:
        ValueError: if an argument is not as said.

    Example:

    >>> from keras_taskrobust.vision.scenes import ProceduralScenes
    >>> batches = image_batches(ProceduralScenes(8, 16, 16), batch_size=4, size=8)
    >>> {name: array.shape for name, array in batches[0].items()}
    {'depth': (4, 8, 8, 1), 'rgb': (4, 8, 8, 3), 'semseg': (4, 8, 8)}
    """
    height_and_width = checks.size("size", (size, size) if isinstance(size, int) else size)
    if modalities is None:
        modalities = [name for name in MAPS if name in source.modalities]
    strides = dict(strides or {})
    _check(source, batch_size, height_and_width, epochs, modalities, strides, num_workers)
    if masking is not None and not set(masking.modalities) <= set(modalities):
        raise ValueError(
            f"`masking` must share out patches of the batches' maps, {tuple(modalities)}: those of "
            f"others, which are made later, the model draws. Received: {masking.modalities}"
        )
    rows = rows_of_part(batch_size, part)
    if part != WHOLE and not drop_remainder:
        raise ValueError(f"`part` needs `drop_remainder`. Received: part={part}")
    prepare = _Preparation(
        source,
        height_and_width,
        seed if shuffle else None,
        seed if augment else None,
        modalities,
        strides,
        metric_depth,
        is_numbered=masking is not None,
    )
    length = sys.maxsize if epochs is None else epochs * len(source)
    dataset = grain.MapDataset.source(_Stream(length, batch_size, rows)).map(prepare)
    batches = dataset.batch(len(rows), drop_remainder=drop_remainder)
    if masking is not None:
        batches = batches.map(_Masked(masking))
    return with_workers(batches, num_workers)


@dataclasses.dataclass(frozen=True)
class _Stream:
    """The places of some rows of each batch, in all epochs one after the other."""

    length: int
    batch_size: int
    rows: range

    def __len__(self) -> int:
        if len(self.rows) == self.batch_size:
            return self.length
        return self.length // self.batch_size * len(self.rows)

    def __getitem__(self, number: int) -> int:
        step, row = divmod(int(number), len(self.rows))
        return step * self.batch_size + self.rows[row]


@dataclasses.dataclass(frozen=True)
class _Preparation:
    """From a place in all epochs to the maps of a record."""

    source: ImageSource
    size: tuple[int, int]
    order_seed: int | None
    view_seed: int | None
    modalities: Sequence[str]
    strides: Mapping[str, int]
    metric_depth: bool
    is_numbered: bool

    def __call__(self, index: int) -> Record:
        epoch, place = divmod(index, len(self.source))
        number = place
        if self.order_seed is not None:
            number = int(shuffled_epoch(len(self.source), self.order_seed, epoch)[place])
        record = self.source[number]
        height, width = next(record[name].shape[:2] for name in MAPS if name in record)
        if self.view_seed is None:
            view = central_view(height, width, self.size)
        else:
            view = draw_view(height, width, generator_of_view(self.view_seed, epoch, number))
        wanted = {name: record[name] for name in self.modalities}
        shown = show_view(wanted, view, self.size, self.strides)
        numbers = {name: self._to_numbers(name, array) for name, array in shown.items()}
        return numbers | {_RECORD: number, _EPOCH: epoch} if self.is_numbered else numbers

    def _to_numbers(self, name, array):
        if name == "rgb":
            return normalize_rgb(array)
        if name == "depth":
            return array if self.metric_depth else standardize_depth(array)
        return np.asarray(array, "int32")


@dataclasses.dataclass(frozen=True)
class _Masked:
    """Adds the visible patches to a batch of numbered records."""

    masking: PatchMasking

    def __call__(self, batch: Record) -> Record:
        maps = {name: array for name, array in batch.items() if name not in (_RECORD, _EPOCH)}
        return maps | {VISIBLE_IDS: self.masking(maps, batch[_RECORD], batch[_EPOCH])}


def _check(source, batch_size, size, epochs, modalities, strides, num_workers):
    checks.integer("batch_size", batch_size, least=1)
    checks.integer("num_workers", num_workers, least=0)
    checks.integer_or_none("epochs", epochs, least=1)
    if not modalities or not set(modalities) <= set(source.modalities):
        raise ValueError(
            f"`modalities` must be some of {source.modalities}, which the source has. "
            f"Received: modalities={tuple(modalities)}"
        )
    checks.distinct("modalities", modalities)
    for name, stride in strides.items():
        if name not in MAPS or not checks.is_integer(stride, 1) or any(s % stride for s in size):
            raise ValueError(
                f"`strides` must map some of {MAPS} to integers that divide the size {size}. "
                f"Received: strides={strides}"
            )
