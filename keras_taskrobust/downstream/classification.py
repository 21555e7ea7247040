"""Classification of images on a pre-trained encoder."""

from typing import Any

import keras
from keras import ops

from keras_taskrobust.downstream.image_encoder import Features
from keras_taskrobust.types import Tensor


class ClassificationHead(keras.layers.Layer):
    """Normalises a summary of the encoder's tokens and projects it to logits.

    Args:
        num_classes: int.
        pooling: `"mean"` of all tokens, or `"global"`, the global token alone.

    Call arguments:
        features: `Features`.

    Returns:
        `(B, num_classes)` float32 logits.

    Reference:
        [MultiMAE](https://arxiv.org/abs/2204.01678), its output adapter for classification.
    """

    def __init__(self, num_classes: int, pooling: str = "mean", **kwargs: Any):
        super().__init__(name="classification_head", **kwargs)
        self.num_classes = num_classes
        self.pooling = pooling
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
        self.logits = keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="logits",
        )

    def build(self, feature_dim: int) -> None:
        """Creates the weights for tokens of `feature_dim` channels."""
        self.norm.build((None, feature_dim))
        self.logits.build((None, feature_dim))
        self.built = True

    def call(self, features: Features) -> Tensor:
        tokens = features.tokens
        summary = ops.mean(tokens, axis=1) if self.pooling == "mean" else tokens[:, -1]
        return self.logits(self.norm(summary))
