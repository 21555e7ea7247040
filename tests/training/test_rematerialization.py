"""Blocks that are computed again in the backward pass: the same steps, from fewer kept tensors."""

import keras
import keras_hub
import numpy as np
import pytest

from keras_taskrobust import weighting
from keras_taskrobust.text.pos_bert import PosBert
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.rematerialization import rematerialize

QUICK = ("minimax",)
#: One of each kind of step; the others are tried where nothing is compiled.
COMPILED = (*QUICK, "uncertainty", "gradnorm", "upgrad", "pcgrad", "graddrop")
#: They want inputs of a known shape, which a BERT has not.
OF_KNOWN_SHAPES = {"db_mtl", "excess_mtl", "moco"}


def trained(name, again, dtype="float32", **options):
    """The weights after three steps with dropout, and those before."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=0.1,
        max_sequence_length=16,
        dtype=dtype,
    )
    if again:
        rematerialize(backbone.transformer_layers)
    model = PosBert(backbone, next_sentence=None)
    model.compile(keras.optimizers.SGD(0.1), weighting=name, **options)
    before = model.get_weights()
    rng = np.random.default_rng(0)
    tokens, positions = rng.integers(5, 50, (12, 16)), rng.integers(1, 16, (12, 4))
    x = {
        "token_ids": tokens.astype("int32"),
        "segment_ids": np.zeros((12, 16), "int32"),
        "padding_mask": np.ones((12, 16), "int32"),
        "mask_positions": positions.astype("int32"),
    }
    labels, groups = rng.integers(5, 50, (12, 4)), rng.integers(-1, 9, (12, 4))
    y = {"masked_lm": {"labels": labels.astype("int32"), "groups": groups.astype("int32")}}
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights(), before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(set(weighting.available()) - OF_KNOWN_SHAPES)
        if name in COMPILED or keras.backend.backend() == "torch"
    ],
)
def test_the_steps_are_those_of_before(name):
    kept, before = trained(name, again=False)
    again, _ = trained(name, again=True)
    move = max(np.abs(a - b).max() for a, b in zip(kept, before, strict=True))
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * move)


@pytest.mark.slow
def test_half_precision_is_that_of_before():
    kept, before = trained("minimax", again=False, dtype="mixed_bfloat16")
    again, _ = trained("minimax", again=True, dtype="mixed_bfloat16")
    move = max(np.abs(a - b).max() for a, b in zip(kept, before, strict=True))
    roundings = 4 * 2**-8  # XLA orders the products of both in its own way
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=roundings * move)


@pytest.mark.slow
def test_at_a_representation():
    options = {"gradients_at": "representation", "representation": "transformer_layer_1"}
    kept, _ = trained("upgrad", again=False, **options)
    again, _ = trained("upgrad", again=True, **options)
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_each_block_is_computed_again_as_a_whole(monkeypatch):
    wrapped, whole = [], backend.rematerialized

    def counting(function):
        wrapped.append(function)
        return whole(function)

    monkeypatch.setattr(backend, "rematerialized", counting)
    trained("minimax", again=False)
    assert not wrapped
    trained("minimax", again=True)
    forward_passes = {"torch": 3, "jax": 1, "tensorflow": 1}[keras.backend.backend()]
    assert len(wrapped) == 2 * forward_passes
