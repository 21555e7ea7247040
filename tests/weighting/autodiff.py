"""Derivatives and compiled calls on the backend in use; the one place here that names backends."""

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()


def to_numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def gradient(function, values):
    """The derivative of the scalar `function` at the array `values`."""
    values = ops.convert_to_tensor(values, dtype="float32")
    if BACKEND == "jax":
        import jax

        return to_numpy(jax.grad(function)(values))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values)
        return to_numpy(tape.gradient(result, values))
    import torch

    values.requires_grad_(True)
    return to_numpy(torch.autograd.grad(function(values), values)[0])


def gradient_by_variable(function, variable):
    """The derivative of the scalar `function()` by the Keras variable `variable`."""
    if BACKEND == "jax":
        import jax

        def of_value(value):
            with keras.StatelessScope(state_mapping=[(variable, value)]):
                return function()

        return to_numpy(jax.grad(of_value)(variable.value))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = function()
        return to_numpy(tape.gradient(result, variable.value))
    import torch

    return to_numpy(torch.autograd.grad(function(), variable.value)[0])


def program(layer, training, xla=True):
    """The call of `layer` and of any layer of its configuration, given the variables; compiled.

    `xla=False`: with TensorFlow as a graph, which takes a third of the time to make.
    """

    def call(trainable, non_trainable, losses, counts, gramian):
        return layer.stateless_call(
            trainable,
            non_trainable,
            losses,
            counts=counts,
            gramian=gramian,
            training=training,
            return_weights=True,
        )

    if BACKEND == "jax":
        import jax

        return jax.jit(call)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(call, jit_compile=xla, autograph=False)
    raise NotImplementedError("PyTorch runs eagerly.")


def call_program(call, layer, losses, counts, gramian):
    """Calls what `program` gave for `layer`, and assigns its new state."""
    outputs, state = call(
        [ops.convert_to_tensor(variable) for variable in layer.trainable_variables],
        [ops.convert_to_tensor(variable) for variable in layer.non_trainable_variables],
        losses,
        counts,
        gramian,
    )
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return outputs


def compiled(layer, xla=True):
    """`layer` in training, `(losses, counts, gramian) -> (objective, weights)`, inside jit."""
    if BACKEND == "torch":
        return lambda losses, counts, gramian: layer(
            losses, counts=counts, gramian=gramian, training=True, return_weights=True
        )
    call = program(layer, training=True, xla=xla)
    return lambda losses, counts, gramian: call_program(call, layer, losses, counts, gramian)
