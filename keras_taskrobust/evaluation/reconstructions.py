"""A picture of what a masked autoencoder sees and what it makes of it."""

import colorsys
import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from keras_taskrobust.evaluation.drawing import save_figure
from keras_taskrobust.vision import restore_rgb
from keras_taskrobust.vision.modalities import tasks_of

#: The panels of each task, from left to right.
COLUMNS = ("input", "visible patches", "prediction", "truth")

_GREY = np.array([200, 200, 200], "uint8")
_PANEL = 0.98
_GAP = 0.04
_BETWEEN = 0.16
_LEGEND_COLUMNS = 8
_DEPTH_SHARE = (2, 98)
_VARIANCE_FLOOR = 1e-6


def plot_reconstructions(
    model,
    batch: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    class_names: Sequence[str] = (),
) -> None:
    """Draws a row a sample as a PNG: for each task input, visible patches, prediction and truth.

    Depth is dark where it is near. Labels have colours, named below. Missing and masked pixels are
    grey. The prediction has the visible patches as they are: no loss is on these. That of a task
    with normalised targets is shown with the mean and deviation of the true patches.

    Args:
        model: `keras_taskrobust.vision.MultiModalMAE`.
        batch: `{modality: maps}` of the samples.
        masks: `{modality: (B, N)}`, 1 for masked patches.
        path: where the picture goes.
        class_names: the names of the labels.
    """
    predictions = model.reconstruct(batch, masks)
    tasks = [task for task in tasks_of(model.modalities) if task.modality.name in batch]
    samples = len(next(iter(batch.values())))
    figure, panels = _grid(samples, len(tasks), model.backbone.image_shape, len(class_names))
    shown: set[int] = set()
    for place, task in enumerate(tasks):
        modality = task.modality
        hidden = _masked_pixels(model, modality, masks)
        for row in range(samples):
            truth = np.asarray(batch[modality.name][row])
            predicted = predictions[task.name][row]
            if task.normalized:
                predicted = _restore_patches(
                    predicted, truth, model.network.patch_size_of(modality)
                )
            if modality.is_labels:
                predicted = predicted.argmax(-1)
                shown |= set(np.unique(truth)) | set(np.unique(predicted))
            true, guessed = _colour(modality, truth, predicted)
            masked = hidden[row][..., None]
            visible = np.where(masked, _GREY, true)
            completed = np.where(masked, guessed, true)
            for column, image in enumerate((true, visible, completed, true)):
                axes = panels[row][place][column]
                axes.imshow(image, interpolation="nearest")
                if row == 0:
                    axes.set_title(COLUMNS[column], fontsize=7, pad=2)
        panels[0][place][0].annotate(
            task.name, (0, 1), (0, 14), "axes fraction", "offset points", fontsize=9, weight="bold"
        )
    _add_legend(figure, class_names, shown)
    save_figure(figure, path)


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


def _grid(samples, tasks, image_shape, classes):
    """A figure, and its panels as `[sample][task][column]`."""
    height = _PANEL * image_shape[0] / image_shape[1]
    legend = 0.2 + 0.16 * -(-classes // _LEGEND_COLUMNS)
    top = 0.5
    block = len(COLUMNS) * (_PANEL + _GAP)
    width = 2 * _BETWEEN + tasks * block + (tasks - 1) * _BETWEEN
    total = top + samples * (height + _GAP) + legend
    figure = Figure(figsize=(width, total), facecolor="white")
    panels: list[list[list[Axes]]] = []
    for row in range(samples):
        y = total - top - row * (height + _GAP) - height
        panels.append([])
        for task in range(tasks):
            x = _BETWEEN + task * (block + _BETWEEN)
            panels[-1].append(
                [
                    figure.add_axes(
                        (
                            (x + column * (_PANEL + _GAP)) / width,
                            y / total,
                            _PANEL / width,
                            height / total,
                        )
                    )
                    for column in range(len(COLUMNS))
                ]
            )
            for axes in panels[-1][-1]:
                axes.set_axis_off()
    return figure, panels


def _masked_pixels(model, modality, masks) -> np.ndarray:
    """`(B, h, w)` bool."""
    rows, columns = model.network.grid
    masked = np.asarray(masks.get(modality.name, np.ones((len(next(iter(masks.values()))), 1))))
    masked = np.broadcast_to(masked, (len(masked), rows * columns)).reshape(-1, rows, columns)
    return np.kron(masked, np.ones((1, *model.network.patch_size_of(modality)))) > 0


def _colour(modality, truth, predicted) -> tuple[np.ndarray, np.ndarray]:
    """`(h, w, 3)` uint8 images of the truth and the prediction."""
    if modality.is_labels:
        table = np.concatenate([label_colours(modality.num_classes), _GREY[None]])
        labels = np.where(truth == modality.ignore_label, modality.num_classes, truth)
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


def _restore_patches(predicted, truth, patch_size) -> np.ndarray:
    """Gives each predicted patch the mean and deviation of the true one."""
    height, width = patch_size
    rows, columns = truth.shape[0] // height, truth.shape[1] // width
    patches = truth.reshape(rows, height, columns, width, -1)
    axes = (1, 3, 4)
    number = np.isfinite(patches).sum(axes, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(patches, axes, keepdims=True) / number
        variance = np.nansum((patches - mean) ** 2, axes, keepdims=True) / (number - 1)
    restored = predicted.reshape(patches.shape) * np.sqrt(variance + _VARIANCE_FLOOR) + mean
    return np.nan_to_num(restored).reshape(predicted.shape)


def _add_legend(figure, class_names, shown):
    handles = [
        Patch(color=colour / 255, label=name)
        for index, (name, colour) in enumerate(
            zip(class_names, label_colours(len(class_names)), strict=True)
        )
        if index in shown
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=_LEGEND_COLUMNS,
            fontsize=7,
            frameon=False,
            handlelength=1,
            handleheight=1,
            borderpad=0,
            labelspacing=0.2,
        )
