"""Passes of single tasks, and passes for all of them, on PyTorch."""

import keras
import pytest

PASSES = ["single", "together"] if keras.backend.backend() == "torch" else ["of the backend"]


@pytest.fixture(params=PASSES)
def passes(request, monkeypatch):
    """On PyTorch, a test runs with either kind of passes, whatever the device would choose."""
    if keras.backend.backend() == "torch":
        from keras_taskrobust.training.backends import torch

        monkeypatch.setattr(torch, "runs_on_cpu", lambda values: request.param == "single")
    return request.param
