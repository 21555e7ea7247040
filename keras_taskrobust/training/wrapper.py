"""A Keras model that wraps another one, whose layers, inputs and outputs it shows as its own."""

import os
from typing import Any

import keras
from keras import ops

from keras_taskrobust.training.keras_internals import OpenModel, untrack


class Wrapper(OpenModel):
    """What users ask a model about its layers, inputs and outputs, answered by its network.

    Args:
        network: any Keras model, or a layer with the inputs and outputs of one.
        **kwargs: `keras.Model` arguments, such as `name`.
    """

    def __init__(self, network, **kwargs):
        if not isinstance(network, keras.layers.Layer):
            raise TypeError(
                "`network` must be a keras.Model, as in "
                f"`{type(self).__name__}(keras.Model(inputs, outputs))`. "
                f"Received: network={network!r}"
            )
        super().__init__(**{**kwargs, "dtype": network.dtype_policy})
        # Its inputs are left as they are: the network converts each to a dtype of its own.
        self.network = network
        self.built = network.built

    def call(self, inputs, training=None):
        return self.network(inputs, training=training)

    @property
    def input(self):
        """The symbolic inputs of a functional network, in their structure."""
        return self.network.input

    @property
    def output(self):
        """The symbolic outputs of a functional network, in their structure."""
        return self.network.output

    @property
    def inputs(self):
        """The symbolic inputs of a functional network, as a list."""
        return self.network.inputs

    @property
    def outputs(self):
        """The symbolic outputs of a functional network, as a list."""
        return self.network.outputs

    @property
    def input_shape(self):
        """The shapes of a functional network's inputs."""
        return self.network.input_shape

    @property
    def output_shape(self):
        """The shapes of a functional network's outputs."""
        return self.network.output_shape

    @property
    def output_names(self):
        """The names of a functional network's output layers."""
        return self.network.output_names

    def compute_output_shape(self, input_shape):
        """The shapes of the network's outputs for inputs of this shape."""
        return self.network.compute_output_shape(input_shape)

    def compute_output_spec(self, *args, **kwargs):
        # That of a layer takes all outputs to have the compute dtype, once it knows their shapes.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_layer(self, name=None, index=None):
        """A layer of the network by name or index, or one of the wrapper's own by name."""
        own = {layer.name: layer for layer in self.layers}
        if index is None and name in own and not _has_layer(self.network, name):
            return own[name]
        return self.network.get_layer(name, index)

    def export(self, *args, **kwargs):
        """`keras.Model.export` of the network, which records the signature of its inputs."""
        self.network.export(*args, **kwargs)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """`keras.Model.save`.

        Raises:
            ValueError: for an HDF5 file, from which no model with losses by task can be read back.
        """
        check_format(filepath)
        super().save(filepath, overwrite, zipped, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for index, state in enumerate(self._seed_states()):
            store[f"seed_state_{index}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        """Also restores the random state of dropout, where it is saved for as many layers."""
        seeds = [key for key in store.keys() if key.startswith("seed_state_")]  # noqa: SIM118
        states = self._seed_states()
        if len(seeds) == len(states):
            for index, state in enumerate(states):
                state.assign(store[f"seed_state_{index}"])
        super().load_own_variables({k: store[k] for k in store.keys() if k not in seeds})  # noqa: SIM118

    def _replace(self, name, value):
        """Sets a tracked attribute, and forgets the one that a former `compile` set."""
        old = getattr(self, name)
        if old is value:
            return
        if old is not None:
            untrack(self, old)
        setattr(self, name, value)

    def _seed_states(self) -> list[keras.Variable]:
        saved = {id(variable) for variable in self.weights}
        return [variable for variable in self.variables if id(variable) not in saved]


def check_format(filepath: str | os.PathLike) -> None:
    """Raises a `ValueError` for a path to which a wrapper must not be saved."""
    if str(filepath).endswith((".h5", ".hdf5")):
        raise ValueError(
            "Keras cannot read this kind of model back from an `.h5` file. Save it to a path that "
            "ends in `.keras`, or the weights alone by `save_weights` to one in `.weights.h5`. "
            f"Received: filepath={str(filepath)!r}"
        )


def check_checkpoints(callbacks: Any) -> None:
    """Raises a `ValueError` if one of the callbacks would save a wrapper where it must not.

    Args:
        callbacks: what `keras.Model.fit` takes.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in keras.tree.flatten(callbacks):
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only:
            check_format(callback.filepath)


def _has_layer(network: keras.Model, name: str) -> bool:
    return any(layer.name == name for layer in network.layers)
