"""Layers that keep their inputs alone for the backward pass, and compute all else again."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.keras_internals import (
    autocasting,
    current_value,
    get_keras_mask,
    set_keras_mask,
)


def rematerialize(layers: Iterable[keras.layers.Layer]) -> None:
    """Has what is computed inside each of the layers computed again in the backward pass.

    Of a transformer block only its inputs are kept, in place of some ten tensors of their size and
    the attention. That costs one more forward pass of the block. Gradients are those of before;
    dropout drops the same again. Saved files do not hold it.

    Keras's `RematScope` wraps layers inside layers, too, and on TensorFlow and JAX takes neither
    the arguments of a transformer block nor its dropout.

    Args:
        layers: built layers, none inside another.

    Example:

    >>> import keras_hub
    >>> backbone = keras_hub.models.BertBackbone(
    ...     vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32
    ... )
    >>> rematerialize(backbone.transformer_layers)
    """
    for layer in layers:
        # Past Keras's tracking of attributes.
        layer.__dict__["call"] = Rematerialized(layer)


class Rematerialized:
    """A layer's `call` as a function of its tensors, which a backend may run twice.

    What it assigns, such as the next seed of a dropout, is assigned once, outside.

    Attributes:
        call: what is run.
    """

    def __init__(self, layer: keras.layers.Layer):
        self.call = layer.call
        self._layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trained, states = self._layer.trainable_variables, self._layer.non_trainable_variables
        arguments, call = (args, kwargs), self.call
        leaves = keras.tree.flatten(arguments)
        places = [place for place, leaf in enumerate(leaves) if keras.ops.is_tensor(leaf)]

        def of_tensors(*tensors):
            values, inputs = tensors[: -len(places)], tensors[-len(places) :]
            filled = list(leaves)
            for place, tensor in zip(places, inputs, strict=True):
                set_keras_mask(tensor, get_keras_mask(leaves[place]))
                filled[place] = tensor
            args, kwargs = keras.tree.pack_sequence_as(arguments, filled)
            mapping = list(zip([*trained, *states], values, strict=True))
            # The second time the layer's `__call__` is not around it.
            with keras.StatelessScope(state_mapping=mapping) as scope, autocasting(self._layer):
                outputs = call(*args, **kwargs)
            return outputs, [scope.get_current_value(state) for state in states]

        values = [current_value(variable) for variable in trained]
        values += [keras.ops.copy(current_value(state)) for state in states]  # of before
        tensors = [leaves[place] for place in places]
        outputs, new_states = backend.rematerialized(of_tensors)(*values, *tensors)
        for state, value in zip(states, new_states, strict=True):
            state.assign(value)
        return outputs
