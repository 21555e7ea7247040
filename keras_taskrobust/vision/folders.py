"""Folders of images with depth and label maps beside them."""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_taskrobust.map_folders import MAPS
from keras_taskrobust.plain_text import listed_faults
from keras_taskrobust.vision.image_source import (
    IGNORE_LABEL,
    MOST_NAMES,
    ImageSource,
    Record,
    Survey,
    UnreadableFileError,
    add_surveys,
    check_sizes,
    clean_labels,
    number_classes,
    spread,
    survey_record,
)
from keras_taskrobust.vision.map_files import IMAGE_SUFFIXES, read_depth, read_labels, read_rgb

#: Metres per unit of integer depth maps that come with no description: millimetres.
DEPTH_SCALE = 0.001

_LISTED = 5
_CHUNK = 1024
_WHOLE = 4096


class AlignedFolder(ImageSource):
    """Images, depth and labels in folders of files with the same stems.

    `root/rgb/kitchen/01.jpg`, `root/depth/kitchen/01.png` and `root/semseg/kitchen/01.npy` are
    the maps of one record; its stem is `kitchen/01`. Files are .png, .jpg, .jpeg, .webp, .bmp,
    .tif, .tiff or .npy. Integer depth (16-bit PNG) is multiplied by `depth_scale`, floating-point
    depth is in metres; what is not a finite number above zero is missing. Label maps have one
    channel or a palette; of a map with three, red + 256 * green is the label.

    `depth.json` and `semseg.json` beside the folders of maps, which `write_pseudo_labels` writes,
    say the depth's scale and the names of the classes.

    Args:
        root: path of a folder with `rgb/`, `depth/` and `semseg/`, or some of them; or a dict of
            these names to paths, for folders in other places.
        class_names: sequence of strings, the classes of the labels. By default those that
            `semseg.json` names, or numbers from 0 to the largest label, with a warning.
        depth_scale: float, metres per unit of integer depth maps. By default that of `depth.json`,
            or 0.001.
        ignore_label: int, the label of pixels without a class; it is delivered as 255.
        verify: bool. Whether to read all files now, with several threads, to find those that are
            unreadable, the labels outside of the classes and the missing depths (`counts`). For
            large sets which are known to be sound: without it, a bad file raises when it is read.
        strict: bool. Whether to refuse unreadable files. By default their records are skipped,
            with one warning, and the files listed in `skipped`.

    Attributes:
        counts: `Survey` of what was read by `verify`; `None` without.
        depth_kind: `"metric"`, or what `depth.json` says: `"relative inverse"` for pseudo-depth
            that is larger where it is nearer.

    Raises:
        ValueError: if there are no files, stems do not match, sizes differ, labels are outside of
            the classes, or (if `strict`) a file cannot be read. The text names the files.
    """

    def __init__(
        self,
        root: str | os.PathLike | Mapping[str, str | os.PathLike],
        class_names: Sequence[str] | None = None,
        depth_scale: float | None = None,
        ignore_label: int = IGNORE_LABEL,
        verify: bool = True,
        strict: bool = False,
    ):
        folders = find_map_folders(root)
        depth, semseg = (_description_of(folders, name) for name in ("depth", "semseg"))
        names = semseg.get("class_names") if class_names is None else class_names
        is_nameless = "semseg" in folders and not names
        if is_nameless and not verify:
            raise ValueError(
                "`class_names` must be given for labels that are not read first (`verify`) and "
                "have no `semseg.json` beside their folder. Received: "
                f"class_names={class_names} for {folders['semseg']}"
            )
        super().__init__(tuple(folders), class_names=MOST_NAMES if is_nameless else names or ())
        self.depth_kind = depth.get("kind", "metric")
        self._depth_scale = depth.get("scale", DEPTH_SCALE) if depth_scale is None else depth_scale
        self._ignore_label = ignore_label
        self._folders = folders
        self._suffixes = {name: find_images(folder) for name, folder in folders.items()}
        self._stems = _match_stems(self._suffixes, folders)
        self.counts = self._verify(strict) if verify else None
        if is_nameless and self.counts is not None:
            self.class_names = number_classes(self.counts.class_pixels, folders["semseg"])
            self.counts = self.counts._replace(
                class_pixels=self.counts.class_pixels[: len(self.class_names)]
            )

    def __len__(self) -> int:
        return len(self._stems)

    def stem(self, index: int) -> str:
        return self._stems[index]

    def read(self, index: int) -> Record:
        record: Record = {}
        stem = self._stems[index]
        for name, suffixes in self._suffixes.items():
            record[name] = self._read_map(name, self._folders[name] / (stem + suffixes[stem]))
        check_sizes(record, f"{stem!r} of {[str(folder) for folder in self._folders.values()]}")
        return record

    def content(self) -> Iterator[bytes | memoryview]:
        """Yields names and sizes of all files, and some thousand of them whole."""
        yield f"{self._depth_scale} {self._ignore_label}".encode()
        whole = set(spread(len(self), _WHOLE))
        for index, stem in enumerate(self._stems):
            for name, suffixes in self._suffixes.items():
                path = os.path.join(self._folders[name], stem + suffixes[stem])
                yield f"{name} {stem} {os.stat(path).st_size}".encode()
                if index in whole:
                    yield Path(path).read_bytes()

    def _read_map(self, name, path):
        if name == "rgb":
            return read_rgb(path)
        if name == "depth":
            return read_depth(path, self._depth_scale)
        return clean_labels(read_labels(path, self._ignore_label), len(self.class_names), path)

    def _verify(self, strict: bool) -> Survey:
        sound, surveys = [], []
        number = len(self)
        with ThreadPoolExecutor() as pool:
            for start in range(0, number, _CHUNK):
                indices = range(start, min(start + _CHUNK, number))
                for index, found in zip(indices, pool.map(self._survey_one, indices), strict=True):
                    if isinstance(found, Survey):
                        sound.append(self._stems[index])
                        surveys.append(found)
                    else:
                        self.skipped[found.path] = found.fault
        if self.skipped:
            _report_unreadable(self.skipped, number, strict or not sound)
        self._stems = sound
        return add_surveys(surveys, len(self.class_names))

    def _survey_one(self, index: int) -> Survey | UnreadableFileError:
        try:
            return survey_record(AlignedFolder.read(self, index), len(self.class_names))
        except UnreadableFileError as error:
            return error


class ImageFolder(AlignedFolder):
    """Images in one sub-folder per class, as ImageNet-1K and ImageNet-S have them.

    The records have a `"label"`, the number of the sub-folder in the order of their names
    (`label_names`), and depth and labels of pixels if `maps` is given.

    Args:
        root: path of the folder of classes, such as `train` with `n01440764/*.JPEG` in it.
        maps: path of a folder with `depth/`, `semseg/` or both, in which the maps of
            `n01440764/picture.JPEG` are called `n01440764/picture.png`: what `write_pseudo_labels`
            writes. Or a dict of these names to paths.
        class_names: see `AlignedFolder`, as for the arguments that follow.
        depth_scale: float.
        ignore_label: int. 1000 in ImageNet-S.
        verify: bool.
        strict: bool.

    Attributes:
        label_names: tuple of strings, the names of the sub-folders.

    Raises:
        ValueError: as `AlignedFolder`, and if there are images outside of the sub-folders.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        maps: str | os.PathLike | Mapping[str, str | os.PathLike] | None = None,
        class_names: Sequence[str] | None = None,
        depth_scale: float | None = None,
        ignore_label: int = IGNORE_LABEL,
        verify: bool = True,
        strict: bool = False,
    ):
        folders = {"rgb": Path(root)}
        if maps is not None:
            folders |= {k: v for k, v in find_map_folders(maps).items() if k != "rgb"}
        super().__init__(folders, class_names, depth_scale, ignore_label, verify, strict)
        loose = [stem for stem in self._suffixes["rgb"] if "/" not in stem]
        if loose:
            raise ValueError(
                "`root` must be a folder of one sub-folder per class. Received: "
                f"{str(root)!r} with the images {loose[:_LISTED]} outside of sub-folders"
            )
        self.modalities = (*self.modalities, "label")
        # All sub-folders, not those with readable images only: the numbers must not move.
        self.label_names = tuple(sorted({_first_folder(stem) for stem in self._suffixes["rgb"]}))
        self._numbers = {name: number for number, name in enumerate(self.label_names)}

    def read(self, index: int) -> Record:
        label = np.int64(self._numbers[_first_folder(self._stems[index])])
        return super().read(index) | {"label": np.asarray(label)}


def find_map_folders(
    root: str | os.PathLike | Mapping[str, str | os.PathLike],
) -> dict[str, Path]:
    """Finds the folders of the maps.

    Args:
        root: path of a folder with `rgb/`, `depth/` and `semseg/`, or some of them, or a dict of
            these names to paths.

    Returns:
        dict of names, in this order, to paths.

    Raises:
        ValueError: if there is none, a name is unknown, or a path is not a folder.
    """
    if isinstance(root, Mapping):
        unknown = sorted(set(root) - set(MAPS))
        if unknown or not root:
            raise ValueError(
                f"`root` must be a dict with keys among {MAPS}. Received: {dict(root)}"
            )
        folders = {name: Path(root[name]) for name in MAPS if name in root}
    else:
        folders = {name: Path(root, name) for name in MAPS if Path(root, name).is_dir()}
    absent = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if absent or not folders:
        raise ValueError(
            "`root` must be a folder with some of `rgb/`, `depth/` and `semseg/`, or a dict of "
            f"these names to folders. Received: {absent or str(root)!r}"
        )
    return folders


def find_images(folder: Path) -> dict[str, str]:
    """Finds the images in a folder and its sub-folders, but for hidden files.

    Args:
        folder: path.

    Returns:
        dict of stems (paths from the folder, with "/", without the suffix) to suffixes, sorted.

    Raises:
        ValueError: if there are none, or two differ in their suffixes only.
    """
    found: dict[str, str] = {}
    twice: list[str] = []
    for parent, _, names in os.walk(folder, followlinks=True):
        prefix = Path(parent).relative_to(folder).as_posix()
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                stem = stem if prefix == "." else f"{prefix}/{stem}"
                if stem in found:
                    twice.append(stem)
                found[stem] = sys.intern(suffix)
    if twice or not found:
        raise ValueError(
            f"A folder of images must have files ({', '.join(IMAGE_SUFFIXES)}) with different "
            "stems: by themselves, in rgb/, depth/ and semseg/ with the same stem for the same "
            f"image, or in a sub-folder for each class. Received: {str(folder)!r} with "
            + (f"more than one file of {sorted(twice)[:_LISTED]}" if twice else "none")
        )
    return dict(sorted(found.items()))


def description_path(folder: Path) -> Path:
    """The file that describes a folder of maps: `depth.json` beside `depth/`."""
    return folder.with_name(f"{folder.name}.json")


def read_description(path: Path) -> dict:
    """Reads what is written about a folder of maps.

    Args:
        path: as `description_path` says.

    Returns:
        dict.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        return {**json.loads(path.read_text("utf-8"))}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"A description of maps must be a JSON object. Received: {path}: {error}; remove it if "
            "it is not that of the maps beside it"
        ) from error


def _description_of(folders: Mapping[str, Path], name: str) -> dict:
    path = description_path(folders[name]) if name in folders else None
    return read_description(path) if path is not None and path.is_file() else {}


def _match_stems(
    suffixes: Mapping[str, Mapping[str, str]], folders: Mapping[str, Path]
) -> list[str]:
    """The stems that all folders have; a `ValueError` if they differ."""
    (first, stems), *others = suffixes.items()
    for name, other in others:
        faults = [
            f"{len(lonely)} only in {str(folders[owner])!r}: {sorted(lonely)[:_LISTED]}"
            for owner, lonely in (
                (first, stems.keys() - other.keys()),
                (name, other.keys() - stems.keys()),
            )
            if lonely
        ]
        if faults:
            raise ValueError(
                "The files of all modalities must have the same stems. Received: "
                + "; ".join(faults)
            )
    return list(stems)


def _first_folder(stem: str) -> str:
    return stem.split("/", 1)[0]


def _report_unreadable(skipped, number, refuse):
    faults = listed_faults(skipped)
    if refuse:
        raise ValueError(
            f"All images and maps must be readable. Received: {len(skipped)} of {number} records "
            f"with an unreadable file: {faults}"
        )
    warnings.warn(
        f"{len(skipped)} of {number} records are skipped, for a file is unreadable: {faults}",
        stacklevel=4,
    )
