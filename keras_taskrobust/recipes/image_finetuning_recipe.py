"""The settings of fine-tuning on images, the paper's and small ones, and which images."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.recipes.image_data import ImageData, split_images, unused_of_images

if TYPE_CHECKING:
    from keras_taskrobust.vision import ImageSource

_CLASSIFICATION = ImageFineTuning(
    learning_rate=4e-3,
    epochs=100,
    warmup_epochs=5,
    layer_decay=0.65,
    rand_augment=9,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
)
_SEMSEG = ImageFineTuning(learning_rate=1e-4, epochs=100, warmup_epochs=20, layer_decay=0.75)
_DEPTH = ImageFineTuning(
    learning_rate=1e-4,
    batch_size=2048,
    epochs=2000,
    warmup_epochs=100,
    least_learning_rate=0.0,
    weight_decay=1e-4,
    layer_decay=0.75,
    drop_path=0.0,
    image_size=(256, 256),
)
SMALL = ImageFineTuning(
    learning_rate=1e-3,
    batch_size=32,
    epochs=20,
    warmup_epochs=2,
    max_steps=400,
    drop_path=0.0,
    image_size=None,
    head_width=32,
    least_crop=0.5,
    jitter=(0.5, 2.0),
    reports=5,
)
_TABLE = "Wang et al. 2023, fine-tuning table"
FINETUNING_RECIPES = {
    "imagenet-classification": (
        f"{_TABLE}, ImageNet-1K: RandAugment(9, 0.5) is Keras's, whose strengths are uniform up to "
        "9 of 10. Mixup, cutmix and label smoothing are not given there: MultiMAE's.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-classification": (
        f"{_TABLE}, ImageNetS-50: as imagenet-classification.",
        _CLASSIFICATION,
    ),
    "imagenet-s50-semseg": (
        f"{_TABLE}, ImageNetS-50. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-semseg": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's.",
        _SEMSEG,
    ),
    "nyuv2-depth": (
        f"{_TABLE}, NYUv2. Head and loss are not given there: MultiMAE's, whose augmentation is "
        "random crops, flips and changes of colour; here flips and large-scale jitter.",
        _DEPTH,
    ),
    "small": ("For models of a few layers: 1e-3, narrow heads, at most 400 steps.", SMALL),
}


@dataclasses.dataclass(frozen=True)
class TaskImages:
    """The images of downstream tasks."""

    data: str = "scenes"
    """Images: scenes, tfds:NAME, or the path of an .npz, of nyu_depth_v2_labeled.mat, of a folder
    with rgb/, depth/ and semseg/, or of a folder of one sub-folder per class."""
    split: str = "train"
    """Split to fine-tune on; folders have none."""
    held_out_split: str = "test"
    """Split to score on; folders have none. The same as `split`: a share of it is held out."""
    held_out_share: float = 0.2
    """Share of the images that is held out, if there are no splits."""
    scenes: int = 1_000
    """Procedural scenes to fine-tune on; a tenth as many others are held out."""
    num_classes: int | None = None
    """13 or 40 classes of NYU Depth v2; 13 in place of those of an .npz."""
    maps: str | None = None
    """Folder with the depth/ and semseg/ of the images of class folders and of TFDS."""
    tfds_dir: str | None = None
    """Folder of the prepared TFDS sets."""
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

    def unused(self) -> dict[str, str]:
        """The settings that change nothing under the others, and what they are for."""
        unused = unused_of_images(self.data, self.maps)
        if self.split == self.held_out_split:
            unused.pop("held_out_share", None)
        return unused

    def open(
        self, wanted: Sequence[str], image_size: tuple[int, int]
    ) -> "tuple[ImageSource, ImageSource]":
        """Opens the images.

        Args:
            wanted: the keys of records that are needed.
            image_size: `(height, width)` of procedural scenes.

        Returns:
            Those to fine-tune on, and those held out.

        Raises:
            ValueError: there are none as said, or they lack what is wanted.
        """
        fields = dataclasses.asdict(self)
        fields["data_dir"] = fields.pop("tfds_dir")
        images = ImageData(**fields, modalities=tuple(wanted), image_size=image_size)
        train, held_out = images.open_images()
        if self.split == self.held_out_split and len(train) == len(held_out):
            return split_images(train, self.held_out_share)
        return train, held_out
