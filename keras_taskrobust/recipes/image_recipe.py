"""The settings of MM-MAE's pre-training: the paper's, and a tiny version."""

import dataclasses

from keras_taskrobust import checks
from keras_taskrobust.recipes.image_data import ImageData
from keras_taskrobust.recipes.pretraining_recipe import Pretraining


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagePretraining(ImageData, Pretraining):
    """Pre-trains an MM-MAE on images with depth and labels, to a KerasHub preset of its ViT."""

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
        if self.epochs is None:
            unused["warmup_epochs"] = "training by `epochs`"
        else:
            unused |= dict.fromkeys(("steps", "warmup_steps"), "training without `epochs`")
        if "semseg" not in self.modalities:
            unused |= dict.fromkeys(("semseg_stride", "class_embedding_dim"), "the modality semseg")
        return unused

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

    def with_steps(self, images: int) -> "ImagePretraining":
        """The same settings with `epochs` turned into steps.

        Args:
            images: int, those to train on.

        Returns:
            `ImagePretraining` without `epochs`.
        """
        if self.epochs is None:
            return self
        reports = -(-self.epochs * images // (self.batch_size * self.steps_per_report))
        return dataclasses.replace(
            self,
            epochs=None,
            steps=reports * self.steps_per_report,
            warmup_steps=self.warmup_epochs * images // self.batch_size,
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
)
TINY = dataclasses.replace(
    PAPER,
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
