"""Which images a recipe reads, as flags."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_taskrobust import checks

if TYPE_CHECKING:
    from keras_taskrobust.vision import ImageSource

#: Bytes a pixel of a scene, and of all scenes that are kept in memory once rendered.
_SCENE_BYTES = 8
_MOST_KEPT = 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData:
    """Images with depth and labels, and those of them that are kept for evaluation."""

    data: str = "scenes"
    """Images: scenes, tfds:NAME, or the path of an .npz, of nyu_depth_v2_labeled.mat, of a folder
    with rgb/, depth/ and semseg/, or of a folder of one sub-folder per class."""
    modalities: tuple[str, ...] = ("rgb", "depth", "semseg")
    """Which maps of the images are used."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width, pixels, that the images are brought to."""
    split: str = "train"
    """Split to train on; folders have none."""
    held_out_split: str = "test"
    """Split to score and draw; folders have none, and `maps` are of one split."""
    held_out_share: float = 0.02
    """Share of the images that is kept to score and draw, if there are no splits."""
    scenes: int = 10_000
    """Procedural scenes to train on; a tenth as many others are held out."""
    maps: str | None = None
    """Folder with the depth/ and semseg/ of the images of class folders and of TFDS."""
    data_dir: str | None = None
    """Folder of the prepared TFDS sets."""
    num_classes: int | None = None
    """13 or 40 classes of NYU Depth v2; 13 in place of those of an .npz."""
    splits: str | None = None
    """NYU Depth v2's splits.mat; by default beside the images."""
    class_mapping: str | None = None
    """NYU Depth v2's classMapping40.mat; by default beside the images."""
    class_names: str | None = None
    """Text file of a class a line, for a folder of labels without a semseg.json."""
    depth_scale: float | None = None
    """Metres per unit of a folder's integer depth maps."""
    ignore_label: int | None = None
    """Label of a folder's pixels without a class: 1000 in ImageNet-S; by default 255."""
    verify: bool | None = None
    """Whether all files of a folder are read first, to find the unreadable ones; the default."""
    strict: bool = False
    """Refuse unreadable files instead of skipping them."""

    def __post_init__(self):
        checks.size("image_size", self.image_size)
        checks.distinct("modalities", self.modalities)
        checks.open_share("held_out_share", self.held_out_share)
        checks.integer("scenes", self.scenes, least=1)
        checks.integer_or_none("num_classes", self.num_classes, least=1)
        checks.integer_or_none("ignore_label", self.ignore_label, least=0)
        if self.depth_scale is not None:
            checks.positive("depth_scale", self.depth_scale)

    def unused(self) -> dict[str, str]:
        """The settings that change nothing under the others, and what they are for."""
        return unused_of_images(self.data, self.maps)

    def open_images(self) -> "tuple[ImageSource, ImageSource]":
        """Opens the images.

        Returns:
            Those for training, and those held out.

        Raises:
            ValueError: there are none as said, or a flag does not belong to them.
        """
        from keras_taskrobust.vision import ProceduralScenes, load_images
        from keras_taskrobust.vision.datasets import AlignedFolder
        from keras_taskrobust.vision.image_source import MAPS

        options = self._options()
        train = load_images(self.data, self.split, self.strict, **options)
        absent = [name for name in self.modalities if name not in train.modalities]
        if "label" in absent:
            raise ValueError(
                "Classification must have images with classes; procedural scenes and folders of "
                f"maps have no classes. Received: {self.data!r}, which has "
                f"{', '.join(train.modalities)}"
            )
        if absent or not self.modalities:
            raise ValueError(
                f"`modalities` must be some of {', '.join(MAPS)} that the images have: depth/ and "
                f"semseg/ in another folder are given as `maps`. Received: {self.modalities} for "
                f"{self.data!r}, which has {', '.join(train.modalities)}"
            )
        if isinstance(train, AlignedFolder) or self.maps is not None:
            return split_images(train, self.held_out_share)
        if isinstance(train, ProceduralScenes):
            options["number"] = max(self.scenes // 10, 1)
        return train, load_images(self.data, self.held_out_split, self.strict, **options)

    def _options(self) -> dict[str, Any]:
        """The given flags that only some sources have."""
        options = {
            name: getattr(self, name)
            for name in (
                "maps",
                "data_dir",
                "num_classes",
                "splits",
                "class_mapping",
                "depth_scale",
                "ignore_label",
                "verify",
            )
            if getattr(self, name) is not None
        }
        if self.class_names is not None:
            options["class_names"] = Path(self.class_names).read_text("utf-8").splitlines()
        if self.data == "scenes":
            height, width = self.image_size
            keep = self.scenes * height * width * _SCENE_BYTES < _MOST_KEPT
            options |= {"number": self.scenes, "height": height, "width": width, "keep": keep}
        return options


def unused_of_images(data: str, maps: str | None) -> dict[str, str]:
    """The settings of images that change nothing for a source, and what they are for.

    Args:
        data: as in `ImageData`.
        maps: as in `ImageData`.

    Returns:
        dict of names to what they are for.
    """
    is_folder, is_scenes = Path(data).is_dir(), data == "scenes"
    unused = {} if is_scenes else {"scenes": "`data` scenes"}
    if is_folder or is_scenes:
        unused |= dict.fromkeys(("split", "held_out_split"), "images with splits")
    if maps is not None:
        unused["held_out_split"] = "images without `maps`"
    if not is_folder:
        unused["strict"] = "a folder of images"
        if maps is None:
            unused["held_out_share"] = "images without splits"
    return unused


def split_images(source: "ImageSource", share: float) -> "tuple[ImageSource, ImageSource]":
    """Holds out records evenly over a source: the same ones every time.

    Args:
        source: `ImageSource`.
        share: float. Share of the records that is held out, at least one.

    Returns:
        The others, and those held out.

    Raises:
        ValueError: there are no others.
    """
    from keras_taskrobust.vision import ImageSubset

    number = len(source)
    held_out = {int(index / share) for index in range(int(number * share))} or {0}
    kept = [index for index in range(number) if index not in held_out]
    if not kept:
        raise ValueError(
            "A folder must have more images than the one that is held out. "
            f"Received: {number} images"
        )
    return ImageSubset(source, kept), ImageSubset(source, sorted(held_out))
