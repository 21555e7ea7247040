"""A picture of what a masked autoencoder sees and what it makes of it."""

import colorsys
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keras_taskrobust.evaluation.arrays import read_arrays, write_arrays
from keras_taskrobust.evaluation.drawing import save_figure, shown
from keras_taskrobust.vision import Modality, MultiModalMAE, restore_rgb
from keras_taskrobust.vision.losses import PATCH_VARIANCE_FLOOR
from keras_taskrobust.vision.modalities import tasks_of

#: The panels of each task, from left to right.
COLUMNS = ("input", "visible patches", "prediction", "truth")

_GREY = np.array([200, 200, 200], "uint8")
_PANEL = 0.98
_GAP = 0.04
_BETWEEN = 0.16
_TOP = 0.5
_LEGEND_ENTRY = 0.8
_DEPTH_SHARE = (2, 98)


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """What a masked autoencoder sees of some samples and makes of them, in colours.

    Depth is dark where it is near. Labels have colours. Missing and masked pixels are grey. The
    prediction has the visible patches as they are: no loss is on these. That of a task with
    normalised targets is shown with the mean and deviation of the true patches.

    Attributes:
        images: task names to `(3, B, h, w, 3)` uint8: truth, visible patches, prediction.
        labels: names of the labels shown to their colours, `(3,)` uint8.
    """

    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz`."""
        arrays = {
            f"{kind}/{name}": array
            for kind, group in (("images", self.images), ("labels", self.labels))
            for name, array in group.items()
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Reconstructions":
        """Reads what `save` wrote."""
        found: dict[str, dict[str, np.ndarray]] = {"images": {}, "labels": {}}
        for key, array in read_arrays(path).items():
            kind, _, name = key.partition("/")
            shape = (3, *array.shape[1:4], 3) if kind == "images" else (3,)
            if kind not in found or array.shape != shape or array.dtype != "uint8":
                raise ValueError(
                    "`path` must be an archive that `Reconstructions.save` wrote. "
                    f"Received: {path} with {key!r}, {array.dtype} of the shape {array.shape}"
                )
            found[kind][name] = array
        return cls(**found)


def paint_reconstructions(
    model: MultiModalMAE,
    batch: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    class_names: Sequence[str] = (),
) -> Reconstructions:
    """Lets a model reconstruct a batch.

    Args:
        model: `keras_taskrobust.vision.MultiModalMAE`.
        batch: `{modality: maps}` of the samples.
        masks: `{modality: (B, N)}`, 1 for masked patches.
        class_names: the names of the labels.

    Returns:
        `Reconstructions`.
    """
    predictions = model.reconstruct(batch, masks)
    images, shown = {}, set()
    for task in tasks_of(model.modalities):
        modality = task.modality
        if modality.name not in batch:
            continue
        truth = np.asarray(batch[modality.name])
        predicted = predictions[task.name]
        if task.normalized:
            patch_size = model.network.patch_size_of(modality)
            pairs = zip(predicted, truth, strict=True)
            predicted = np.stack([_restore_patches(*pair, patch_size) for pair in pairs])
        if modality.is_labels:
            predicted = predicted.argmax(-1)
            shown |= set(np.unique(truth)) | set(np.unique(predicted))
        painted = [_colour(modality, *pair) for pair in zip(truth, predicted, strict=True)]
        true, guessed = (np.stack(half) for half in zip(*painted, strict=True))
        masked = _masked_pixels(model, modality, masks)[..., None]
        visible, completed = np.where(masked, _GREY, true), np.where(masked, guessed, true)
        images[task.name] = np.stack([true, visible, completed])
    colours = zip(class_names, label_colours(len(class_names)), strict=True)
    labels = {name: colour for index, (name, colour) in enumerate(colours) if index in shown}
    return Reconstructions(images, labels)


def plot_reconstructions(reconstructions: Reconstructions, path: str | os.PathLike) -> None:
    """Draws a row a sample as a PNG: for each task input, visible patches, prediction and truth.

    Args:
        reconstructions: `Reconstructions`.
        path: where the picture goes.
    """
    blocks = [
        _Block(name, COLUMNS, np.stack([true, visible, completed, true]))
        for name, (true, visible, completed) in reconstructions.images.items()
    ]
    _plot([blocks], reconstructions.labels, path)


def plot_reconstructions_of_runs(
    runs: Mapping[str, Reconstructions], path: str | os.PathLike
) -> None:
    """Draws the same samples and patches under several models side by side, as a PNG.

    Args:
        runs: names to `Reconstructions`.
        path: where the picture goes.

    Raises:
        ValueError: they are not of the same images.
    """
    first = next(iter(runs.values()))
    shapes = [{name: images.shape for name, images in one.images.items()} for one in runs.values()]
    if not first.images or any(one != shapes[0] for one in shapes):
        raise ValueError(f"`runs` must show the same images. Received: the shapes {shapes}")
    columns = ("truth", "visible patches", *runs)
    blocks = [
        [
            _Block(
                name,
                columns,
                np.stack([true, visible, *(r.images[name][2] for r in runs.values())]),
            )
        ]
        for name, (true, visible, _) in first.images.items()
    ]
    labels = {name: colour for run in runs.values() for name, colour in run.labels.items()}
    _plot(blocks, labels, path)


def label_colours(number: int) -> np.ndarray:
    """Colours that tell classes apart.

    Args:
        number: int, the classes.

    Returns:
        `(number, 3)` uint8.

    Example:

    >>> len(np.unique(label_colours(150), axis=0))
    150
    """
    golden = (5**0.5 - 1) / 2
    colours = [
        colorsys.hls_to_rgb((index * golden) % 1, (0.42, 0.62, 0.3, 0.75)[index % 4], 0.6)
        for index in range(number)
    ]
    return np.rint(np.array(colours).reshape(-1, 3) * 255).astype("uint8")


class _Block(NamedTuple):
    """Panels that belong together.

    Attributes:
        title: string.
        columns: the C titles of the columns.
        images: `(C, B, h, w, 3)` uint8.
    """

    title: str
    columns: Sequence[str]
    images: np.ndarray


def _plot(
    blocks: Sequence[Sequence[_Block]], labels: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
    """Draws rows of blocks side by side, and a legend of the labels."""
    _, samples, *size = blocks[0][0].images.shape[:4]
    height = _PANEL * size[0] / size[1]
    block_height = _TOP + samples * (height + _GAP)
    widths = [len(block.columns) * (_PANEL + _GAP) + _BETWEEN for block in blocks[0]]
    width = _BETWEEN + sum(widths)
    legend_columns = max(1, int(width / _LEGEND_ENTRY))
    total = len(blocks) * block_height + 0.2 + 0.16 * -(-len(labels) // legend_columns)
    figure = Figure(figsize=(width, total), facecolor="white")
    for number, line in enumerate(blocks):
        for place, block in enumerate(line):
            left = _BETWEEN + sum(widths[:place])
            top = total - number * block_height - _TOP
            for column, images in enumerate(block.images):
                for row, image in enumerate(images):
                    x, y = left + column * (_PANEL + _GAP), top - row * (height + _GAP) - height
                    box = (x / width, y / total, _PANEL / width, height / total)
                    axes = figure.add_axes(box)
                    axes.set_axis_off()
                    axes.imshow(image, interpolation="nearest", aspect="auto")
                    if row == 0:
                        axes.set_title(shown(block.columns[column]), fontsize=7, pad=2)
                    if row == 0 and column == 0:
                        axes.annotate(
                            shown(block.title),
                            (0, 1),
                            (0, 14),
                            "axes fraction",
                            "offset points",
                            fontsize=9,
                            weight="bold",
                        )
    _add_legend(figure, labels, legend_columns)
    save_figure(figure, path)


def _masked_pixels(
    model: MultiModalMAE, modality: Modality, masks: Mapping[str, np.ndarray]
) -> np.ndarray:
    """`(B, h, w)` bool."""
    rows, columns = model.network.grid
    masked = np.asarray(masks.get(modality.name, np.ones((len(next(iter(masks.values()))), 1))))
    masked = np.broadcast_to(masked, (len(masked), rows * columns)).reshape(-1, rows, columns)
    return np.kron(masked, np.ones((1, *model.network.patch_size_of(modality)))) > 0


def _colour(
    modality: Modality, truth: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`(h, w, 3)` uint8 images of the truth and the prediction."""
    if (classes := modality.num_classes) is not None:
        table = np.concatenate([label_colours(classes), _GREY[None]])
        labels = np.where(truth == modality.ignore_label, classes, truth)
        return table[labels], table[predicted]
    known = np.isfinite(truth).all(-1, keepdims=True)
    if modality.channels == 3:
        return np.where(known, restore_rgb(truth), _GREY), restore_rgb(predicted)
    low, high = np.percentile(truth[known], _DEPTH_SHARE) if known.any() else (0.0, 1.0)
    images = [
        colormaps["viridis"]((values[..., 0] - low) / max(high - low, 1e-6), bytes=True)[..., :3]
        for values in (np.nan_to_num(truth), predicted)
    ]
    return np.where(known, images[0], _GREY), images[1]


def _restore_patches(
    predicted: np.ndarray, truth: np.ndarray, patch_size: tuple[int, int]
) -> np.ndarray:
    """Gives each predicted patch the mean and deviation of the true one."""
    height, width = patch_size
    rows, columns = truth.shape[0] // height, truth.shape[1] // width
    patches = truth.reshape(rows, height, columns, width, -1)
    axes = (1, 3, 4)
    number = np.isfinite(patches).sum(axes, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(patches, axes, keepdims=True) / number
        variance = np.nansum((patches - mean) ** 2, axes, keepdims=True) / (number - 1)
    restored = predicted.reshape(patches.shape) * np.sqrt(variance + PATCH_VARIANCE_FLOOR) + mean
    return np.nan_to_num(restored).reshape(predicted.shape)


def _add_legend(figure, labels, columns):
    handles = [Patch(color=colour / 255, label=shown(name)) for name, colour in labels.items()]
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=columns,
            fontsize=7,
            frameon=False,
            handlelength=1,
            handleheight=1,
            borderpad=0,
            labelspacing=0.2,
        )
