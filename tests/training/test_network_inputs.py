"""Inputs reach the network as they would reach it alone, whatever the dtype policy."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_taskrobust as ktr

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
#: Token ids and values that bfloat16 cannot hold or float16 cannot reach.
TOKENS = np.array([[2049, 1025, 513], [257, 4095, 1]])
VALUES = np.array([[7.2e4, 6.9e4], [7.01e4, 8.1e4]])


class Network(keras.Model):
    """A functional network that notes the dtypes of what it is called on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtypes = []

    def call(self, inputs, training=None, mask=None):
        tensors = keras.tree.flatten(inputs)
        self.dtypes.append([keras.backend.standardize_dtype(t.dtype) for t in tensors])
        return super().call(inputs, training=training, mask=mask)


def arranged(tokens, values, form):
    """An integer and a float input of a network, in a structure of their own."""
    return {
        "dict": {"tokens": tokens, "values": values},
        "list": [tokens, values],
        "nested": {"text": {"tokens": tokens}, "rest": [values]},
    }[form]


@functools.cache
def network_of(policy, form):
    keras.config.set_dtype_policy(policy)
    try:
        tokens = keras.Input((3,), dtype="int32", name="tokens")
        values = keras.Input((2,), dtype="float32", name="values")
        embedded = keras.layers.Flatten()(keras.layers.Embedding(4096, 2)(tokens))
        scaled = keras.layers.Normalization(mean=7e4, variance=1e8, dtype="float32")(values)
        merged = keras.layers.Concatenate()([embedded, scaled])
        output = keras.layers.Dense(1, name="level", dtype="float32")(merged)
        return Network(arranged(tokens, values, form), {"level": output})
    finally:
        keras.config.set_dtype_policy("float32")


FORMS = st.sampled_from(("dict", "list", "nested"))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(POLICIES),
    FORMS,
    st.sampled_from(("int32", "int64", "float32", "float64")),
    st.sampled_from(("float32", "float64")),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
def test_a_call_gives_the_networks_own_prediction_to_the_bit(
    policy, form, token_dtype, value_dtype, as_tensors
):
    network = network_of(policy, form)
    inputs = TOKENS.astype(token_dtype), VALUES.astype(value_dtype)
    if as_tensors:
        inputs = map(keras.ops.convert_to_tensor, inputs)
    x = arranged(*inputs, form)
    expected = keras.ops.convert_to_numpy(network(x)["level"])
    found = keras.ops.convert_to_numpy(ktr.MinimaxModel(network)(x)["level"])
    assert np.isfinite(expected).all()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("form", ["dict", "list", "nested"])
@pytest.mark.parametrize("policy", POLICIES)
def test_fit_evaluate_and_predict_hand_over_the_dtypes_that_the_network_gets_alone(policy, form):
    network = network_of(policy, form)
    x = arranged(TOKENS.astype("float32"), VALUES.astype("float32"), form)
    y = {"level": np.ones((2, 1), "float32")}
    model = ktr.MinimaxModel(network)
    found = []
    for each in (network, model):
        network.dtypes.clear()
        each.compile(keras.optimizers.SGD(0.0), loss={"level": "mse"})
        loss = each.evaluate(x, y, verbose=0)
        each.fit(x, y, verbose=0)
        found.append((np.ravel(loss)[0], each.predict(x, verbose=0)["level"], network.dtypes[:]))
    (loss, predicted, dtypes), (model_loss, model_predicted, model_dtypes) = found
    assert np.array_equal(model_predicted, predicted)
    assert model_loss == pytest.approx(loss, rel=1e-6)
    assert {tuple(each) for each in model_dtypes} == {tuple(each) for each in dtypes}
