"""Sources of aligned images, depth and labels, all with the interface of `ImageSource`."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_taskrobust.files import READING_ERRORS
from keras_taskrobust.map_folders import MAPS, has_maps, split_folder
from keras_taskrobust.vision.folders import AlignedFolder, ImageFolder, find_images
from keras_taskrobust.vision.image_source import (
    IGNORE_LABEL,
    ImageSource,
    ImageSubset,
    Record,
    Survey,
    UnreadableFileError,
    clean_depth,
    clean_labels,
    number_classes,
)
from keras_taskrobust.vision.nyu_depth import NYUDepthV2
from keras_taskrobust.vision.scenes import ProceduralScenes
from keras_taskrobust.vision.tfds_images import TfdsImages

__all__ = [
    "AlignedFolder",
    "ArrayImages",
    "ImageFolder",
    "ImageSource",
    "ImageSubset",
    "NYUDepthV2",
    "ProceduralScenes",
    "Survey",
    "TfdsImages",
    "UnreadableFileError",
    "load_images",
]

SOURCES = (
    "'scenes', 'tfds:NAME', or the path of an .npz, of nyu_depth_v2_labeled.mat, of a folder with "
    "rgb/, depth/, semseg/ or of a folder of one sub-folder per class"
)


class ArrayImages(ImageSource):
    """Aligned arrays from one .npz file, held in memory.

    The file has the arrays `<split>_rgb` (N, H, W, 3) uint8, `<split>_depth` (N, H, W) or
    (N, H, W, 1) metres, `<split>_semseg` (N, H, W) integers with 255 for pixels without a class,
    or some of them. `class_names` names the labels of pixels; without it they are called by their
    numbers, with a warning. `<split>_label` (N,) integers are the
    classes of whole images, named by `label_names` or, if pixels have none, by `class_names`; so
    are `<split>_scene`, named by `scene_names`, in their place. With `class13_of_class` and
    `class13_names` the labels can be mapped to 13 classes.

    Args:
        path: path of the file.
        split: string, such as `"train"` or `"test"`.
        num_classes: 13 to map the labels to 13 classes. By default they are as stored.

    Attributes:
        counts: `Survey` of all records.

    Raises:
        ValueError: if the file cannot be read, lacks the arrays, or these do not fit each other
            or have labels outside of the classes.

    Example:

    ```python
    source = ArrayImages("nyuv2_64x48.npz", split="train", num_classes=13)
    source[0]["rgb"]  # (48, 64, 3) uint8
    ```
    """

    def __init__(
        self, path: str | os.PathLike, split: str = "train", num_classes: int | None = None
    ):
        contents = _load_npz(Path(path), split)
        arrays = {
            name: contents[f"{split}_{name}"] for name in MAPS if f"{split}_{name}" in contents
        }
        names: Sequence[str] | np.ndarray = contents.get("class_names", ())
        if "semseg" in arrays and not len(names) and num_classes is None:
            names = number_classes(_count_labels(Path(path)), path)
        if num_classes is not None and num_classes != len(names):
            names = _map_labels(arrays, contents, num_classes, path)
        labels, label_names = _image_labels(contents, split)
        if labels is not None and "semseg" not in arrays and not label_names:
            names, label_names = (), names
        super().__init__(
            (*arrays, *(["label"] if labels is not None else [])),
            class_names=tuple(names),
            label_names=tuple(label_names),
        )
        if "depth" in arrays:
            depth = arrays["depth"]
            arrays["depth"] = clean_depth(depth[..., 0] if depth.ndim == 4 else depth)
        if "semseg" in arrays:
            arrays["semseg"] = clean_labels(arrays["semseg"], len(self.class_names), path)
        _check_arrays(arrays, path)
        if labels is not None:
            _check_image_labels(labels, len(arrays["rgb"]), len(self.label_names), path)
            arrays["label"] = labels
        self._arrays = arrays
        self.counts = self.survey()

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def read(self, index: int) -> Record:
        return {name: array[index] for name, array in self._arrays.items()}

    def content(self) -> Iterator[bytes | memoryview]:
        for name, array in self._arrays.items():
            yield f"{name} {array.dtype.str} {array.shape}".encode()
            yield np.ascontiguousarray(array).data


def load_images(
    source: str | os.PathLike | ImageSource,
    split: str = "train",
    strict: bool = False,
    **options: Any,
) -> ImageSource:
    """Opens a source of images.

    Args:
        source: one of
            - `"scenes"`: `ProceduralScenes` of 64 x 64 pixels, 10,000 for the split "train" and
              1,000 other ones for every other split;
            - `"tfds:NAME"`: an image set of TensorFlow Datasets, see `TfdsImages`;
            - the path of an .npz of aligned arrays, see `ArrayImages`;
            - the path of the official `nyu_depth_v2_labeled.mat`, see `NYUDepthV2`;
            - the path of a folder with `rgb/`, `depth/`, `semseg/`, see `AlignedFolder`, or of one
              with such a folder for each split, such as `train/rgb/` and `test/rgb/`;
            - the path of a folder of one sub-folder per class, see `ImageFolder`;
            - an `ImageSource`, which is returned.
        split: string.
        strict: bool. Whether to refuse unreadable files instead of skipping them.
        **options: more arguments of the class that the source stands for.

    Returns:
        An `ImageSource`.

    Raises:
        ValueError: if the source is unknown, an option is not one of its class, or as the class.

    Example:

    >>> load_images("scenes", split="test")[0]["rgb"].shape
    (64, 64, 3)
    """
    if isinstance(source, ImageSource):
        return source
    if source == "scenes":
        number, seed = (10_000, 0) if split == "train" else (1_000, 1)
        return _open(ProceduralScenes, source, {}, {"number": number, "seed": seed} | options)
    if str(source).startswith("tfds:"):
        name = str(source).removeprefix("tfds:")
        return _open(TfdsImages, source, {"name": name, "split": split}, options)
    path = Path(source)
    if path.suffix.lower() == ".npz":
        return _open(ArrayImages, source, {"path": path, "split": split}, options)
    if path.suffix.lower() == ".mat":
        return _open(NYUDepthV2, source, {"path": path, "split": split}, options)
    if not path.is_dir():
        raise ValueError(f"`source` must be {SOURCES}. Received: {str(source)!r}")
    path = split_folder(path, split) or path
    if has_maps(path):
        return _open(AlignedFolder, source, {"root": path, "strict": strict}, options)
    splits = sorted(child.name for child in path.iterdir() if has_maps(child))
    if splits:
        raise ValueError(
            "A split of a folder must be a folder in it with rgb/, depth/ or semseg/. "
            f"Received: {split!r} of {str(path)!r}, which has {', '.join(splits)}"
        )
    if any("/" not in stem for stem in find_images(path)):
        return _open(AlignedFolder, source, {"root": {"rgb": path}, "strict": strict}, options)
    return _open(ImageFolder, source, {"root": path, "strict": strict}, options)


def _open(
    kind: type[ImageSource],
    source: str | os.PathLike,
    arguments: dict[str, Any],
    options: dict[str, Any],
) -> ImageSource:
    known = set(inspect.signature(kind).parameters) - set(arguments)
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"The options of the images {str(source)!r} must be among {sorted(known)}. "
            f"Received: {', '.join(f'{name}={options[name]!r}' for name in unknown)}"
        )
    return kind(**arguments, **options)


def _load_npz(path: Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of a split, and those about classes."""
    wanted = {f"{split}_{name}" for name in MAPS}
    others = {f"{split}_label", f"{split}_scene", "label_names", "scene_names"}
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file)
            contents = {
                name: file[name]
                for name in names
                if name in wanted | others or name.startswith("class")
            }
    except READING_ERRORS as error:
        raise UnreadableFileError(path, error) from error
    if not wanted & contents.keys():
        raise ValueError(
            f"The .npz must have one or more of {split}_rgb, (N, H, W, 3) uint8, {split}_depth, "
            f"(N, H, W) metres, and {split}_semseg, (N, H, W) labels of classes. "
            f"Received: {str(path)!r} with {names}"
        )
    return contents


def _count_labels(path: Path) -> list[int]:
    """How many pixels each label has, in all splits together."""
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = [file[name] for name in file.files if name.endswith("_semseg")]
    except READING_ERRORS as error:
        raise UnreadableFileError(path, error) from error
    counts = [
        np.bincount(
            clean_labels(labels, IGNORE_LABEL - 1, path).ravel(), minlength=IGNORE_LABEL + 1
        )
        for labels in maps
    ]
    return np.sum(counts, axis=0)[:IGNORE_LABEL]


def _image_labels(
    contents: Mapping[str, np.ndarray], split: str
) -> tuple[np.ndarray | None, tuple]:
    """The classes of whole images, and their names, if the file has them."""
    for name in ("label", "scene"):
        if f"{split}_{name}" in contents:
            names = contents.get(f"{name}_names", ())
            return np.asarray(contents[f"{split}_{name}"], "int64"), tuple(names)
    return None, ()


def _check_image_labels(labels, number, num_classes, path):
    if labels.shape != (number,):
        raise ValueError(
            f"The labels of images must have the shape {(number,)}. "
            f"Received: {labels.shape} in {str(path)!r}"
        )
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise ValueError(
            f"The labels of images must be below {num_classes}, the number of their names. "
            f"Received: {np.unique(labels[outside])[:5].tolist()} in {str(path)!r}"
        )


def _map_labels(
    arrays: dict[str, np.ndarray],
    contents: Mapping[str, np.ndarray],
    num_classes: int,
    path: str | os.PathLike,
) -> np.ndarray:
    """Replaces the labels by those of 13 classes. Returns their names."""
    if num_classes != 13 or not {"class13_of_class", "class13_names"} <= set(contents):
        raise ValueError(
            "`num_classes` must be the number of `class_names`, or 13 for a file with "
            f"`class13_of_class` and `class13_names`. Received: num_classes={num_classes} for "
            f"{str(path)!r} with {len(contents.get('class_names', ()))} classes"
        )
    if "semseg" in arrays:
        table = contents["class13_of_class"].astype("int64")
        labels = clean_labels(arrays["semseg"], len(table), path).astype("int64")
        full = np.concatenate([table, np.full(IGNORE_LABEL + 1 - len(table), IGNORE_LABEL)])
        arrays["semseg"] = full[labels]
    return contents["class13_names"]


def _check_arrays(arrays, path):
    shapes = {name: array.shape for name, array in arrays.items()}
    rgb = arrays.get("rgb")
    sound = rgb is None or (rgb.dtype == np.uint8 and rgb.ndim == 4 and rgb.shape[-1] == 3)
    ranks = {"depth": 4, "semseg": 3}
    sound = sound and all(len(shapes[name]) == ranks[name] for name in ranks if name in shapes)
    if not sound or len({shape[:3] for shape in shapes.values()}) > 1:
        raise ValueError(
            "The arrays must be rgb (N, H, W, 3) uint8, depth (N, H, W) or (N, H, W, 1), and "
            f"semseg (N, H, W), of equal N, H and W. Received: {shapes} in {str(path)!r}"
        )
