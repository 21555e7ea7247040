"""Depth and labels for plain RGB images, predicted by KerasHub models and stored beside them.

The stored maps are the layout that `AlignedFolder`, `ImageFolder(maps=...)` and
`TfdsImages(maps=...)` read. Maps from any other model are used by writing them in this layout.

The class sets are those of the presets: ADE20K's 150 or Cityscapes' 19, not COCO's 133, on which
MultiMAE and the paper trained with labels from Mask2Former. Numbers of runs on different class
sets do not compare.
"""

import abc
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_taskrobust import checks
from keras_taskrobust.files import write_atomically
from keras_taskrobust.parts import WHOLE, Part, all_parts, refuse_other_parts
from keras_taskrobust.plain_text import listed_faults
from keras_taskrobust.vision.class_sets import ADE20K_150, CITYSCAPES_19
from keras_taskrobust.vision.folders import DEPTH_SCALE, description_path, read_description
from keras_taskrobust.vision.image_source import IGNORE_LABEL, ImageSource, UnreadableFileError
from keras_taskrobust.vision.map_files import is_whole_picture, write_depth, write_labels

_KNOWN_CLASSES = {len(names): names for names in (ADE20K_150, CITYSCAPES_19)}
_LARGEST_UNIT = 2**16 - 1


class PseudoLabelReport(NamedTuple):
    """What `write_pseudo_labels` did for one modality.

    Attributes:
        written: int, maps written by this call.
        kept: int, maps that were there.
        skipped: dict. Unreadable images, each with the reason.
    """

    written: int
    kept: int
    skipped: dict[str, str]


def write_pseudo_labels(
    source: ImageSource,
    folder: str | os.PathLike,
    depth: str | keras.Model | None = None,
    semseg: str | keras.Model | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = 8,
    strict: bool = False,
    progress: bool = True,
    part: str | None = None,
) -> dict[str, PseudoLabelReport]:
    """Predicts depth, labels or both for all images of a source, and stores the maps.

    The map of an image has the image's size. It is `<folder>/depth/<stem>.png` (16 bits) or
    `<folder>/semseg/<stem>.png` (8 bits); `depth.json` and `semseg.json` in the folder describe
    them. A map is written whole or not at all, and one that is there is kept: a call that was
    stopped goes on where it was. Images are squeezed to the size that the model takes.

    Metric depth is stored in millimetres. Relative depth (as of the presets
    `depth_anything_v2_*`) is inverse: larger where it is nearer, up to a scale and a shift; it
    is stored divided by its maximum in the image, and `depth.json` says so.

    Args:
        source: `ImageSource` with `"rgb"`.
        folder: path of the folder of the maps, which is made if it is missing.
        depth: name of a preset of `keras_hub.models.DepthEstimator`, such as
            `"depth_anything_v2_small"`, or such a model. `None`: no depth.
        semseg: name of a preset of `keras_hub.models.ImageSegmenter`, such as
            `"segformer_b0_ade20k_512"`, or such a model, of fewer than 255 classes. `None`: no
            labels.
        class_names: sequence of strings, the classes of `semseg`. Known for 150 (ADE20K) and 19
            (Cityscapes).
        batch_size: int, images per step.
        strict: bool. Whether to refuse unreadable images instead of skipping them.
        progress: bool. Whether to show a progress bar.
        part: string. `"2/8"` is the second of eight parts of the images, which several processes
            or machines do: only its maps are made. Once all are in the folder, with what they leave
            in `depth.parts` and `semseg.parts`, a call without it checks and joins them, and makes
            what is missing.

    Returns:
        dict of `"depth"`, `"semseg"` or both to `PseudoLabelReport`.

    Raises:
        ValueError: if an argument is not as said, the folder holds maps of another model, or parts
            are missing or do not fit each other.

    Example:

    ```python
    images = ImageFolder("imagenet/train", verify=False)
    write_pseudo_labels(
        images, "maps", depth="depth_anything_v2_small", semseg="segformer_b0_ade20k_512"
    )
    source = ImageFolder("imagenet/train", maps="maps", verify=False)
    ```
    """
    if not isinstance(source, ImageSource) or "rgb" not in source.modalities:
        raise ValueError(f"`source` must be an ImageSource with 'rgb'. Received: source={source}")
    if depth is None and semseg is None:
        raise ValueError("`depth` or `semseg` must be given. Received: None for both")
    checks.integer("batch_size", batch_size, least=1)
    own = WHOLE if part is None else Part.read(part)
    predictors: dict[str, _Predictor] = {}
    if depth is not None:
        predictors["depth"] = _DepthPredictor(depth)
    if semseg is not None:
        predictors["semseg"] = _LabelPredictor(semseg, class_names)
    stems = [source.stem(index) for index in range(len(source))]
    records = {name: _record(one.description, stems) for name, one in predictors.items()}
    for name, predictor in predictors.items():
        parts = _parts_of(folder, name)
        if part is not None:
            refuse_other_parts(parts, own)
        elif parts.exists():
            _join(parts, records[name])
        _describe(Path(folder, name), predictor.description)
    reports = {}
    for name, predictor in predictors.items():
        indices = own.of(range(len(source)))
        paths = {index: Path(folder, name, f"{stems[index]}.png") for index in indices}
        reports[name] = _write_maps(source, paths, name, predictor, batch_size, strict, progress)
        if part is not None:
            content = json.dumps(records[name], indent=1).encode()
            write_atomically(_parts_of(folder, name) / f"{own.name}.json", content)
    return reports


class _Predictor(abc.ABC):
    """A model, and how its outputs become files.

    Args:
        model: the model, or the name of a preset.
        task: string. The name of the class in `keras_hub.models` that opens presets.

    Attributes:
        description: dict, the contents of the JSON file beside the maps.
    """

    def __init__(self, model: str | keras.Model, task: str):
        self.name = model if isinstance(model, str) else type(model).__name__
        if isinstance(model, str):
            import keras_hub

            model = getattr(keras_hub.models, task).from_preset(model)
        self.model: Any = model
        self.description: dict[str, Any] = {"model": self.name}
        shape = self.model.inputs[0].shape
        if len(shape) != 4 or None in shape[1:3]:
            raise ValueError(
                "The model of pseudo-labels must take images of a fixed size, (batch, height, "
                f"width, 3). Received: {self.name} with the input shape {shape}"
            )
        self.size = (shape[1], shape[2])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predicts one map, `(height, width)` of the model's size, for each image.

        Args:
            images: `(B, height, width, 3)` uint8, of the model's size.
        """
        return self.to_maps(self.model.predict_on_batch(images.astype("float32")))

    @abc.abstractmethod
    def to_maps(self, outputs: Any) -> np.ndarray:
        """Turns a batch of the model's outputs into maps."""

    @abc.abstractmethod
    def write(self, path: Path, prediction: np.ndarray, size: tuple[int, int]) -> None:
        """Resizes a map to `(height, width)` and writes it."""


class _DepthPredictor(_Predictor):
    def __init__(self, model):
        super().__init__(model, "DepthEstimator")
        self.is_metric = getattr(self.model, "depth_estimation_type", "relative") == "metric"
        kind = "metric" if self.is_metric else "relative inverse"
        scale = DEPTH_SCALE if self.is_metric else 1 / _LARGEST_UNIT
        self.description |= {"kind": kind, "scale": scale}

    def to_maps(self, outputs):
        values = keras.ops.convert_to_numpy(outputs["depths"]).astype("float32")
        return values[..., 0] if values.ndim == 4 else values

    def write(self, path, prediction, size):
        resized = Image.fromarray(prediction).resize(size[::-1], Image.Resampling.BILINEAR)
        depth = np.asarray(resized, "float64")
        largest = depth.max(initial=0, where=np.isfinite(depth))
        unit = DEPTH_SCALE if self.is_metric else max(largest, 1e-12) / _LARGEST_UNIT
        # 0 stands for missing: what is nearest to it becomes 1.
        units = np.clip(np.rint(np.nan_to_num(depth) / unit), 1, _LARGEST_UNIT)
        write_depth(path, np.where(np.isfinite(depth), units, 0).astype("uint16"))


class _LabelPredictor(_Predictor):
    def __init__(self, model, class_names):
        super().__init__(model, "ImageSegmenter")
        number = self.model.outputs[0].shape[-1]
        names = _KNOWN_CLASSES.get(number, ()) if class_names is None else tuple(class_names)
        if len(names) != number or number >= IGNORE_LABEL:
            raise ValueError(
                f"`class_names` must be the names of the {number} classes, fewer than "
                f"{IGNORE_LABEL}, of {self.name}. Received: class_names={class_names}"
            )
        self.description["class_names"] = list(names)

    def to_maps(self, outputs):
        return keras.ops.convert_to_numpy(outputs).argmax(-1).astype("uint8")

    def write(self, path, prediction, size):
        resized = Image.fromarray(prediction).resize(size[::-1], Image.Resampling.NEAREST)
        write_labels(path, np.asarray(resized))


def _parts_of(folder, name):
    """The folder of what says which parts of the maps are complete."""
    return Path(folder, f"{name}.parts")


def _record(description: Mapping[str, Any], stems: Sequence[str]) -> dict[str, Any]:
    """What all parts of some maps have in common."""
    images = hashlib.sha256(json.dumps(stems).encode()).hexdigest()
    return {**description, "images": f"{len(stems)}, {images}"}


def _join(folder: Path, record: Mapping[str, Any]) -> None:
    """Checks that all parts are complete, and of the same images and model. They are then one."""
    for part, path in all_parts(folder, Path.is_file).items():
        different = _differences(read_description(path), record)
        if different:
            raise ValueError(
                "Parts must be made of the same images, by the same model, that they are joined "
                f"with. Received: part {part} in {folder}, which differs in {different}"
            )
    shutil.rmtree(folder)


def _differences(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    keys = stored.keys() | expected.keys()
    return sorted(key for key in keys if stored.get(key) != expected.get(key))


def _describe(folder, description):
    """Writes the description of a folder of maps; refuses a folder with another one."""
    path = description_path(folder)
    if path.is_file():
        different = _differences(read_description(path), description)
        if different:
            raise ValueError(
                f"`folder` must be new or hold maps of the same model. Received: {folder}, whose "
                f"description {path.name} differs in {different}"
            )
    write_atomically(path, json.dumps(description, indent=1).encode("utf-8"))


def _write_maps(
    source: ImageSource,
    paths: Mapping[int, Path],
    name: str,
    predictor: _Predictor,
    batch_size: int,
    strict: bool,
    progress: bool,
) -> PseudoLabelReport:
    """Writes the maps of some images, given where each goes."""
    pending = _find_pending(paths)
    skipped: dict[str, str] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=not progress) as bar, ThreadPoolExecutor() as pool:
        task = bar.add_task(
            f"{name} by {predictor.name}",
            total=len(paths),
            completed=len(paths) - len(pending),
        )
        for batch in _read_ahead(pool, source, pending, batch_size):
            sound: list[tuple[int, np.ndarray]] = []
            for index, image in batch:
                if isinstance(image, UnreadableFileError):
                    if strict:
                        raise image
                    skipped[image.path] = image.fault
                else:
                    sound.append((index, image))
            for prediction, (index, image) in zip(
                _predict(predictor, [image for _, image in sound], batch_size), sound, strict=True
            ):
                predictor.write(paths[index], prediction, image.shape[:2])
            bar.advance(task, len(batch))
    if skipped:
        warnings.warn(
            f"{len(skipped)} unreadable images are skipped: {listed_faults(skipped)}", stacklevel=3
        )
    kept = len(paths) - len(pending)
    return PseudoLabelReport(len(pending) - len(skipped), kept, skipped)


def _find_pending(paths: Mapping[int, Path]) -> list[int]:
    """The numbers of the maps that are missing or damaged."""
    with ThreadPoolExecutor() as pool:
        whole = list(pool.map(is_whole_picture, paths.values()))
    pending = [index for index, is_whole in zip(paths, whole, strict=True) if not is_whole]
    damaged = [str(paths[index]) for index in pending if paths[index].exists()]
    if damaged:
        warnings.warn(
            f"{len(damaged)} damaged maps are made again: {'; '.join(damaged[:5])}", stacklevel=4
        )
    return pending


def _read_ahead(
    pool: ThreadPoolExecutor, source: ImageSource, indices: Sequence[int], batch_size: int
) -> Iterator[list[tuple[int, np.ndarray | UnreadableFileError]]]:
    """Yields batches of images, or why they cannot be read, one batch ahead of its user."""

    def read(index):
        try:
            return index, source[index]["rgb"]
        except UnreadableFileError as error:
            return index, error

    ahead = None
    for start in range(0, len(indices), batch_size):
        coming = pool.map(read, indices[start : start + batch_size])
        if ahead is not None:
            yield list(ahead)
        ahead = coming
    if ahead is not None:
        yield list(ahead)


def _predict(predictor: _Predictor, images: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    """Maps of the model's size; batches are filled up, so that the model compiles once."""
    if not images:
        return np.zeros((0, *predictor.size))
    inputs = np.zeros((batch_size, *predictor.size, 3), "uint8")
    for row, image in enumerate(images):
        resized = Image.fromarray(image).resize(predictor.size[::-1], Image.Resampling.BICUBIC)
        inputs[row] = np.asarray(resized)
    return predictor.predict(inputs)[: len(images)]
