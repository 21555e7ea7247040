"""Layers that compute the same in fewer and larger operations while a step runs.

Keras and KerasHub stay the owners of weights, configs, files and presets: a layer is replaced by
nothing. While a step runs, its own `call` gives way to a function that reads the same variables and
returns the same numbers up to float32 rounding. A block of one's own would have to be built, saved
and loaded as KerasHub's is, release after release; a patch of Keras's classes would reach models
that are none of ours. What is not exactly as expected (a subclass, a hook, a mask of another kind)
takes the layer's own `call`. TensorFlow is as fast with Keras's own.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
from keras import ops

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.keras_internals import dropout_of, get_keras_mask, sublayers_of
from keras_taskrobust.training.rematerialization import Rematerialized
from keras_taskrobust.types import Tensor

Fused = Callable[..., Tensor]

_makers: dict[type, Callable[[keras.layers.Layer], Fused | None]] = {}


def fuses(kind: type) -> Callable:
    """Registers a function of a layer of exactly this kind: its faster `call`, or `None`."""

    def register(make):
        _makers[kind] = make
        return make

    return register


class FusedLayers:
    """The layers of a model that have a faster `call`.

    Args:
        model: a built model or layer.

    Example:

    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> with FusedLayers(network).running():
    ...     outputs = network(ops.ones((1, 2)))
    """

    def __init__(self, model: keras.layers.Layer):
        # Kernels that are cut by a layout are used as they are.
        is_cut = isinstance(keras.distribution.distribution(), keras.distribution.ModelParallel)
        found = _fused_calls(model) if backend.FUSES_LAYERS and not is_cut else ()
        self._calls = list({id(layer): (layer, call) for layer, call in found}.values())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """While open, these layers compute by their faster functions."""
        replaced = []
        for layer, call in self._calls:
            own = layer.__dict__.get("call")
            if own is None or isinstance(own, Rematerialized):
                # Past Keras's tracking of attributes.
                holder = layer.__dict__ if own is None else own.__dict__
                replaced.append((holder, holder.get("call")))
                holder["call"] = call
        try:
            yield
        finally:
            for holder, former in replaced:
                if former is None:
                    del holder["call"]
                else:
                    holder["call"] = former


def is_plain(*layers: keras.layers.Layer) -> bool:
    """Whether nothing but their own `call` happens when these layers are called.

    A function that takes the place of a layer with layers inside does not call those.
    """
    return not any(
        "call" in layer.__dict__
        or getattr(layer, "_forward_hooks", None)
        or getattr(layer, "_forward_pre_hooks", None)
        or layer.activity_regularizer is not None
        or layer.quantization_mode is not None
        for layer in layers
    )


def _fused_calls(layer: keras.layers.Layer) -> Iterator[tuple[keras.layers.Layer, Fused]]:
    make = _makers.get(type(layer))
    call = make(layer) if make else None
    if call:
        yield layer, call
        return
    for inner in sublayers_of(layer):
        yield from _fused_calls(inner)


@fuses(keras.layers.Dense)
def _fused_dense(layer: keras.layers.Dense) -> Fused:
    def call(inputs, training=None):
        return dense(layer, inputs)

    return call


def dense(layer: keras.layers.Dense, inputs: Tensor) -> Tensor:
    """What a `Dense` computes, without the ways through its `__call__`."""
    outputs = backend.linear(inputs, layer.kernel, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


@fuses(keras.layers.MultiHeadAttention)
def _fused_attention(layer: keras.layers.MultiHeadAttention) -> Fused | None:
    """For tokens that attend to each other, all to all."""
    if not is_usual(layer, layer.query_dense.kernel.shape[0]):
        return None
    parts = sublayers_of(layer)

    def call(query, value, key=None, *masks, training=None, **options):
        is_of_itself = value is query and (key is None or key is query)
        given = [*masks, get_keras_mask(query), *options.values()]
        has_more = any(one is not None and one is not False for one in given)
        if not is_of_itself or has_more or query.shape[1] is None or not is_plain(*parts):
            own = keras.layers.MultiHeadAttention.call
            return own(layer, query, value, key, *masks, training=training, **options)
        return self_attention(layer, query, None, training)

    return call


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`ops.dot_product_attention`, without the copies that it makes on PyTorch."""
    if backend.FUSES_LAYERS:
        return backend.attend(query, key, value)
    return ops.dot_product_attention(query, key, value)


def self_attention(
    layer: keras.layers.MultiHeadAttention, x: Tensor, mask: Tensor | None, training: bool
) -> Tensor:
    """What a `MultiHeadAttention` computes for `(B, T, D)` tokens that attend to each other.

    Args:
        layer: of the kind that `is_usual` knows.
        x: `(B, T, D)`.
        mask: `(B, T)` bool, the tokens that are attended to, or `None` for all.
        training: bool.
    """
    projections = [layer.query_dense, layer.key_dense, layer.value_dense]
    heads, width, dim = layer.num_heads, layer.key_dim, x.shape[-1]
    kernels = [ops.reshape(p.kernel, (dim, heads * width)) for p in projections]
    biases = [ops.reshape(p.bias, (heads * width,)) for p in projections]
    merged = backend.linear(x, ops.concatenate(kernels, axis=1), ops.concatenate(biases))
    parts = ops.unstack(ops.reshape(merged, (-1, x.shape[1], 3, heads, width)), axis=2)
    if layer.dropout or mask is None:
        dropout = dropout_of(layer) if layer.dropout else None
        mixed = backend.attend(*parts, mask, dropout, training)
    else:
        mixed = ops.dot_product_attention(*parts, mask=mask[:, None, None])
    output = layer.output_dense
    kernel = ops.reshape(output.kernel, (heads * width, dim))
    return backend.linear(ops.reshape(mixed, (-1, x.shape[1], heads * width)), kernel, output.bias)


def is_usual(layer: keras.layers.MultiHeadAttention, dim: int) -> bool:
    """Whether it is an attention over one axis, back to `dim`, with biases and nothing else."""
    config = layer.get_config()
    usual = {
        "value_dim": layer.key_dim,
        "use_bias": True,
        "output_shape": None,
        "attention_axes": (1,),
        "use_gate": False,
        "sliding_window": None,
        "seed": None,
    }
    return (
        type(layer) is keras.layers.MultiHeadAttention
        and layer.output_dense.kernel.shape[-1] == dim
        and all(config.get(name) == value for name, value in usual.items())
    )
