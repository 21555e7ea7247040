"""The network inside `MultiModalMAE`: maps in, predicted patches out."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.vision.decoders import TaskDecoder, gather_tokens
from keras_taskrobust.vision.embeddings import LabelEmbedding, PatchEmbedding, cut, project
from keras_taskrobust.vision.masking import VisibleTokenSampler, masks_of, visible_ids
from keras_taskrobust.vision.mm_mae_checks import VISIBLE_IDS, check_shapes
from keras_taskrobust.vision.modalities import Modality, tasks_of
from keras_taskrobust.vision.patches import sin_cos_positions
from keras_taskrobust.vision.vit_layers import encoder_of, patch_positions_of, patching_of


class MultiModalNetwork(keras.layers.Layer):
    """Embeds all modalities, encodes the visible tokens, decodes every task.

    The arguments are those of `MultiModalMAE`; `concentrations` has one float per input
    modality.

    Call arguments:
        inputs: `{modality: maps}`, and optionally `"visible_ids"`, `(B, V)` integers.

    Returns:
        `{"patches": {task: (B, N, C * ph * pw)}, "masks": (B, M, N) float32}`: channel first
        inside a patch; mask 1 for masked tokens, M input modalities.
    """

    def __init__(
        self,
        backbone,
        modalities,
        visible_tokens,
        decoder_dim,
        decoder_depth,
        decoder_heads,
        encoder_norm,
        concentrations,
        sample_uniformly,
        positions,
        class_embedding_dim,
        seed,
    ):
        super().__init__(dtype=backbone.dtype_policy, name="network")
        height, width, _ = backbone.image_shape
        self.modalities = tuple(modalities)
        self.input_names = tuple(m.name for m in modalities if m.is_input)
        self.patch_size = tuple(backbone.patch_size)
        self.grid = (height // self.patch_size[0], width // self.patch_size[1])
        self.visible_tokens = visible_tokens
        self.encoder_norm = encoder_norm
        self.image_modality = _image_modality(modalities, backbone)
        policy = self.dtype_policy
        table = _initial_positions(backbone, self.grid, positions)
        self.embeddings = {
            m.name: LabelEmbedding(
                m.num_classes, class_embedding_dim, table, dtype=policy, name=f"embed_{m.name}"
            )
            if m.is_labels
            else PatchEmbedding(table, dtype=policy, name=f"embed_{m.name}")
            for m in modalities
            if m.is_input and m is not self.image_modality
        }
        self.backbone = backbone
        self._freeze_unused(encoder_norm)
        self.decoders = {
            task.name: TaskDecoder(
                self.input_names.index(task.modality.name) if task.modality.is_input else None,
                len(self.input_names),
                sin_cos_positions(self.grid, decoder_dim),
                decoder_depth,
                decoder_heads,
                task.modality.output_channels * self.pixels_of(task.modality),
                dtype=policy,
                name=f"decode_{task.name}",
            )
            for task in tasks_of(modalities)
        }
        self.sampler = VisibleTokenSampler(
            len(table), visible_tokens, concentrations, sample_uniformly, seed, name="sampler"
        )
        self.build(None)

    def build(self, input_shape):
        """Creates all weights: the shapes are those of the backbone."""
        tokens = self.grid[0] * self.grid[1]
        by_name = {m.name: m for m in self.modalities}
        for name, layer in self.embeddings.items():
            features = self.pixels_of(by_name[name]) * (by_name[name].channels or 1)
            layer.build((None, tokens, features))
        for decoder in self.decoders.values():
            decoder.build((None, self.visible_tokens, self.backbone.hidden_dim))
        self.built = True

    def call(self, inputs, training=None):
        check_shapes(inputs, self)
        tokens, available = self.embed(inputs)
        if VISIBLE_IDS in inputs:
            ids = ops.sort(ops.cast(inputs[VISIBLE_IDS], "int32"), axis=-1)
            masks = masks_of(ids, len(self.input_names), self.grid[0] * self.grid[1])
        else:
            masks = self.sampler(available)
            ids = visible_ids(masks, self.visible_tokens)
        encoded = self.encode(gather_tokens(tokens, ids), training)
        slots = _slots(masks, ids.shape[1])
        patches = {task: decoder(encoded, ids, slots) for task, decoder in self.decoders.items()}
        return {"patches": patches, "masks": masks}

    def draw_masks(self, inputs: Mapping[str, Tensor], seed: int) -> Tensor:
        """The masks that a sampler of the given seed draws for `inputs`, `(B, M, N)` float32."""
        own = self.sampler
        sampler = VisibleTokenSampler(
            own.tokens, own.visible_tokens, own.concentrations, own.sample_uniformly, seed
        )
        lacking = ops.zeros((len(next(iter(inputs.values()))),), "bool")
        available = {
            m.name: self._available(cut(m, inputs[m.name], self.patch_size_of(m)))
            for m in self.modalities
            if m.name in inputs
        }
        return sampler(ops.stack([available.get(n, lacking) for n in self.input_names], axis=1))

    def embed(self, inputs):
        """Embeds the input modalities. One that `inputs` lacks has zeros for tokens.

        Returns:
            `(B, M * N, D)` tokens, modality by modality, and `(B, M)` bool: which modalities
            have a valid pixel.
        """
        tokens, available = {}, {}
        for modality in self.modalities:
            if modality.is_input and modality.name in inputs:
                patches = cut(modality, inputs[modality.name], self.patch_size_of(modality))
                tokens[modality.name] = self._embed_one(modality, patches.values)
                available[modality.name] = self._available(patches)
        some = next(iter(tokens))
        lacking = ops.zeros_like(tokens[some]), ops.zeros_like(available[some])
        return (
            ops.concatenate([tokens.get(n, lacking[0]) for n in self.input_names], axis=1),
            ops.stack([available.get(n, lacking[1]) for n in self.input_names], axis=1),
        )

    def encode(self, visible, training=None):
        """The backbone's blocks on `(B, V, D)` tokens, its class token, if any, added last."""
        encoder = encoder_of(self.backbone)
        x = self.add_global_token(visible)
        if self.encoder_norm:
            return encoder(x, training=training)
        x = encoder.dropout(x, training=training)
        for block in encoder.encoder_layers:
            x = block(x, training=training)
        return x

    def add_global_token(self, tokens):
        """`(B, V, D)` tokens with the backbone's class token, if it has one, as the last."""
        if not self.backbone.use_class_token:
            return tokens
        patching = patching_of(self.backbone)
        position = ops.reshape(patching.position_embedding.embeddings[:1], (1, 1, -1))
        token = ops.add(patching.class_token, position)
        shape = (ops.shape(tokens)[0], 1, tokens.shape[-1])
        token = ops.cast(ops.broadcast_to(token, shape), tokens.dtype)
        return ops.concatenate([tokens, token], axis=1)

    def patch_size_of(self, modality: Modality) -> tuple[int, int]:
        """The patch size in the pixels of the modality's maps."""
        height, width = self.patch_size
        return height // modality.stride, width // modality.stride

    def pixels_of(self, modality: Modality) -> int:
        """The pixels in one patch of the modality's maps."""
        return int(np.prod(self.patch_size_of(modality)))

    def map_shape_of(self, modality: Modality) -> tuple[int, ...]:
        """The shape of one of the modality's maps."""
        height, width = self.patch_size_of(modality)
        size = (self.grid[0] * height, self.grid[1] * width)
        return (*size, modality.channels) if modality.channels else size

    def _available(self, patches):
        return ops.any(patches.valid > 0, axis=(1, 2))

    def _embed_one(self, modality, values):
        if modality is not self.image_modality:
            return self.embeddings[modality.name](values)
        convolution = patching_of(self.backbone).patch_embedding
        kernel = ops.transpose(convolution.kernel, (2, 0, 1, 3))
        kernel = ops.reshape(kernel, (values.shape[-1], -1))
        positions = patch_positions_of(self.backbone)
        bias = convolution.bias
        if bias is None:
            bias = ops.zeros_like(kernel[0])
        return project(values, kernel, bias, ops.cast(positions, kernel.dtype))

    def _freeze_unused(self, encoder_norm):
        patching = patching_of(self.backbone)
        patching.position_embedding.trainable = False
        if self.image_modality is None:
            patching.patch_embedding.trainable = False
        if not encoder_norm:
            encoder_of(self.backbone).layer_norm.trainable = False


def _image_modality(modalities, backbone):
    """The modality that the backbone's own patch embedding serves: the first that it fits."""
    for modality in modalities:
        fits = modality.channels == backbone.image_shape[-1] and modality.stride == 1
        if modality.is_input and fits:
            return modality
    return None


def _initial_positions(backbone, grid, positions):
    """The `(N, D)` table to start from; written to the backbone if it is not the backbone's."""
    if positions == "backbone":
        return ops.convert_to_numpy(patch_positions_of(backbone))
    table = sin_cos_positions(grid, backbone.hidden_dim)
    whole = np.pad(table, ((int(backbone.use_class_token), 0), (0, 0)))
    patching_of(backbone).position_embedding.embeddings.assign(whole)
    return table


def _slots(masks, visible):
    """`(B, M, N)` int32: each token's place among the visible ones, `visible` if masked."""
    shown = ops.cast(masks == 0, "int32")
    flat = ops.reshape(shown, (-1, shown.shape[1] * shown.shape[2]))
    places = ops.reshape(ops.cumsum(flat, axis=1) - 1, ops.shape(shown))
    return ops.where(shown > 0, places, visible)
