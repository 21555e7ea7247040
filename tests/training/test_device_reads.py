"""How often a step on PyTorch waits for the device, to read what it computed there."""

from collections import Counter

import keras
import numpy as np
import pytest

import keras_taskrobust as ktr
from keras_taskrobust import weighting

if keras.backend.backend() != "torch":
    pytest.skip("the other backends compile their steps", allow_module_level=True)

import torch

READS = ("__array__", "__bool__", "__float__", "__int__", "cpu", "item", "numpy", "tolist")
#: Figures of all tasks at once, and the loss, which `fit` logs at each step.
LOGS = 2
#: Their rounds end when a number on the device says so.
ITERATIVE = {"cagrad", "dualproj", "fairgrad", "mgda", "nash_mtl", "upgrad"}


class CountedReads(keras.callbacks.Callback):
    """Counts reads from the start of the third batch to its end, inside one another as one."""

    def __init__(self, patch):
        super().__init__()
        self.found = Counter()
        self._counts = False
        for name in READS:
            patch.setattr(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name)))

    def _counted(self, name, read):
        def counted(tensor, *args, **kwargs):
            counts, self._counts = self._counts, False
            try:
                value = read(tensor, *args, **kwargs)
                self.found[name] += counts
                return value
            finally:
                self._counts = counts

        return counted

    def on_train_batch_begin(self, batch, logs=None):
        self._counts = batch == 2

    def on_train_batch_end(self, batch, logs=None):
        self._counts = False


def reads_of_a_step(name):
    inputs = keras.Input((8,))
    hidden = keras.layers.Dropout(0.1)(keras.layers.Dense(16, activation="relu")(inputs))
    outputs = {task: keras.layers.Dense(1, name=task)(hidden) for task in "abc"}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    loss = dict.fromkeys(outputs, "mse")
    model.compile(keras.optimizers.AdamW(1e-3, clipnorm=1.0), loss=loss, weighting=name)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    y = {task: x[:, [column]] ** 2 for column, task in enumerate(outputs)}
    with pytest.MonkeyPatch.context() as patch:
        counted = CountedReads(patch)
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[counted])
    return counted.found


@pytest.mark.parametrize("name", sorted({*weighting.available()} - ITERATIVE))
def test_a_step_reads_nothing_but_its_logs(name):
    found = reads_of_a_step(name)
    assert found.total() == LOGS, found


@pytest.mark.parametrize("name", sorted(ITERATIVE))
def test_what_iterates_reads_when_to_end(name):
    found = reads_of_a_step(name)
    assert found.total() - found["__bool__"] == LOGS, found
    assert 1 <= found["__bool__"] <= 20
