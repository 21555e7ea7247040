"""What a model is asked about its network, and what cannot be saved."""

import keras
import numpy as np
import pytest
from networks import RUN_EAGERLY, two_headed_data, two_headed_model, two_headed_network

import keras_taskrobust as ktr


def test_a_functional_network_answers_through_the_model():
    network = two_headed_network()
    model = two_headed_model(network)
    for name in ("input", "output", "inputs", "outputs"):
        assert getattr(model, name) is getattr(network, name)
    for name in ("input_shape", "output_shape", "output_names"):
        assert getattr(model, name) == getattr(network, name)
    assert model.compute_output_shape((7, 5)) == network.compute_output_shape((7, 5))
    assert model.get_layer("level") is network.get_layer("level")
    assert model.get_layer(index=1) is network.get_layer(index=1)
    assert model.get_layer(network.name) is network
    assert model.get_layer(model.weighting.name) is model.weighting
    with pytest.raises(ValueError, match=r"No such layer: nothing. Existing.*'level'"):
        model.get_layer("nothing")
    x, _ = two_headed_data()
    features = keras.Model(model.input, model.get_layer(index=1).output)
    assert features.predict(x, verbose=0).shape == (len(x), 8)


def test_a_network_that_is_not_functional_answers_as_it_does_alone():
    network = keras.Sequential([keras.layers.Dense(3)])
    model = ktr.MinimaxModel(network)
    assert not any(hasattr(model, name) for name in ("output_names", "inputs", "input_shape"))
    model.compile("sgd", loss="mse", run_eagerly=RUN_EAGERLY)
    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    assert (model.input_shape, model.output_shape) == (network.input_shape, network.output_shape)


def test_a_symbolic_call_keeps_the_dtypes_of_the_outputs():
    inputs = keras.Input((3,))
    best = keras.ops.cast(keras.ops.argmax(inputs, axis=-1), "int32")
    network = keras.Model(inputs, {"best": best, "level": keras.layers.Dense(2)(inputs)})
    outputs = ktr.MinimaxModel(network)(keras.Input((3,)))
    assert {name: (t.dtype, t.shape) for name, t in outputs.items()} == {
        "best": ("int32", (None,)),
        "level": ("float32", (None, 2)),
    }


@pytest.mark.parametrize("path", ["model.h5", "model.hdf5", "model.weights.h5"])
def test_a_file_that_could_not_be_read_back_is_not_written(path, tmp_path):
    model = two_headed_model()
    x, y = two_headed_data()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`.keras`, or the weights alone by `save_weights`.*h"):
        model.save(tmp_path / path)
    if not path.endswith(".hdf5"):
        checkpoint = keras.callbacks.ModelCheckpoint(str(tmp_path / path))
        with pytest.raises(ValueError, match="cannot read this kind of model back"):
            model.fit(x, y, callbacks=[checkpoint], verbose=0)
    assert not list(tmp_path.iterdir())
    for a, b in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_what_is_wrapped_is_a_model_and_what_is_compiled_the_wrapper():
    inputs = keras.Input((3,))
    with pytest.raises(TypeError, match=r"`MinimaxModel\(keras.Model\(inputs, outputs\)\)`.*Rec"):
        ktr.MinimaxModel(inputs)
    network = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    network.compile("sgd", "mse")
    model = ktr.MinimaxModel(network)
    with pytest.raises(ValueError, match="called on the MinimaxModel, not on its network"):
        model.fit(np.ones((4, 3)), np.ones((4, 1)))
