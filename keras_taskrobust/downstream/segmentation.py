"""Semantic segmentation on a pre-trained encoder."""

from typing import Any

import keras
from keras import ops

from keras_taskrobust.downstream.image_encoder import Features
from keras_taskrobust.types import Tensor

_KERNEL = 7


class LinearMapHead(keras.layers.Layer):
    """Projects each patch to its outputs and interpolates them bilinearly to the image.

    Args:
        outputs: int, the classes of a segmentation, 1 for depth.
        image_size: `(height, width)`.

    Call arguments:
        features: `Features`.

    Returns:
        `(B, height, width, outputs)` float32.
    """

    def __init__(self, outputs: int, image_size: tuple[int, int], **kwargs: Any):
        super().__init__(name="linear_head", **kwargs)
        self.image_size = image_size
        self.projection = keras.layers.Dense(outputs, dtype="float32", name="projection")

    def build(self, feature_dim: int) -> None:
        """Creates the weights for features of `feature_dim` channels."""
        self.projection.build((None, None, None, feature_dim))
        self.built = True

    def call(self, features: Features) -> Tensor:
        return resize(self.projection(features.blocks[-1]), self.image_size)


class ConvNeXtHead(keras.layers.Layer):
    """MultiMAE's head for segmentation: finer maps out of each patch, then ConvNeXt blocks.

    A patch token is projected to `splits**2 * width` channels and laid out as `splits x splits`
    pixels of `width` channels. After the blocks and a projection to the classes, the map is
    interpolated bilinearly to the image. As in MultiMAE's `ConvNeXtAdapter`, but for the
    convolutions' initial weights: they are drawn like those of its dense layers.

    Args:
        num_classes: int.
        image_size: `(height, width)`.
        width: int, channels of the blocks. MultiMAE's are 384.
        depth: int, blocks.
        splits: int, pixels along each side of a patch.

    Call arguments:
        features: `Features`.

    Returns:
        `(B, height, width, num_classes)` float32 logits.

    Reference:
        [MultiMAE](https://arxiv.org/abs/2204.01678);
        [A ConvNet for the 2020s](https://arxiv.org/abs/2201.03545).
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        width: int = 384,
        depth: int = 4,
        splits: int = 4,
        **kwargs: Any,
    ):
        super().__init__(name="convnext_head", **kwargs)
        self.image_size = image_size
        self.width = width
        self.splits = splits
        policy = self.dtype_policy
        self.projection = keras.layers.Dense(
            splits**2 * width, kernel_initializer=_initializer(), dtype=policy, name="projection"
        )
        self.blocks = [
            ConvNeXtBlock(width, dtype=policy, name=f"block_{index}") for index in range(depth)
        ]
        self.logits = keras.layers.Dense(
            num_classes, kernel_initializer=_initializer(), dtype="float32", name="logits"
        )

    def build(self, feature_dim: int) -> None:
        """Creates the weights for features of `feature_dim` channels."""
        self.projection.build((None, None, None, feature_dim))
        for block in self.blocks:
            block.build((None, None, None, self.width))
        self.logits.build((None, None, None, self.width))
        self.built = True

    def call(self, features: Features) -> Tensor:
        x = split_patches(self.projection(features.blocks[-1]), self.splits)
        for block in self.blocks:
            x = block(x)
        return resize(self.logits(x), self.image_size)


class ConvNeXtBlock(keras.layers.Layer):
    """`x + MLP(norm(depthwise convolution(x)))`, the MLP four times as wide inside.

    Args:
        width: int, channels.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.mixing = keras.layers.DepthwiseConv2D(
            _KERNEL,
            padding="same",
            depthwise_initializer=_initializer(),
            dtype=policy,
            name="mixing",
        )
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=policy, name="norm")
        self.widen = keras.layers.Dense(
            4 * width, "gelu", kernel_initializer=_initializer(), dtype=policy, name="widen"
        )
        self.narrow = keras.layers.Dense(
            width, kernel_initializer=_initializer(), dtype=policy, name="narrow"
        )
        self.width = width

    def build(self, input_shape):
        for layer in (self.mixing, self.norm, self.widen):
            layer.build(input_shape)
        self.narrow.build((*input_shape[:-1], 4 * self.width))

    def call(self, x):
        return ops.add(x, self.narrow(self.widen(self.norm(self.mixing(x)))))


def split_patches(x: Tensor, splits: int) -> Tensor:
    """`(B, h, w, splits**2 * C)` to `(B, h * splits, w * splits, C)`: each token becomes a square.

    Args:
        x: `(B, h, w, splits**2 * C)`, inside a token row by row.
        splits: int.

    Returns:
        `(B, h * splits, w * splits, C)`.

    Example:

    >>> x = keras.ops.reshape(keras.ops.arange(4), (1, 1, 1, 4))
    >>> keras.ops.convert_to_numpy(split_patches(x, 2))[0, :, :, 0].tolist()
    [[0, 1], [2, 3]]
    """
    _, rows, columns, channels = x.shape
    width = channels // splits**2
    split = ops.reshape(x, (-1, rows, columns, splits, splits, width))
    ordered = ops.transpose(split, (0, 1, 3, 2, 4, 5))
    return ops.reshape(ordered, (-1, rows * splits, columns * splits, width))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolates `(B, h, w, C)` bilinearly to `size`, pixel centres kept, without smoothing."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return ops.image.resize(x, size, interpolation="bilinear", data_format="channels_last")


def _initializer():
    return keras.initializers.TruncatedNormal(stddev=0.02)
