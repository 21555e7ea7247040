"""Joint augmentation of aligned maps, and the numbers that networks are trained on.

All randomness comes from the generator that is given. That of a function of the seed, the epoch
and the record lets any record of any epoch be made again, in any process and any order.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_taskrobust import randomness
from keras_taskrobust.vision.image_source import IGNORE_LABEL, Record

#: ImageNet's mean and standard deviation of red, green and blue, for values in [0, 1].
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_DEVIATION = (0.229, 0.224, 0.225)

_VIEW = 1  # what the numbers are for: those of whole batches have no fourth counter
_ATTEMPTS = 10
_LOW, _HIGH = 0.1, 0.9
_VARIANCE_FLOOR = 1e-6


class View(NamedTuple):
    """The part of an image that is shown, in pixels, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


class Placement(NamedTuple):
    """The part of an image that is shown, and the size it gets at the top left of the result."""

    view: View
    size: tuple[int, int]


class DepthStatistics(NamedTuple):
    """What standardised a depth map: `(depth - mean) / deviation`, in metres."""

    mean: float
    deviation: float


def generator_of_view(seed: int, epoch: int, record: int) -> np.random.Generator:
    """What the view of a record in an epoch is drawn from."""
    return randomness.generator(seed, epoch, record, _VIEW)


def draw_view(
    height: int,
    width: int,
    generator: np.random.Generator,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip_probability: float = 0.5,
) -> View:
    """Draws a random resized crop and a horizontal flip.

    The crop's share of the area is uniform in `scale`, the logarithm of its aspect ratio in
    `ratio`; after ten crops that do not fit into the image, the largest central one is taken.

    Args:
        height: int, pixels of the image.
        width: int.
        generator: `np.random.Generator`.
        scale: pair of floats, the least and greatest share of the area.
        ratio: pair of floats, the least and greatest width per height.
        flip_probability: float.

    Returns:
        `View`.
    """
    draw = generator.random
    flip = draw() < flip_probability
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draw())
        aspect = math.exp(low + (high - low) * draw())
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        down, right = draw(), draw()
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(down * (height - crop_height + 1))
            left = int(right * (width - crop_width + 1))
            return View(top, left, crop_height, crop_width, flip)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    return _central_view(height, width, aspect)._replace(flip=flip)


def draw_jitter(
    height: int,
    width: int,
    size: tuple[int, int],
    generator: np.random.Generator,
    factors: tuple[float, float] = (0.1, 2.0),
    flip_probability: float = 0.5,
    multiple: int = 1,
) -> Placement:
    """Draws large-scale jitter: the image is brought to `size`, then scaled, and cropped or padded.

    A factor of 1 fits the image into `size`, its aspect ratio kept. The factor is uniform in
    `factors`, so is the place of a crop; what is smaller than `size` lies at the top left.

    Args:
        height: int, pixels of the image.
        width: int.
        size: `(height, width)` of the result.
        generator: `np.random.Generator`.
        factors: pair of floats, the least and largest factor.
        flip_probability: float.
        multiple: int that divides `size`, and shall divide the size of what is shown.

    Returns:
        `Placement`.

    Reference:
        [Simple Copy-Paste](https://arxiv.org/abs/2012.07177), its large-scale jittering.
    """
    draw = generator.random
    flip = draw() < flip_probability
    factor = factors[0] + (factors[1] - factors[0]) * draw()
    factor *= min(size[0] / height, size[1] / width)
    top, shown_height, new_height = _jitter_axis(height, size[0], factor, draw(), multiple)
    left, shown_width, new_width = _jitter_axis(width, size[1], factor, draw(), multiple)
    view = View(top, left, shown_height, shown_width, flip)
    return Placement(view, (new_height, new_width))


def fit(height: int, width: int, size: tuple[int, int], multiple: int = 1) -> Placement:
    """The whole image, its longer side brought to that of `size`, at the top left.

    Args:
        height: int, pixels of the image.
        width: int.
        size: `(height, width)` of the result.
        multiple: as in `draw_jitter`.

    Returns:
        `Placement`, not mirrored.
    """
    fixed = randomness.generator(0)  # what is drawn changes nothing
    return draw_jitter(height, width, size, fixed, (1.0, 1.0), 0.0, multiple)


def place(
    record: Mapping[str, np.ndarray],
    placement: Placement,
    size: tuple[int, int],
    strides: Mapping[str, int] | None = None,
) -> Record:
    """Shows a part of all maps of a record alike, and pads them to `size`.

    Padding is grey in RGB and missing in the others.

    Args:
        record: as in `show_view`.
        placement: `Placement`.
        size: `(height, width)` of the result.
        strides: as in `show_view`.

    Returns:
        dict, the maps of the new size and the dtypes they had.
    """
    shown = show_view(record, placement.view, placement.size, strides)
    for name, value in _PADDING.items():
        if name in shown:
            stride = (strides or {}).get(name, 1)
            array = shown[name]
            padded = np.full((size[0] // stride, size[1] // stride, *array.shape[2:]), value)
            padded = padded.astype(array.dtype)
            padded[: array.shape[0], : array.shape[1]] = array
            shown[name] = padded
    return shown


def central_view(height: int, width: int, size: tuple[int, int]) -> View:
    """The largest central part of an image with the aspect ratio of `size`.

    Args:
        height: int, pixels of the image.
        width: int.
        size: `(height, width)` to which the part will be resized.

    Returns:
        `View`, not mirrored.
    """
    return _central_view(height, width, size[1] / size[0])


def show_view(
    record: Mapping[str, np.ndarray],
    view: View,
    size: tuple[int, int],
    strides: Mapping[str, int] | None = None,
) -> Record:
    """Crops, resizes and mirrors all maps of a record alike.

    RGB is resized with bicubic interpolation, smoothed where it shrinks; depth bilinearly between
    the pixels that are not missing, and missing where the nearest pixel is; labels take the
    nearest pixel. What is no map (`"label"`) stays.

    Args:
        record: `{"rgb": (H, W, 3) uint8, "depth": (H, W, 1), "semseg": (H, W)}`, or some of them.
        view: `View`.
        size: `(height, width)` of the result.
        strides: dict of names of maps to ints that divide the size: such a map is delivered at
            `size / stride`. By default all maps have the full size.

    Returns:
        dict, the maps of the new size and the dtypes they had.
    """
    shown: Record = {}
    for name, array in record.items():
        if name not in _RESIZERS:
            shown[name] = array
            continue
        stride = (strides or {}).get(name, 1)
        resized = _RESIZERS[name](array, view, (size[0] // stride, size[1] // stride))
        shown[name] = np.ascontiguousarray(resized[:, ::-1] if view.flip else resized)
    return shown


def normalize_rgb(rgb: np.ndarray) -> np.ndarray:
    """Normalises images by ImageNet's mean and standard deviation.

    Args:
        rgb: `(..., 3)` uint8.

    Returns:
        `(..., 3)` float32.
    """
    mean, deviation = (np.array(values, "float32") for values in (RGB_MEAN, RGB_DEVIATION))
    return (rgb.astype("float32") / 255 - mean) / deviation


def restore_rgb(normalized: np.ndarray) -> np.ndarray:
    """Inverts `normalize_rgb`, for pictures; values out of range are clipped, NaN is black.

    Args:
        normalized: `(..., 3)` floats.

    Returns:
        `(..., 3)` uint8.
    """
    mean, deviation = np.array(RGB_MEAN), np.array(RGB_DEVIATION)
    values = np.nan_to_num(np.asarray(normalized, "float64") * deviation + mean)
    return np.rint(np.clip(values, 0, 1) * 255).astype("uint8")


def depth_statistics(depth: np.ndarray) -> DepthStatistics:
    """The truncated mean and standard deviation of a depth map, as in MultiMAE.

    They are those of the values between the 10 % and the 90 % of the sorted values that are not
    missing; the variance is the unbiased one plus 1e-6.

    Args:
        depth: array of any shape, metres, NaN where missing.

    Returns:
        `DepthStatistics`; (0, 1) if all is missing.
    """
    values = np.sort(depth[np.isfinite(depth)].astype("float64"))
    kept = values[int(_LOW * len(values)) : int(_HIGH * len(values))]
    kept = kept if len(kept) else values
    if not len(kept):
        return DepthStatistics(0.0, 1.0)
    variance = kept.var(ddof=1) if len(kept) > 1 else 0.0
    return DepthStatistics(float(kept.mean()), math.sqrt(variance + _VARIANCE_FLOOR))


def standardize_depth(depth: np.ndarray, statistics: DepthStatistics | None = None) -> np.ndarray:
    """Standardises one depth map.

    Args:
        depth: `(H, W, 1)` metres, NaN where missing.
        statistics: `DepthStatistics`. By default `depth_statistics(depth)`.

    Returns:
        `(H, W, 1)` float32, NaN where missing.
    """
    mean, deviation = depth_statistics(depth) if statistics is None else statistics
    return ((depth - mean) / deviation).astype("float32")


def restore_depth(standardized: np.ndarray, statistics: DepthStatistics) -> np.ndarray:
    """Inverts `standardize_depth`.

    Args:
        standardized: `(H, W, 1)` floats.
        statistics: `DepthStatistics` of the map in metres.

    Returns:
        `(H, W, 1)` float32 metres.
    """
    return (standardized * statistics.deviation + statistics.mean).astype("float32")


def _central_view(height: int, width: int, aspect: float) -> View:
    shown_width = min(width, max(1, round(height * aspect)))
    shown_height = min(height, max(1, round(width / aspect)))
    top, left = (height - shown_height) // 2, (width - shown_width) // 2
    return View(top, left, shown_height, shown_width, flip=False)


def _jitter_axis(
    length: int, target: int, factor: float, share: float, multiple: int
) -> tuple[int, int, int]:
    """Start and length of what is shown, and its new length."""
    if length * factor > target:
        shown = min(length, max(1, round(target / factor)))
        return int(share * (length - shown + 1)), shown, target
    return 0, length, min(target, max(multiple, round(length * factor / multiple) * multiple))


def _resize_rgb(rgb, view, size):
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    # The crop comes first, so that no pixel from outside of it has a say.
    crop = Image.fromarray(rgb[box[1] : box[3], box[0] : box[2]])
    return np.asarray(crop.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _resize_labels(labels, view, size):
    rows = _nearest(view.top, view.height, size[0])
    columns = _nearest(view.left, view.width, size[1])
    return labels[rows[:, None], columns]


def _resize_depth(depth, view, size):
    """Bilinear interpolation between known pixels; unknown where the nearest pixel is."""
    values = depth[..., 0]
    known = np.isfinite(values)
    values = np.where(known, values, 0)
    top, bottom, down = _neighbours(view.top, view.height, size[0])
    left, right, across = _neighbours(view.left, view.width, size[1])
    total = np.zeros(size)
    weight = np.zeros(size)
    for rows, vertical in ((top, 1 - down), (bottom, down)):
        for columns, horizontal in ((left, 1 - across), (right, across)):
            at = (rows[:, None], columns)
            share = vertical[:, None] * horizontal * known[at]
            total += share * values[at]
            weight += share
    resized = total / np.where(weight > 0, weight, 1)
    resized[~_resize_labels(known, view, size)] = np.nan
    return resized[..., None].astype(depth.dtype)


def _nearest(start, length, size):
    """Indices of the pixels nearest to the centres of `size` new ones."""
    centres = (np.arange(size) + 0.5) * (length / size)
    return start + np.minimum(centres.astype("int64"), length - 1)


def _neighbours(start, length, size):
    """Indices of the two pixels around the centres of new ones, and the share of the second."""
    centres = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    first = np.floor(centres).astype("int64")
    second = np.minimum(first + 1, length - 1)
    return start + first, start + second, centres - first


_PADDING = {"rgb": 128, "depth": np.nan, "semseg": IGNORE_LABEL}
_RESIZERS = {"rgb": _resize_rgb, "depth": _resize_depth, "semseg": _resize_labels}
