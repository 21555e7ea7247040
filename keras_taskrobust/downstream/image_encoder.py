"""The pre-trained encoder of images, as fine-tuning takes it: all tokens, features of any block."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_taskrobust.downstream.preset_files import find_preset, wrong_preset
from keras_taskrobust.plain_text import one_line
from keras_taskrobust.vision import Modality, MultiModalMAE
from keras_taskrobust.vision.augmentation import RGB_DEVIATION, RGB_MEAN
from keras_taskrobust.vision.network import MultiModalNetwork
from keras_taskrobust.vision.patches import resize_positions

_RGB = Modality("rgb", channels=3)
_WANTED = (
    "the folder of a run, its model.keras or its preset, or the folder, name or URI (hf://...) of "
    "a KerasHub ViT"
)
_OPENING_FAILURES = (ValueError, TypeError, LookupError, OSError)


class Features(NamedTuple):
    """What the encoder makes of a batch.

    Attributes:
        blocks: list of `(B, rows, columns, M * D)`, the patch tokens after each hooked block, those
            of the M modalities side by side. The last is the encoder's output.
        tokens: `(B, T, D)`, all output tokens, the global one last if there is one.
    """

    blocks: list
    tokens: Any


class ImageEncoder(keras.layers.Layer):
    """Encodes all patches of some modalities.

    The weights are a copy of the given model's. Position tables are interpolated (bicubic) where
    the image size differs; those of an MM-MAE stay fixed, that of a ViT is trained.

    Args:
        source: `MultiModalMAE` or `keras_hub.models.ViTBackbone`.
        modalities: sequence of strings, what it sees of an image. A ViT sees `("rgb",)`.
        image_size: `(height, width)`, multiples of the patch's; by default the source's.
        drop_path: float, the chance that a residual of the last block is left out of a sample,
            in training; it rises linearly from 0 in the first block.
        hooks: sequence of ints, the blocks whose tokens are delivered; by default the last alone.
        rescaling: factor and offset `(3,)` that turn RGB as `normalize_rgb` makes it into what
            the source was trained on; by default that is the same.

    Call arguments:
        inputs: `{modality: maps}`.

    Returns:
        `Features`.

    Raises:
        ValueError: the source does not know a modality, or the size is no multiple.

    Example:

    >>> vit = keras_hub.models.ViTBackbone((16, 24, 3), 8, 2, 2, 12, 24)
    >>> encoder = ImageEncoder(vit, drop_path=0.1)
    >>> features = encoder({"rgb": np.zeros((1, 16, 24, 3), "float32")})
    >>> tuple(features.blocks[-1].shape), tuple(features.tokens.shape)
    ((1, 2, 3, 12), (1, 7, 12))

    Reference:
        [Deep Networks with Stochastic Depth](https://arxiv.org/abs/1603.09382).
    """

    def __init__(
        self,
        source: Any,
        modalities: Sequence[str] = ("rgb",),
        image_size: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        hooks: Sequence[int] = (-1,),
        rescaling: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        super().__init__(dtype=source.dtype_policy, name="image_encoder")
        self.network = _copied_network(source, tuple(modalities), image_size)
        self.num_layers = len(self.blocks)
        self.hooks = tuple(hook % self.num_layers for hook in hooks)
        rates = np.linspace(0, drop_path, self.num_layers).tolist()
        self.drop_paths = [
            keras.layers.Dropout(rate, noise_shape=(None, 1, 1), dtype=self.dtype_policy)
            for rate in rates
        ]
        self.rescaling = rescaling
        self.built = True

    @property
    def backbone(self):
        """The `keras_hub.models.ViTBackbone` with the blocks."""
        return self.network.backbone

    @property
    def blocks(self) -> list:
        """The transformer blocks, first to last."""
        return self.backbone.get_layer("vit_encoder").encoder_layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.network.grid

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return tuple(self.backbone.image_shape[:2])

    @property
    def feature_dim(self) -> int:
        """Channels of `Features.blocks`."""
        return len(self.network.modalities) * self.backbone.hidden_dim

    def enable_lora(self, rank: int) -> None:
        """Trains low-rank changes of the attention's queries and values in place of the weights."""
        for embedding in self.network.embeddings.values():
            embedding.trainable = False
        self.backbone.enable_lora(rank)

    def call(self, inputs, training=None):
        network = self.network
        encoder = self.backbone.get_layer("vit_encoder")
        if self.rescaling is not None:
            factor, offset = self.rescaling
            rgb = ops.add(ops.multiply(inputs["rgb"], factor), offset)
            inputs = {**inputs, "rgb": rgb}
        tokens, _ = network.embed(inputs)
        x = encoder.dropout(network.add_global_token(tokens), training=training)
        outputs = {}
        for index, (block, drop_path) in enumerate(zip(self.blocks, self.drop_paths, strict=True)):
            x = _call_block(block, x, drop_path, training)
            outputs[index] = x
        if network.encoder_norm:
            outputs[self.num_layers - 1] = x = encoder.layer_norm(x)
        return Features([self._to_map(outputs[hook]) for hook in self.hooks], x)

    def _to_map(self, tokens):
        """`(B, T, D)` to `(B, rows, columns, M * D)`, the global token left out."""
        modalities, (rows, columns) = len(self.network.modalities), self.grid
        dim = tokens.shape[-1]
        patches = tokens[:, : modalities * rows * columns]
        split = ops.reshape(patches, (-1, modalities, rows, columns, dim))
        ordered = ops.transpose(split, (0, 2, 3, 1, 4))
        return ops.reshape(ordered, (-1, rows, columns, modalities * dim))


class OpenedModel(NamedTuple):
    """A pre-trained model of images.

    Attributes:
        model: `MultiModalMAE` or `keras_hub.models.ViTBackbone`.
        rescaling: as for `ImageEncoder`.
    """

    model: Any
    rescaling: tuple[np.ndarray, np.ndarray] | None


def open_image_model(
    preset: str, dtype_policy: str = "float32", from_scratch: bool = False
) -> OpenedModel:
    """Opens a pre-trained model of images.

    Args:
        preset: string. The folder of a run, its `model.keras` or its preset, or folder, name or
            URI (`hf://...`) of a KerasHub ViT preset, whose own normalisation of images is kept.
        dtype_policy: string. Keras's dtype policy.
        from_scratch: bool. Whether it gets new random weights.

    Returns:
        `OpenedModel`.

    Raises:
        ValueError: there is no such model.
    """
    found = find_image_model(preset)
    path = Path(found)
    file = path / "model.keras" if (path / "model.keras").is_file() else path
    rescaling = None
    try:
        if file.suffix == ".keras" and file.is_file():
            model = keras.saving.load_model(file, compile=False)
        else:
            model = keras_hub.models.ViTBackbone.from_preset(found)
            rescaling = _rescaling(found)
    except _OPENING_FAILURES as error:
        raise wrong_preset(preset, _WANTED, one_line(str(error))) from error
    if not isinstance(model, MultiModalMAE | keras_hub.models.ViTBackbone):
        raise wrong_preset(preset, _WANTED, f"a {type(model).__name__}")
    if dtype_policy != model.dtype_policy.name or from_scratch:
        model = _rebuilt(model, dtype_policy, copy_weights=not from_scratch)
    return OpenedModel(model, rescaling)


def find_image_model(preset: str) -> str:
    """`find_preset` for a model of images."""
    return find_preset(preset, _WANTED, keras_hub.models.ViTBackbone.presets, whole=True)


def _rescaling(preset):
    """From `(x / 255 - mean) / deviation` to the preset's `x * scale + offset`."""
    try:
        converter = keras_hub.layers.ViTImageConverter.from_preset(preset)
    except (ValueError, FileNotFoundError):
        return None
    scale, offset = (
        np.broadcast_to(np.asarray(default if value is None else value, "float32"), (3,))
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    factor = 255 * scale * np.array(RGB_DEVIATION, "float32")
    shift = 255 * scale * np.array(RGB_MEAN, "float32") + offset
    if np.allclose(factor, 1) and np.allclose(shift, 0, atol=1e-6):
        return None
    return factor, shift


def _rebuilt(model, dtype_policy, copy_weights):
    """The same architecture under another dtype policy, with the weights or without."""
    policy = keras.dtype_policies.get(dtype_policy)
    if isinstance(model, MultiModalMAE):
        config = model.get_config()
        backbone = _backbone_like(model.backbone, dtype=policy)
        config["backbone"] = keras.saving.serialize_keras_object(backbone)
        copy = MultiModalMAE.from_config(config)
    else:
        copy = _backbone_like(model, dtype=policy)
    if copy_weights:
        copy.set_weights(model.get_weights())
    return copy


def _backbone_like(backbone, **changes):
    config = {**backbone.get_config(), **changes}
    return type(backbone).from_config(config)


def _copied_network(
    source: Any, names: Sequence[str], image_size: tuple[int, int] | None
) -> MultiModalNetwork:
    """A network without decoders, with the source's weights for some of its modalities."""
    is_mm_mae = isinstance(source, MultiModalMAE)
    if not is_mm_mae and not isinstance(source, keras_hub.models.ViTBackbone):
        raise ValueError(
            "`source` must be a MultiModalMAE or a keras_hub.models.ViTBackbone. "
            f"Received: {type(source).__name__}"
        )
    known = [m for m in source.modalities if m.is_input] if is_mm_mae else [_RGB]
    chosen = [dataclasses.replace(m, is_target=False, normalized_twin=False) for m in known]
    chosen = [m for m in chosen if m.name in names]
    if {m.name for m in chosen} != set(names) or not names:
        raise ValueError(
            "`modalities` must be some of "
            f"{', '.join(m.name for m in known)}, which the model has seen. "
            f"Received: modalities={tuple(names)}"
        )
    backbone = source.backbone if is_mm_mae else source
    size = tuple(backbone.image_shape[:2]) if image_size is None else tuple(image_size)
    if any(pixels % patch for pixels, patch in zip(size, backbone.patch_size, strict=True)):
        raise ValueError(
            f"`image_size` must have multiples of the patch size {tuple(backbone.patch_size)}. "
            f"Received: image_size={size}"
        )
    shape = (*size, backbone.image_shape[-1])
    network = MultiModalNetwork(
        _backbone_like(backbone, image_shape=shape, dtype=backbone.dtype_policy, trainable=True),
        chosen,
        visible_tokens=1,
        decoder_dim=4,
        decoder_depth=1,
        decoder_heads=1,
        encoder_norm=source.network.encoder_norm if is_mm_mae else True,
        concentrations=(1.0,) * len(chosen),
        sample_uniformly=False,
        positions="backbone",
        class_embedding_dim=source._arguments.class_embedding_dim if is_mm_mae else 1,
        seed=0,
    )
    given = source.network.image_modality if is_mm_mae else _RGB
    own = network.image_modality
    if given is not None and own is not None and given.name != own.name:
        raise ValueError(
            f"`modalities` must have {given.name!r}, whose patch embedding is the backbone's own. "
            f"Received: modalities={tuple(names)}"
        )
    old_grid = tuple(np.floor_divide(backbone.image_shape[:2], backbone.patch_size).tolist())
    _copy_weights(backbone, network.backbone, old_grid, network.grid)
    for name, embedding in network.embeddings.items():
        _copy_weights(source.network.embeddings[name], embedding, old_grid, network.grid)
    if not is_mm_mae:
        patching = network.backbone.get_layer("vit_patching_and_embedding")
        patching.position_embedding.trainable = True
    return network


def _copy_weights(source, target, old_grid, grid):
    """Copies all weights; position tables are interpolated if the grid is another."""
    for before, after in zip(source.weights, target.weights, strict=True):
        array = ops.convert_to_numpy(before)
        if old_grid != grid and "position" in before.path:
            array = _resized(array, old_grid, grid)
        after.assign(array)


def _resized(table, old_grid, grid):
    first = len(table) - old_grid[0] * old_grid[1]
    patches = resize_positions(table[first:].reshape(*old_grid, -1), grid, "bicubic")
    return np.concatenate([table[:first], patches.reshape(-1, table.shape[1])])


def _call_block(block, x, drop_path, training):
    """A stock block, with the chance to leave out each of its residuals."""
    y = block.layer_norm_1(x)
    y = block.dropout(block.mha(y, y, training=training), training=training)
    x = ops.add(x, drop_path(y, training=training))
    return ops.add(x, drop_path(block.mlp(block.layer_norm_2(x)), training=training))
