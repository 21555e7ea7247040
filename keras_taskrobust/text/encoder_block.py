"""The transformer block of KerasHub's BERT, computed in few and large operations."""

from typing import Any

import keras_hub
from keras import ops

from keras_taskrobust.training.fused_layers import (
    Fused,
    dense,
    fuses,
    is_plain,
    is_usual,
    self_attention,
)
from keras_taskrobust.training.keras_internals import get_keras_mask, sublayers_of

_Block = keras_hub.layers.TransformerEncoder


@fuses(_Block)
def fused_block(layer: Any) -> Fused | None:
    """The block's faster `call`: the same numbers, up to float32 rounding, of the same variables.

    Args:
        layer: a built `keras_hub.layers.TransformerEncoder`.

    Returns:
        A function with the arguments of its `call`; `None` if its attention is of another kind.
    """
    attention = layer._self_attention_layer
    inner, outer = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
    if not is_usual(attention, outer.units):
        return None
    parts = [*sublayers_of(layer), *sublayers_of(attention)]

    def call(
        inputs,
        padding_mask=None,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        has_masks = attention_mask is not None or get_keras_mask(inputs) is not None
        is_known = not has_masks and inputs.shape[1] is not None
        if not is_known or return_attention_scores or not is_plain(*parts):
            return _Block.call(
                layer, inputs, padding_mask, attention_mask, training, return_attention_scores
            )
        mask = None if padding_mask is None else ops.cast(padding_mask, "bool")

        def attend(x):
            x = self_attention(attention, x, mask, training)
            return layer._self_attention_dropout.call(x, training=training)

        def feed_forward(x):
            x = dense(outer, dense(inner, x))
            return layer._feedforward_dropout.call(x, training=training)

        norms = layer._self_attention_layer_norm.call, layer._feedforward_layer_norm.call
        if layer.normalize_first:
            x = inputs + attend(norms[0](inputs))
            return x + feed_forward(norms[1](x))
        x = norms[0](inputs + attend(inputs))
        return norms[1](x + feed_forward(x))

    return call
