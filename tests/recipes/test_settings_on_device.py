"""What settings become on the device in use."""

import dataclasses

import keras
import pytest

from keras_taskrobust.recipes import image_settings, text_settings
from keras_taskrobust.training.backends import backend


@pytest.mark.parametrize("recipe", [text_settings.PAPER, image_settings.PAPER])
def test_the_base_recipes_take_bfloat16_where_the_device_has_it(recipe, monkeypatch):
    monkeypatch.setattr(backend, "has_bfloat16", lambda: True)
    settled = recipe.on_device()
    assert keras.dtype_policies.get(settled.dtype_policy).compute_dtype == "bfloat16"
    chosen = dataclasses.replace(recipe, dtype_policy="mixed_float16")
    assert chosen.on_device() == chosen


def test_others_get_float32(monkeypatch):
    assert backend.accelerator() or not backend.has_bfloat16()
    monkeypatch.setattr(backend, "has_bfloat16", lambda: False)
    assert text_settings.PAPER.on_device().dtype_policy == "float32"
    assert text_settings.TINY.on_device() is text_settings.TINY
