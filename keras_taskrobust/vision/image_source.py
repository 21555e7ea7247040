"""What a source of images delivers, and what is refused or taken as missing in it."""

import abc
import functools
import hashlib
import json
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np

from keras_taskrobust.map_folders import MAPS

#: The label of pixels without a class.
IGNORE_LABEL = 255

#: Names of all labels that there may be.
MOST_NAMES = tuple(map(str, range(IGNORE_LABEL - 1)))

Record = dict[str, np.ndarray]

_LISTED = 5
_ABOUT_COLOURS = "; if its colours are the classes, write the number of each in its place"
_SAMPLED = 256


class UnreadableFileError(ValueError):
    """A file that cannot be decoded. The text names it.

    Args:
        path: the file.
        fault: string. What is wrong with it.
    """

    def __init__(self, path, fault):
        super().__init__(f"An image or map must be a readable file. Received: {path}: {fault}")
        self.path = str(path)
        self.fault = str(fault)

    def __reduce__(self):
        return type(self), (self.path, self.fault)


class Survey(NamedTuple):
    """Counts over all records of a source.

    Attributes:
        records: int.
        depth_pixels: int, missing ones included.
        missing_depth_pixels: int, depths that were not finite numbers above zero.
        label_pixels: int, ignored ones included.
        ignored_label_pixels: int.
        class_pixels: tuple of ints, one per class.
    """

    records: int
    depth_pixels: int
    missing_depth_pixels: int
    label_pixels: int
    ignored_label_pixels: int
    class_pixels: tuple[int, ...]


class ImageSource(abc.ABC):
    """Aligned maps of images with random access; grain and the Keras loaders take it as it is.

    `source[i]` is a dict with some of

    - `"rgb"`: `(H, W, 3)` uint8;
    - `"depth"`: `(H, W, 1)` float32, metres along the optical axis, NaN where missing;
    - `"semseg"`: `(H, W)` uint8 labels, 255 where there is none;
    - `"label"`: int64 scalar, the class of the whole image.

    Args:
        modalities: sequence of strings, the keys of every record.
        class_names: sequence of strings, the classes of `"semseg"`.
        label_names: sequence of strings, the classes of `"label"`.

    Attributes:
        modalities: tuple of strings.
        class_names: tuple of strings.
        label_names: tuple of strings.
        skipped: dict. Unreadable files that were left out, each with the reason.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        class_names: Sequence[str] = (),
        label_names: Sequence[str] = (),
    ):
        if len(class_names) >= IGNORE_LABEL:
            raise ValueError(
                f"`class_names` must be fewer than {IGNORE_LABEL}, the label of pixels without a "
                f"class. Received: {len(class_names)} names"
            )
        self.modalities = tuple(modalities)
        self.class_names = tuple(str(name) for name in class_names)
        self.label_names = tuple(str(name) for name in label_names)
        self.skipped: dict[str, str] = {}

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of records."""

    @abc.abstractmethod
    def read(self, index: int) -> Record:
        """Reads a record; `index` is in `range(len(self))`."""

    def stem(self, index: int) -> str:
        """The name of a record, under which maps of it are stored."""
        return f"{index:08d}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of the records: other images, maps or classes, another one.

        It is taken when it is first asked for.
        """
        names = [self.modalities, self.class_names, self.label_names, len(self)]
        digest = hashlib.sha256(json.dumps(names).encode())
        for part in self.content():
            digest.update(part)
        return digest.hexdigest()

    def content(self) -> Iterator[bytes | memoryview]:
        """Yields what the fingerprint is of: by default 256 records, spread evenly."""
        for index in spread(len(self), _SAMPLED):
            yield self.stem(index).encode()
            for name, array in self[index].items():
                yield f"{name} {array.dtype.str} {array.shape}".encode()
                yield array.tobytes()

    def __getitem__(self, index: SupportsIndex) -> Record:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"`index` must be below {len(self)}. Received: index={position}")
        return self.read(position % len(self))

    def survey(self) -> Survey:
        """Reads all records and counts missing depths and the pixels of the classes."""
        return add_surveys(
            (survey_record(self[index], len(self.class_names)) for index in range(len(self))),
            len(self.class_names),
        )


class DerivedImages(ImageSource):
    """A source that reads another one.

    Args:
        source: `ImageSource`.
        label_names: sequence of strings. By default those of the source.
    """

    def __init__(self, source: ImageSource, label_names: Sequence[str] | None = None):
        names = source.label_names if label_names is None else label_names
        super().__init__(source.modalities, source.class_names, names)
        self.skipped = source.skipped
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def stem(self, index: int) -> str:
        return self._source.stem(index)


class ImageSubset(DerivedImages):
    """Some of the records of a source.

    Args:
        source: `ImageSource`.
        indices: sequence of ints, the numbers of its records.

    Example:

    >>> from keras_taskrobust.vision.scenes import ProceduralScenes
    >>> len(ImageSubset(ProceduralScenes(10, 8, 8), range(0, 10, 5)))
    2
    """

    def __init__(self, source: ImageSource, indices: Sequence[int]):
        super().__init__(source)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Record:
        return self._source[self._indices[index]]

    def stem(self, index: int) -> str:
        return self._source.stem(self._indices[index])

    def content(self) -> Iterator[bytes | memoryview]:
        yield self._source.fingerprint.encode()
        yield np.asarray(self._indices, "int64").data


class RelabelledImages(DerivedImages):
    """A source whose images are labelled by the numbers of other names.

    A set with some of another's classes, such as ImageNet-A or ImageNet-R in folders of WordNet
    ids, gets that set's labels.

    Args:
        source: `ImageSource` with `"label"`.
        label_names: sequence of strings, the source's `label_names` among them.

    Raises:
        ValueError: the source has no labels, or other classes.

    Example:

    ```python
    images = RelabelledImages(ImageFolder("imagenet-a"), ImageFolder("imagenet/val").label_names)
    ```
    """

    def __init__(self, source: ImageSource, label_names: Sequence[str]):
        super().__init__(source, label_names)
        numbers = {name: number for number, name in enumerate(self.label_names)}
        unknown = [name for name in source.label_names if name not in numbers]
        if unknown or "label" not in source.modalities:
            raise ValueError(
                f"`source` must have labels out of the {len(numbers)} of `label_names` "
                f"({', '.join(self.label_names[:_LISTED])}, ...). Received: "
                + (f"also {', '.join(unknown[:_LISTED])}" if unknown else "no labels")
            )
        self._numbers = np.array([numbers[name] for name in source.label_names], "int64")

    def read(self, index: int) -> Record:
        record = self._source[index]
        return {**record, "label": np.asarray(self._numbers[record["label"]])}

    def content(self) -> Iterator[bytes | memoryview]:
        yield self._source.fingerprint.encode()
        yield self._numbers.data


def spread(number: int, most: int) -> list[int]:
    """At most so many of the numbers below `number`, at even distances."""
    return np.linspace(0, number - 1, min(number, most)).astype(int).tolist()


def survey_record(record: Mapping[str, np.ndarray], num_classes: int) -> Survey:
    """The counts of one record."""
    depth = record.get("depth", np.zeros(0))
    labels = record.get("semseg", np.zeros(0, "uint8"))
    counts = np.bincount(labels.ravel(), minlength=IGNORE_LABEL + 1)
    return Survey(
        records=1,
        depth_pixels=depth.size,
        missing_depth_pixels=int(np.isnan(depth).sum()),
        label_pixels=labels.size,
        ignored_label_pixels=int(counts[IGNORE_LABEL]),
        class_pixels=tuple(int(count) for count in counts[:num_classes]),
    )


def add_surveys(surveys: Iterable[Survey], num_classes: int) -> Survey:
    """The sum of counts."""
    totals = np.zeros(5 + num_classes, "int64")
    for survey in surveys:
        totals += (*survey[:5], *survey.class_pixels)
    records, depths, missing, labels, ignored, *classes = totals.tolist()
    return Survey(records, depths, missing, labels, ignored, tuple(classes))


def clean_depth(depth: np.ndarray) -> np.ndarray:
    """Brings depth into the form of a record: what is not a finite number above zero is missing.

    Args:
        depth: `(..., H, W)` numbers, metres.

    Returns:
        `(..., H, W, 1)` float32, NaN where missing.
    """
    depth = np.asarray(depth).astype("float32")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(depth) & (depth > 0)
    return np.where(known, depth, np.float32("nan"))[..., None]


def number_classes(class_pixels: Sequence[int], where: str | os.PathLike) -> tuple[str, ...]:
    """Names classes without names by their numbers, from 0 to the largest, and warns of it.

    Args:
        class_pixels: sequence of ints. How many pixels each label has.
        where: what the warning names, such as a path.

    Returns:
        tuple of strings.

    Raises:
        ValueError: no pixel has a label.
    """
    used = np.flatnonzero(class_pixels)
    if not used.size:
        raise ValueError(
            f"Label maps must have pixels with a class. Received: {where} with {IGNORE_LABEL}, no "
            "class, alone"
        )
    number = int(used[-1]) + 1
    warnings.warn(
        f"The labels in {where} have no names, and are called by their numbers: 0 to {number - 1}, "
        f"of which {len(used)} are in use. `class_names` names them.",
        stacklevel=4,
    )
    return MOST_NAMES[:number]


def clean_labels(labels: np.ndarray, num_classes: int, where: str | os.PathLike) -> np.ndarray:
    """Brings labels into the form of a record.

    Args:
        labels: integer array, 255 for pixels without a class.
        num_classes: int.
        where: what the text of an error names, such as a path.

    Returns:
        uint8 array.

    Raises:
        ValueError: if a label is neither below `num_classes` nor 255.
    """
    outside = (labels != IGNORE_LABEL) & ((labels < 0) | (labels >= num_classes))
    if outside.any():
        raise ValueError(
            f"Labels must be below {num_classes}, the number of classes, or {IGNORE_LABEL} for "
            f"pixels without one. Received: {np.unique(labels[outside])[:5].tolist()} in {where}"
            + _ABOUT_COLOURS
            * bool((labels > IGNORE_LABEL).any())
        )
    return labels.astype("uint8")


def check_sizes(record: Mapping[str, np.ndarray], where: str | os.PathLike) -> None:
    """Raises a `ValueError` if the maps of a record differ in size."""
    sizes = {name: record[name].shape[:2] for name in MAPS if name in record}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"All modalities of a record must have the same size. Received: {sizes} in {where}"
        )
