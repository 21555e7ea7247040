"""The settings of images: which they are, and MM-MAE's pre-training, the paper's and a tiny one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from keras_taskrobust import checks
from keras_taskrobust.map_folders import MAPS, split_folder
from keras_taskrobust.recipes.held_out_images import split_images
from keras_taskrobust.recipes.settings import Pretraining

if TYPE_CHECKING:
    from keras_taskrobust.vision import ImageSource

#: Bytes a pixel of a scene, and of all scenes that are kept in memory once rendered.
_SCENE_BYTES = 8
_MOST_KEPT = 10**9
#: Height and width of scenes that are opened and not rendered.
_SMALL = (32, 32)
#: The settings that only some sources of images have.
_OF_SOME_SOURCES = (
    "maps",
    "num_classes",
    "splits",
    "class_mapping",
    "depth_scale",
    "ignore_label",
)


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Which images, and those of them that are kept for evaluation."""

    data: str = "scenes"
    """Images: scenes, tfds:NAME, or the path of an .npz, of nyu_depth_v2_labeled.mat, of a folder
    with rgb/, depth/ and semseg/, or of a folder of one sub-folder per class."""
    split: str = "train"
    """Split to train on. Of a folder: train/ with rgb/, depth/ and semseg/, if it has splits."""
    held_out_split: str = "test"
    """Split to score on. The same as `split`: a share of it is held out."""
    held_out_share: float = 0.2
    """Share of the images that is held out, if there are no splits; at least 30 of them, or a
    fifth of fewer than 150."""
    scenes: int = 1_000
    """Procedural scenes to train on; a tenth as many others are held out."""
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
    """Text file of a class a line, for a folder of labels without a semseg.json. Without either
    they are called by their numbers."""
    depth_scale: float | None = None
    """Metres per unit of a folder's integer depth maps."""
    ignore_label: int | None = None
    """Label of a folder's pixels without a class: 1000 in ImageNet-S; by default 255."""

    def __post_init__(self):
        checks.open_share("held_out_share", self.held_out_share)
        checks.integer("scenes", self.scenes, least=1)
        checks.integer_or_none("num_classes", self.num_classes, least=1)
        checks.integer_or_none("ignore_label", self.ignore_label, least=0)
        if self.depth_scale is not None:
            checks.positive("depth_scale", self.depth_scale)

    def unused(self) -> dict[str, str]:
        """The settings that change nothing under the others, and what they are for."""
        is_folder, is_scenes = self._is_one_folder(), self.data == "scenes"
        unused = {} if is_scenes else {"scenes": "`data` scenes"}
        if is_folder or is_scenes:
            unused |= dict.fromkeys(("split", "held_out_split"), "images with splits")
        if self.maps is not None:
            unused["held_out_split"] = "images without `maps`"
        elif not is_folder and self.split != self.held_out_split:
            unused["held_out_share"] = "images without splits"
        return unused

    def open(
        self, wanted: Sequence[str], image_size: tuple[int, int], **options: Any
    ) -> "tuple[ImageSource, ImageSource]":
        """Opens the images.

        Args:
            wanted: the keys of records that are needed.
            image_size: `(height, width)` of procedural scenes.
            **options: more arguments of `load_images`; those that are `None` are left out.

        Returns:
            Those to train on, and those held out.

        Raises:
            ValueError: there are none as said, they lack a modality, or a setting does not belong
                to them.
        """
        from keras_taskrobust.vision import ProceduralScenes, load_images
        from keras_taskrobust.vision.datasets import AlignedFolder

        options = self._options(image_size, options)
        train = load_images(self.data, self.split, **options)
        _check_modalities(train, wanted, self.data)
        if isinstance(train, ProceduralScenes):
            options["number"] = max(self.scenes // 10, 1)
        elif self._is_one_folder() or self.maps is not None or self.split == self.held_out_split:
            return split_images(train, self.held_out_share)
        elif isinstance(train, AlignedFolder):
            options["class_names"] = train.class_names
        return train, load_images(self.data, self.held_out_split, **options)

    def check(self, wanted: Sequence[str]) -> None:
        """Refuses what `open` would, as far as it is known without reading all images.

        Args:
            wanted: the keys of records that are needed.

        Raises:
            ValueError: as for `open`.
        """
        from keras_taskrobust.vision.image_source import MOST_NAMES

        is_folder = Path(self.data).is_dir()
        unread = {"verify": False, "class_names": MOST_NAMES} if is_folder else {}
        self.open(wanted, _SMALL, **unread)

    def _is_one_folder(self) -> bool:
        """Whether the images are a folder without splits."""
        path = Path(self.data)
        return path.is_dir() and split_folder(path, self.split) is None

    def _options(self, image_size: tuple[int, int], options: dict[str, Any]) -> dict[str, Any]:
        """The given settings that only some sources have."""
        options |= {name: getattr(self, name) for name in _OF_SOME_SOURCES}
        options["data_dir"] = self.tfds_dir
        options = {name: value for name, value in options.items() if value is not None}
        if self.class_names is not None:
            options["class_names"] = Path(self.class_names).read_text("utf-8").splitlines()
        if self.data == "scenes":
            height, width = image_size
            keep = self.scenes * height * width * _SCENE_BYTES < _MOST_KEPT
            options |= {"number": self.scenes, "height": height, "width": width, "keep": keep}
        return options


def _check_modalities(images: "ImageSource", wanted: Sequence[str], data: str) -> None:
    absent = [name for name in wanted if name not in images.modalities]
    if "label" in absent:
        raise ValueError(
            "Classification must have images with classes; procedural scenes and folders of "
            f"maps have no classes. Received: {data!r}, which has {', '.join(images.modalities)}"
        )
    if absent:
        raise ValueError(
            f"`modalities` must be some of {', '.join(MAPS)} that the images have: depth/ and "
            f"semseg/ in another folder are given as `maps`. Received: {tuple(wanted)} for "
            f"{data!r}, which has {', '.join(images.modalities)}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePretraining(ImageData, Pretraining):
    """Pre-trains an MM-MAE on images with depth and labels, to a KerasHub preset of its ViT."""

    RENAMED: ClassVar[Mapping[str, str]] = {"data_dir": "tfds_dir"}
    CUT = ("num_heads", "mlp_dim", "decoder_dim")
    SECTIONS: ClassVar[Mapping[str, str]] = {
        "data": "images",
        "epochs": "training",
        "patch_size": "masking",
        "num_layers": "model",
        "pictures": "run",
    }

    held_out_share: float = 0.02
    """Share of the images that is kept to score and draw, if there are no splits; at least 30 of
    them, or a fifth of fewer than 150."""
    scenes: int = 10_000
    """Procedural scenes to train on; a tenth as many others are held out."""
    modalities: tuple[str, ...] = MAPS
    """Which maps of the images are used; those that they lack are left out."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width, pixels, that the images are brought to."""
    verify: bool | None = None
    """Whether all files of a folder are read first, to find the unreadable ones; the default."""
    strict: bool = False
    """Refuse unreadable files instead of skipping them."""

    epochs: int | None = None
    """Passes over the images. If given, they set `steps`, rounded up to whole reports."""
    warmup_epochs: int = 0
    """Of `epochs`, those over which the learning rate rises: they set `warmup_steps`."""
    least_learning_rate: float = 1e-6
    """Learning rate at the end of the cosine decay."""
    beta_1: float = 0.9
    """AdamW's first beta."""

    patch_size: int = 16
    """Pixels of a patch's side."""
    visible_tokens: int = 98
    """Patches of all modalities together that the encoder sees."""
    visible_concentration: float = 1.0
    """Concentration of the Dirichlet distribution that shares them out over the modalities."""
    semseg_stride: int = 4
    """Image pixels per pixel of the label maps."""
    normalized_twin: bool = False
    """A further task: RGB normalised patch by patch, as in the reference MultiMAE."""

    num_layers: int = 12
    """Transformer layers of the encoder."""
    num_heads: int = 12
    """Its attention heads."""
    hidden_dim: int = 768
    """Its width."""
    mlp_dim: int = 3072
    """Width of its feed-forward layers."""
    encoder_norm: bool = False
    """Whether the encoder ends in a normalisation. The reference MultiMAE's has none."""
    decoder_dim: int = 256
    """Width of the decoders."""
    decoder_depth: int = 2
    """Self-attention blocks of each decoder."""
    decoder_heads: int = 8
    """Attention heads of the decoders."""
    class_embedding_dim: int = 64
    """Width of the embedding of labels."""

    pictures: int = 6
    """Held-out images drawn with their reconstructions."""

    def __post_init__(self):
        ImageData.__post_init__(self)
        Pretraining.__post_init__(self)
        checks.size("image_size", self.image_size)
        checks.distinct("modalities", self.modalities)
        if not set(self.modalities) <= set(MAPS):
            raise ValueError(
                f"`modalities` must be some of {', '.join(MAPS)}. "
                f"Received: {', '.join(self.modalities)}"
            )
        checks.integers(self, ("patch_size", "visible_tokens", "semseg_stride", "pictures"))
        checks.integers(self, ("num_layers", "num_heads", "hidden_dim", "mlp_dim"))
        checks.integers(self, ("decoder_dim", "decoder_heads", "class_embedding_dim"))
        checks.integers(self, ("decoder_depth", "warmup_epochs"), least=0)
        checks.integer_or_none("epochs", self.epochs, least=1)
        checks.integer_or_none("workers", self.workers, least=0)
        checks.positive("visible_concentration", self.visible_concentration)
        checks.nonnegative("least_learning_rate", self.least_learning_rate)
        checks.share("beta_1", self.beta_1)
        checks.multiple("hidden_dim", self.hidden_dim, "num_heads", self.num_heads)
        checks.multiple("decoder_dim", self.decoder_dim, "decoder_heads", self.decoder_heads)
        self._check_patches()

    def unused(self) -> dict[str, str]:
        unused = super().unused()
        if not Path(self.data).is_dir():
            unused["strict"] = "a folder of images"
        if self.epochs is None:
            unused["warmup_epochs"] = "training by `epochs`"
        else:
            unused |= dict.fromkeys(("steps", "warmup_steps"), "training without `epochs`")
        if "semseg" not in self.modalities:
            unused |= dict.fromkeys(("semseg_stride", "class_embedding_dim"), "the modality semseg")
        return unused

    @property
    def images(self) -> ImageData:
        """Which images, without the other settings."""
        names = [field.name for field in dataclasses.fields(ImageData)]
        return ImageData(**{name: getattr(self, name) for name in names})

    def _check_patches(self):
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                "`image_size` must have multiples of `patch_size`. "
                f"Received: image_size={self.image_size}, patch_size={self.patch_size}"
            )
        if "semseg" in self.modalities:
            checks.multiple("patch_size", self.patch_size, "semseg_stride", self.semseg_stride)
        if self.normalized_twin and "rgb" not in self.modalities:
            raise ValueError(
                "`normalized_twin` is a task of the modality rgb. "
                f"Received: normalized_twin=True, modalities={self.modalities}"
            )

    def with_modalities(self, found: Sequence[str]) -> Self:
        """The same settings with those of `modalities` that the images have.

        Args:
            found: the keys of their records.

        Raises:
            ValueError: there are none, or one where several were asked for: one task needs no
                weighing.
        """
        present = tuple(name for name in self.modalities if name in found)
        if present == self.modalities:
            return self
        if len(present) < 2:
            raise ValueError(
                f"`modalities` must be two or more that the images have, or the one that is "
                f"wanted. In a folder they are {', '.join(f'{name}/' for name in MAPS)}; those in "
                f"another folder are given as `maps`. Received: {', '.join(self.modalities)} for "
                f"{self.data!r}, which has {', '.join(found)}"
            )
        return dataclasses.replace(self, modalities=present)

    def with_steps(self, records: int) -> Self:
        """The same settings with `epochs` turned into steps."""
        if self.epochs is None:
            return self
        reports = -(-self.epochs * records // (self.batch_size * self.steps_per_report))
        return dataclasses.replace(
            self,
            epochs=None,
            steps=reports * self.steps_per_report,
            warmup_steps=self.warmup_epochs * records // self.batch_size,
        )


#: Table 6 of Wang et al. 2023. It leaves out the decoders, the size of the label maps, the
#: concentration and the encoder's end: these are MultiMAE's. `alpha` is ours.
PAPER = ImagePretraining(
    warmup_epochs=40,
    batch_size=2048,
    steps=25_200,
    warmup_steps=1_258,
    peak_learning_rate=8e-4,
    weight_decay=0.05,
    beta_2=0.95,
    epsilon=1e-8,
    steps_per_report=100,
    dtype_policy="auto",
)
TINY = dataclasses.replace(
    PAPER,
    dtype_policy="float32",
    image_size=(64, 64),
    scenes=1_920,
    warmup_epochs=0,
    batch_size=32,
    steps=600,
    warmup_steps=60,
    peak_learning_rate=2e-3,
    steps_per_report=10,
    patch_size=8,
    visible_tokens=32,
    semseg_stride=2,
    num_layers=4,
    num_heads=4,
    hidden_dim=128,
    mlp_dim=512,
    decoder_dim=64,
    decoder_depth=1,
    decoder_heads=4,
    class_embedding_dim=16,
    workers=0,
)
RECIPES = {
    "mm-mae-base": (
        "Wang et al. 2023, Table 6: ViT-B/16, 98 visible tokens, batch 2048, the steps of 800 "
        "epochs of ImageNet-S50; for ImageNet-1K give --epochs 400 or 1600. Its balancings are "
        "--weighting uniform, uncertainty, gradnorm, dwa and minimax. alpha, the decoders and the "
        "label maps' size are not given there: MultiMAE's, and ours.",
        PAPER,
    ),
    "mm-mae-tiny": ("4 layers of 128 on 64 x 64 pixels: minutes on two CPU cores.", TINY),
}
