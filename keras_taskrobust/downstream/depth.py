"""Depth estimation on a pre-trained encoder."""

from typing import Any

import keras
from keras import ops

from keras_taskrobust.downstream.image_encoder import Features
from keras_taskrobust.downstream.segmentation import resize
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import PACKAGE

_LAST_WIDTH = 32
_SHARE_OF_LARGEST = 0.2
_LEAST_THRESHOLD = 1e-5


@keras.saving.register_keras_serializable(PACKAGE)
class BerHu(keras.losses.Loss):
    """The reverse Huber loss of depth, over the valid pixels of a batch.

    With the error `e`, and `c` a fifth of the largest `|e|` in the batch (at least 1e-5, without
    gradient): `|e|` below `c`, `(e^2 + c^2) / (2 c)` from there on; their mean. MultiMAE's loss
    for depth.

    Call arguments:
        y_true: `(B, H, W, 1)`, NaN where missing.
        y_pred: `(B, H, W, 1)`.

    Reference:
        [Deeper Depth Prediction](https://arxiv.org/abs/1606.00373).

    Example:

    >>> errors = keras.ops.reshape(keras.ops.array([0.1, -1.0]), (1, 1, 2, 1))
    >>> round(float(BerHu()(keras.ops.zeros((1, 1, 2, 1)), errors)), 6)
    1.35
    """

    def __init__(self, reduction="sum_over_batch_size", name="berhu", dtype="float32"):
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true, y_pred):
        valid = ops.isfinite(y_true)
        # Selected, not multiplied: the product of 0 and what is not finite is not 0.
        errors = ops.abs(ops.where(valid, y_pred, 0.0) - ops.where(valid, y_true, 0.0))
        weights = ops.cast(valid, errors.dtype)
        threshold = ops.maximum(_SHARE_OF_LARGEST * ops.max(errors), _LEAST_THRESHOLD)
        threshold = ops.stop_gradient(threshold)
        squares = (ops.square(errors) + ops.square(threshold)) / (2 * threshold)
        losses = ops.where(errors < threshold, errors, squares)
        mean = ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1.0)
        # Of a scalar, Keras would not make the share of one of several replicas.
        return ops.reshape(mean, (1,))


class DPTHead(keras.layers.Layer):
    """The Dense Prediction Transformer's head: maps of four blocks, fused from coarse to fine.

    The tokens of four blocks become maps of 4, 2, 1 and 1/2 times the grid of patches with 1/8,
    1/4, 1/2 and 1 times the encoder's width, are brought to `width` channels, and fused from
    the last to the first by residual convolutions; two convolutions then lead to the outputs. As
    in MultiMAE's `DPTOutputAdapter`, but for the enlarging, which keeps pixel centres in place
    and not corners.

    Args:
        image_size: `(height, width)`.
        outputs: int, channels of the prediction.
        width: int, channels of the fused maps. DPT's are 256.

    Call arguments:
        features: `Features` of four blocks.

    Returns:
        `(B, height, width, outputs)` float32.

    Reference:
        [Vision Transformers for Dense Prediction](https://arxiv.org/abs/2103.13413).
    """

    def __init__(
        self, image_size: tuple[int, int], outputs: int = 1, width: int = 256, **kwargs: Any
    ):
        super().__init__(name="dpt_head", **kwargs)
        self.image_size = image_size
        self.width = width
        self.outputs = outputs

    def build(self, feature_dim: int) -> None:
        """Creates the weights for features of `feature_dim` channels."""
        policy = self.dtype_policy
        widths = [max(feature_dim // share, 8) for share in (8, 4, 2, 1)]
        self.reassembling = [
            keras.Sequential(
                [keras.layers.Conv2D(width, 1, dtype=policy), *_rescalers(index, width, policy)],
                name=f"reassemble_{index}",
            )
            for index, width in enumerate(widths)
        ]
        self.narrowing = [
            _convolution(self.width, policy, f"narrow_{index}", use_bias=False)
            for index in range(4)
        ]
        self.fusing = [
            Fusion(self.width, index < 3, dtype=policy, name=f"fuse_{index}") for index in range(4)
        ]
        self.first = _convolution(max(self.width // 2, 1), policy, "first")
        self.second = _convolution(_LAST_WIDTH, policy, "second", activation="relu")
        self.last = keras.layers.Conv2D(self.outputs, 1, dtype="float32", name="last")
        shape = (None, None, None)
        for index, width in enumerate(widths):
            self.reassembling[index].build((*shape, feature_dim))
            self.narrowing[index].build((*shape, width))
            self.fusing[index].build((*shape, self.width))
        self.first.build((*shape, self.width))
        self.second.build((*shape, self.first.filters))
        self.last.build((*shape, _LAST_WIDTH))
        self.built = True

    def call(self, features: Features) -> Tensor:
        maps = [
            narrow(reassemble(block))
            for block, reassemble, narrow in zip(
                features.blocks, self.reassembling, self.narrowing, strict=True
            )
        ]
        fused = None
        for index in (3, 2, 1, 0):
            height, width = maps[max(index - 1, 0)].shape[1:3]
            size = (height, width) if index else (2 * height, 2 * width)
            fused = resize(self.fusing[index](maps[index], fused), size)
        return self.last(self.second(resize(self.first(fused), self.image_size)))


class Fusion(keras.layers.Layer):
    """Adds a finer map to an enlarged coarser one, with residual convolutions.

    The projection at the end comes before the sum is enlarged, which makes no difference: both
    are linear, one in the channels, one in space.

    Args:
        width: int, channels.
        has_coarser: bool. Whether there is a coarser map.
    """

    def __init__(self, width: int, has_coarser: bool, **kwargs: Any):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.of_map = _Residual(width, dtype=policy, name="of_map") if has_coarser else None
        self.of_sum = _Residual(width, dtype=policy, name="of_sum")
        self.output_projection = keras.layers.Conv2D(width, 1, dtype=policy, name="projection")

    def build(self, input_shape):
        for layer in (self.of_map, self.of_sum, self.output_projection):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x, coarser=None):
        total = x if self.of_map is None else ops.add(coarser, self.of_map(x))
        return self.output_projection(self.of_sum(total))


class _Residual(keras.layers.Layer):
    """`x + convolution(relu(convolution(relu(x))))`."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.first = _convolution(width, self.dtype_policy, "first")
        self.second = _convolution(width, self.dtype_policy, "second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, x):
        return ops.add(x, self.second(ops.relu(self.first(ops.relu(x)))))


def dpt_hooks(num_layers: int) -> tuple[int, ...]:
    """The four blocks that a DPT head reads, at the ends of the quarters of the encoder.

    Args:
        num_layers: int.

    Returns:
        tuple of four ints.

    Example:

    >>> dpt_hooks(12)
    (2, 5, 8, 11)
    """
    return tuple(-(-num_layers * quarter // 4) - 1 for quarter in (1, 2, 3, 4))


def _rescalers(index, width, policy):
    """What brings the map of the index-th block to 4, 2, 1 or 1/2 times its size."""
    if index < 2:
        factor = (4, 2)[index]
        return [keras.layers.Conv2DTranspose(width, factor, strides=factor, dtype=policy)]
    if index == 2:
        return []
    return [keras.layers.Conv2D(width, 3, strides=2, padding="same", dtype=policy)]


def _convolution(width, policy, name, **kwargs):
    return keras.layers.Conv2D(width, 3, padding="same", dtype=policy, name=name, **kwargs)
