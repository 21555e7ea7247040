"""The steps of an MM-MAE whose attention and dense layers are computed in few operations."""

import contextlib

import keras
import numpy as np
import pytest
import tiny
from marks import slow

from keras_taskrobust.training import fused_layers
from keras_taskrobust.training.backends import backend

if not backend.FUSES_LAYERS:
    pytest.skip("Keras's own is as fast", allow_module_level=True)

IS_TORCH = keras.backend.backend() == "torch"
PASSES = ["single", "together"] if IS_TORCH else ["of the backend"]


def make_model(weighting):
    keras.utils.set_random_seed(0)
    model = tiny.model((tiny.RGB, tiny.DEPTH, tiny.SEMSEG), tiny.backbone(num_layers=2), seed=1)
    model.compile(keras.optimizers.SGD(0.1), weighting=weighting, gradients_at="shared")
    return model


@pytest.mark.parametrize("weighting", ["minimax", "mgda" if IS_TORCH else slow("mgda")])
@pytest.mark.parametrize("passes", PASSES)
def test_steps_are_those_without(weighting, passes, monkeypatch):
    """By one pass a task, and by one pass for all of them, under `vmap`."""
    if IS_TORCH:
        monkeypatch.setattr(backend, "runs_on_cpu", lambda values: passes == "single")
    fused, plain = (make_model(weighting) for _ in range(2))
    monkeypatch.setattr(plain, "_fused_running", contextlib.nullcontext)
    maps = tiny.batch(fused.network)
    maps["visible_ids"] = fused.visible_ids(tiny.masks(fused.network))
    calls = []
    attention = fused_layers.self_attention
    monkeypatch.setattr(
        fused_layers, "self_attention", lambda *given: calls.append(given) or attention(*given)
    )
    for _ in range(3):
        fused.train_on_batch(maps)
    assert calls
    calls.clear()
    for _ in range(3):
        plain.train_on_batch(maps)
    assert not calls
    for own, theirs in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-5)
