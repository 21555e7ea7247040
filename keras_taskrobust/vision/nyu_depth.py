"""NYU Depth v2 from its official files."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from keras_taskrobust.vision.class_sets import NYU_13, NYU_13_OF_40, NYU_40
from keras_taskrobust.vision.image_source import (
    IGNORE_LABEL,
    MAPS,
    ImageSource,
    Record,
    UnreadableFileError,
    clean_depth,
    clean_labels,
)

_CLASS_NAMES = {13: NYU_13, 40: NYU_40}
_SPLITS = {"train": "trainNdxs", "test": "testNdxs"}
_SHAPES = "images (N, 3, W, H), depths (N, W, H) and labels (N, W, H)"


class NYUDepthV2(ImageSource):
    """The labelled part of NYU Depth v2: 1,449 images of 480 x 640 with depth and labels.

    Reads `nyu_depth_v2_labeled.mat` record by record. Its 894 raw classes are mapped to 40 by
    `classMapping40.mat`, and these to 13 in the usual way; pixels without a label are 255. The
    images keep the thin white frame they have in the file.

    Args:
        path: path of `nyu_depth_v2_labeled.mat`.
        split: `"train"` (795 images), `"test"` (654) or `"all"`.
        num_classes: 40 or 13.
        splits: path of `splits.mat`. By default beside the first file.
        class_mapping: path of `classMapping40.mat`. By default beside the first file.

    Raises:
        ValueError: if an argument or a file is not as said.

    Example:

    ```python
    source = NYUDepthV2("nyu_depth_v2_labeled.mat", split="train", num_classes=13)
    source[0]["depth"]  # (480, 640, 1) float32, metres
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = "train",
        num_classes: int = 40,
        splits: str | os.PathLike | None = None,
        class_mapping: str | os.PathLike | None = None,
    ):
        if num_classes not in _CLASS_NAMES:
            raise ValueError(f"`num_classes` must be 13 or 40. Received: {num_classes!r}")
        if split not in (*_SPLITS, "all"):
            raise ValueError(f"`split` must be 'train', 'test' or 'all'. Received: {split!r}")
        super().__init__(MAPS, class_names=_CLASS_NAMES[num_classes])
        self.path = Path(path)
        self._file: h5py.File | None = None
        number = self._check_file()
        folder = self.path.parent
        self._table = _read_class_table(
            Path(class_mapping or folder / "classMapping40.mat"), num_classes
        )
        if split == "all":
            self._images = np.arange(number)
        else:
            self._images = _read_split(Path(splits or folder / "splits.mat"), split, number)

    def __len__(self) -> int:
        return len(self._images)

    def stem(self, index: int) -> str:
        """The official number of an image, from 1."""
        return f"{self._images[index] + 1:08d}"

    def read(self, index: int) -> Record:
        image = int(self._images[index])
        where = f"image {image + 1} of {self.path}"
        # MATLAB's axes come out reversed: (H, W, 3, N) is (N, 3, W, H).
        rgb, depth, raw = (array.T for array in self._read_arrays(image, where))
        if raw.max() >= len(self._table):
            raise ValueError(
                f"Raw labels must be at most {len(self._table) - 1}, the number of classes that "
                f"`class_mapping` maps. Received: {raw.max()} in {where}"
            )
        return {
            "rgb": np.ascontiguousarray(rgb),
            "depth": clean_depth(depth),
            "semseg": clean_labels(self._table[raw], len(self.class_names), where),
        }

    def _read_arrays(self, image: int, where: str) -> list[np.ndarray]:
        file = self._open()
        try:
            return [np.asarray(file[name][image]) for name in ("images", "depths", "labels")]
        except (OSError, RuntimeError) as error:  # what HDF5 raises for damaged data
            raise UnreadableFileError(where, error) from error

    def content(self) -> Iterator[bytes | memoryview]:
        yield from (self._images.data, self._table.data)
        with self.path.open("rb") as file:
            yield hashlib.file_digest(file, "sha256").digest()

    def __getstate__(self):
        # An open HDF5 file does not travel to another process.
        return self.__dict__ | {"_file": None}

    def _open(self) -> h5py.File:
        if self._file is None:
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise ValueError(
                    "`path` must be the file nyu_depth_v2_labeled.mat, of MATLAB's format 7.3. "
                    f"Received: {str(self.path)!r}: {error}"
                ) from error
        return self._file

    def _check_file(self) -> int:
        """Returns the number of images."""
        file = self._open()
        shapes = {name: file[name].shape for name in ("images", "depths", "labels") if name in file}
        number, _, width, height = shapes.get("images", (0,) * 4)
        expected = {
            "images": (number, 3, width, height),
            "depths": (number, width, height),
            "labels": (number, width, height),
        }
        if shapes != expected or not number:
            raise ValueError(f"`path` must hold {_SHAPES}. Received: {shapes} in {self.path}")
        return number


def _read_class_table(path: Path, num_classes: int) -> np.ndarray:
    """The class of every raw label; that of 0, unlabelled, is 255."""
    of_raw = _load_matrix(path, "mapClass")
    if of_raw.size == 0 or of_raw.min() < 1 or of_raw.max() > len(NYU_40):
        raise ValueError(
            f"`mapClass` must hold the numbers 1 to {len(NYU_40)}. Received: {path} with "
            f"{np.unique(of_raw)[:5].tolist()} ..."
        )
    classes = of_raw - 1
    if num_classes == len(NYU_13):
        classes = np.array(NYU_13_OF_40)[classes]
    return np.concatenate([[IGNORE_LABEL], classes])


def _read_split(path: Path, split: str, number: int) -> np.ndarray:
    images = _load_matrix(path, _SPLITS[split]) - 1
    if images.size == 0 or images.min() < 0 or images.max() >= number:
        raise ValueError(
            f"`{_SPLITS[split]}` must hold image numbers from 1 to {number}. Received: {path} with "
            f"{len(images)} numbers up to {images.max(initial=-1) + 1}"
        )
    return images


def _load_matrix(path: Path, name: str) -> np.ndarray:
    """A flat int64 array from a .mat file of an older format than 7.3."""
    from scipy.io import loadmat

    try:
        contents = loadmat(path)
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise ValueError(f"The official {path.name} must be readable. Received: {error}") from error
    if name not in contents:
        names = sorted(key for key in contents if not key.startswith("__"))
        raise ValueError(f"{path} must hold `{name}`. Received: {names}")
    return contents[name].astype("int64").ravel()
