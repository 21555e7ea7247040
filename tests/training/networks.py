"""Small networks and data that the tests of this room share."""

import keras
import numpy as np

import keras_taskrobust as ktr

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
#: For a few steps, eager ones are quickest on TensorFlow, and by far slowest with JAX.
RUN_EAGERLY = keras.backend.backend() == "tensorflow"
LOSSES = {"level": "mse", "kind": cross_entropy}


def two_headed_network(dropout=0.0, regulariser=None):
    inputs = keras.Input((5,))
    x = keras.layers.Dense(8, activation="tanh", kernel_regularizer=regulariser)(inputs)
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(
        inputs,
        {
            "level": keras.layers.Dense(1, name="level")(x),
            "kind": keras.layers.Dense(3, name="kind")(x),
        },
    )


def two_headed_data(number=32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, 5)).astype("float32")
    y = {
        "level": rng.normal(size=(number, 1)).astype("float32"),
        "kind": rng.integers(0, 3, size=number).astype("int32"),
    }
    return x, y


def grouped_network():
    inputs = keras.Input((4, 5))
    return keras.Model(inputs, keras.layers.Dense(6, name="words")(inputs))


def grouped_data(number=16, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, 4, 5)).astype("float32")
    y = {
        "labels": rng.integers(0, 6, size=(number, 4)).astype("int32"),
        "groups": rng.integers(-1, 3, size=(number, 4)).astype("int32"),
    }
    return x, y


def grouped_model(**compile_arguments):
    model = ktr.MinimaxModel(grouped_network())
    arguments = {"optimizer": "sgd", "loss": ktr.GroupedLoss(cross_entropy, ("a", "b", "c"))}
    model.compile(**{**arguments, **compile_arguments})
    return model


def two_headed_model(network=None, **compile_arguments):
    model = ktr.MinimaxModel(two_headed_network() if network is None else network)
    model.compile(**{"optimizer": "sgd", "loss": LOSSES, **compile_arguments})
    return model


def element_losses(logits, labels):
    """Cross-entropy in float64 NumPy."""
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]


def skip_on(*backends):
    import pytest

    name = keras.backend.backend()
    return pytest.mark.skipif(name in backends, reason=f"not offered by Keras on {name}")
