"""Maps to tokens: patches of images and of labels, each by one matrix product."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_taskrobust.types import Tensor
from keras_taskrobust.vision.modalities import Modality
from keras_taskrobust.vision.patches import patchify


class Patches(NamedTuple):
    """A batch of maps, cut into N patches of P pixels.

    Attributes:
        values: `(B, N, C * P)` floats, channel first inside a patch and 0 where missing; for
            labels `(B, N, P)` int32, and the number of classes where missing.
        valid: `(B, N, P)` float32, 0 for missing pixels.
        in_range: `(B,)` float32, 0 for samples with a label outside the classes.
    """

    values: Tensor
    valid: Tensor
    in_range: Tensor


def cut(modality: Modality, maps: Tensor, patch_size: tuple[int, int]) -> Patches:
    """Cuts a modality's maps into patches and finds the missing pixels.

    Args:
        modality: `Modality`.
        maps: `(B, H, W, C)` images or `(B, H, W)` labels, H and W in the modality's own pixels.
        patch_size: `(ph, pw)`, also in these.

    Returns:
        `Patches`.
    """
    if modality.is_labels:
        labels = ops.cast(patchify(ops.expand_dims(maps, -1), patch_size), "int32")
        missing = labels == modality.ignore_label
        outside = ops.logical_or(labels < 0, labels >= modality.num_classes)
        wrong = ops.any(ops.logical_and(outside, ops.logical_not(missing)), axis=(1, 2))
        values = ops.where(ops.logical_or(missing, outside), modality.num_classes, labels)
        return Patches(values, 1.0 - ops.cast(missing, "float32"), 1.0 - ops.cast(wrong, "float32"))
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(maps.dtype)):
        maps = ops.cast(maps, "float32")
    finite = ops.isfinite(maps)
    values = patchify(ops.where(finite, maps, ops.zeros_like(maps)), patch_size)
    finite = ops.cast(ops.all(finite, axis=-1, keepdims=True), "float32")
    return Patches(values, patchify(finite, patch_size), ops.ones_like(finite[:, 0, 0, 0]))


class PatchEmbedding(keras.layers.Layer):
    """Projects flattened patches and adds fixed positions.

    Args:
        positions: `(N, D)` array, the initial position table. It is kept and saved as a
            non-trainable weight: a checkpoint may bring another.

    Call arguments:
        patches: `(B, N, F)`.

    Returns:
        `(B, N, D)` tokens.
    """

    def __init__(self, positions, **kwargs):
        super().__init__(**kwargs)
        self._initial_positions = positions

    def build(self, input_shape):
        dim = self._initial_positions.shape[1]
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], dim))
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer="zeros")
        self.positions = add_table(self, self._initial_positions)

    def call(self, patches):
        return project(patches, self.kernel, self.bias, self.positions)


class LabelEmbedding(keras.layers.Layer):
    """Embeds every label of a patch, then projects the patch and adds fixed positions.

    A missing pixel (label `num_classes`) has the embedding 0.

    Args:
        num_classes: int, C.
        class_dim: int, E, the width of the class embedding.
        positions: `(N, D)` array, the initial position table.

    Call arguments:
        labels: `(B, N, P)` int32, 0 ... C.

    Returns:
        `(B, N, D)` tokens.
    """

    def __init__(self, num_classes, class_dim, positions, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.class_dim = class_dim
        self.patch_embedding = PatchEmbedding(
            positions, dtype=self.dtype_policy, name="patch_embedding"
        )

    def build(self, input_shape):
        self.class_embeddings = self.add_weight(
            name="class_embeddings",
            shape=(self.num_classes, self.class_dim),
            initializer=small_normal(),
        )
        self.patch_embedding.build((*input_shape[:-1], input_shape[-1] * self.class_dim))

    def call(self, labels):
        table = ops.pad(self.class_embeddings, ((0, 1), (0, 0)))
        _, tokens, pixels = labels.shape
        embedded = ops.take(table, ops.reshape(labels, (-1,)), axis=0)
        return self.patch_embedding(ops.reshape(embedded, (-1, tokens, pixels * self.class_dim)))


def project(patches, kernel, bias, positions):
    """`patches @ kernel + bias + positions`, for `(B, N, F)`, `(F, D)`, `(D,)` and `(N, D)`."""
    offsets = ops.add(positions, ops.expand_dims(bias, 0))
    _, tokens, features = patches.shape
    projected = ops.matmul(ops.reshape(patches, (-1, features)), kernel)
    projected = ops.reshape(projected, (-1, tokens, projected.shape[-1]))
    return ops.add(projected, ops.expand_dims(offsets, 0))


def add_table(layer: keras.layers.Layer, table: np.ndarray) -> keras.Variable:
    """Adds the fixed `(N, D)` table to the weights of `layer`."""

    def initial(shape, dtype=None):
        return ops.convert_to_tensor(table, dtype=dtype)

    return layer.add_weight(
        name="positions", shape=table.shape, initializer=initial, trainable=False
    )


def small_normal():
    """The initializer of tokens and embeddings."""
    return keras.initializers.TruncatedNormal(stddev=0.02)
