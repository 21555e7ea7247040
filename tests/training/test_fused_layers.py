"""Keras's attention in few operations: its numbers, its gradients, and its own way elsewhere."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_taskrobust.training import fused_layers
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.fused_layers import FusedLayers

if not backend.FUSES_LAYERS:
    pytest.skip("Keras's own is as fast", allow_module_level=True)

IS_TORCH = keras.backend.backend() == "torch"
to_numpy = ops.convert_to_numpy


def make_layer(**options):
    """An attention of 2 heads of 4, with biases that are not 0."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.MultiHeadAttention(2, 4, **options)
    layer.build((None, 5, 8), (None, 5, 8))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return layer


def tokens(seed=1):
    return ops.convert_to_tensor(np.random.default_rng(seed).normal(size=(3, 5, 8)), "float32")


@contextlib.contextmanager
def counting(monkeypatch):
    """A list that gets an entry at every call of the faster function."""
    calls = []
    own = fused_layers.self_attention

    def counted(*arguments):
        calls.append(arguments)
        return own(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fused_layers, "self_attention", counted)
        yield calls


def outputs_and_gradients(layer, training):
    """The outputs, and the gradients of their cubes' mean by the tokens and the weights."""
    weights = layer.trainable_weights
    if IS_TORCH:
        import torch

        x = tokens().requires_grad_()
        y = layer(x, x, training=training)
        gradients = torch.autograd.grad((y**3).mean(), [x, *(weight.value for weight in weights)])
        return [to_numpy(tensor) for tensor in (y, *gradients)]
    import jax

    def mean(x, values):
        with keras.StatelessScope(state_mapping=[*zip(weights, values, strict=True)]):
            y = layer(x, x, training=training)
        return (y**3).mean(), y

    values = [weight.value for weight in weights]
    (_, y), (by_x, by_weights) = jax.value_and_grad(mean, (0, 1), has_aux=True)(tokens(), values)
    return [to_numpy(tensor) for tensor in (y, by_x, *by_weights)]


@pytest.mark.parametrize(("dropout", "training"), [(0.0, True), (0.0, False), (0.5, False)])
def test_equals_keras(dropout, training, monkeypatch):
    layer = make_layer(dropout=dropout)
    expected = outputs_and_gradients(layer, training)
    with FusedLayers(layer).running(), counting(monkeypatch) as calls:
        found = outputs_and_gradients(layer, training)
    assert len(calls) == 1
    for own, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_is_of_training_alone(monkeypatch):
    layer = make_layer(dropout=0.5)
    x = tokens()
    with FusedLayers(layer).running(), counting(monkeypatch) as calls:
        passes = [to_numpy(layer(x, x, training=True)) for _ in range(2)]
    assert len(calls) == 2
    assert abs(passes[0] - passes[1]).max() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention_mask": np.tril(np.ones((3, 5, 5), "bool"))},
        {"value_mask": np.array([[True] * 3 + [False] * 2] * 3)},
        {"use_causal_mask": True},
        {"return_attention_scores": True},
        {"key": tokens(2)},
        {"value": tokens(2)},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_it_does_not_know_is_keras_own(arguments, monkeypatch):
    layer, x = make_layer(), tokens()
    arguments = {"value": x, **arguments}
    expected = keras.tree.flatten(layer(x, **arguments))
    with FusedLayers(layer).running(), counting(monkeypatch) as calls:
        found = keras.tree.flatten(layer(x, **arguments))
    assert not calls
    for own, theirs in zip(found, expected, strict=True):
        assert own.tolist() == theirs.tolist()


def test_a_keras_mask_is_kept(monkeypatch):
    """That of an embedding, which goes on to the next layer."""
    x = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(9, 8, mask_zero=True)(x)
    network = keras.Model(x, keras.layers.MultiHeadAttention(2, 4)(embedded, embedded))
    ids = np.array([[1, 2, 3, 0, 0]])
    expected = to_numpy(network(ids))
    with FusedLayers(network).running(), counting(monkeypatch) as calls:
        assert to_numpy(network(ids)).tolist() == expected.tolist()
    assert not calls


@pytest.mark.parametrize("options", [{"use_bias": False}, {"output_shape": 6}])
def test_attention_of_another_kind_is_none_of_it(options, monkeypatch):
    layer, x = make_layer(**options), tokens()
    expected = to_numpy(layer(x, x))
    with FusedLayers(layer).running(), counting(monkeypatch) as calls:
        np.testing.assert_allclose(to_numpy(layer(x, x)), expected, rtol=1e-4, atol=1e-5)
    assert not calls
