"""The layers of a KerasHub ViT, which go by the names that KerasHub gives them."""

import keras
from keras import ops

from keras_taskrobust.types import Tensor


def patching_of(backbone: keras.Model) -> keras.layers.Layer:
    """What embeds patches and adds positions and the class token."""
    return backbone.get_layer("vit_patching_and_embedding")


def encoder_of(backbone: keras.Model) -> keras.layers.Layer:
    """The transformer blocks and the normalisation after them."""
    return backbone.get_layer("vit_encoder")


def patch_positions_of(backbone: keras.Model) -> Tensor:
    """The position table without the class token's row, `(N, D)`."""
    table = ops.convert_to_tensor(patching_of(backbone).position_embedding.embeddings)
    return table[int(backbone.use_class_token) :]


def attention_inputs_of(block: keras.layers.Layer) -> tuple[keras.layers.Layer, ...]:
    """The layers of a block that make queries, keys and values."""
    attention = block.mha
    return attention.query_dense, attention.key_dense, attention.value_dense
