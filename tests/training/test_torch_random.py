"""The random numbers of a step on PyTorch: those of Keras's generator, none of them waited for."""

import keras
import numpy as np
import pytest
from networks import two_headed_data, two_headed_model, two_headed_network

if keras.backend.backend() != "torch":
    pytest.skip("the other backends hold their seeds in their programs", allow_module_level=True)

import torch

from keras_taskrobust.training.backends.torch import own_randomness, random_stream


def seed_of_step(stream):
    with own_randomness(stream):
        return torch.initial_seed()


def test_seeds_are_those_of_kerass_generator():
    stream, kerass = random_stream(), keras.random.SeedGenerator()
    for number in ([7, 0], [7, 3], [2**31 - 1, 2]):  # assigned from outside, as by loading
        stream.state.assign(number)
        kerass.state.assign(number)
        for _ in range(3):
            assert seed_of_step(stream) == int(kerass.next().sum())
            assert stream.state.numpy().tolist() == kerass.state.numpy().tolist()


def test_no_step_but_the_first_reads_the_device(monkeypatch):
    stream = random_stream()
    seed_of_step(stream)

    def refuse(*args):
        raise AssertionError("read")

    for name in ("tolist", "item", "cpu", "numpy", "__int__", "__index__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    assert seed_of_step(stream) + 1 == seed_of_step(stream)


def test_a_step_that_fails_counts_for_nothing():
    stream = random_stream()
    before = stream.state.numpy().tolist()
    with pytest.raises(ZeroDivisionError), own_randomness(stream):
        raise ZeroDivisionError
    assert stream.state.numpy().tolist() == before
    assert seed_of_step(stream) == sum(before)


def test_a_loaded_model_goes_on_with_the_same_numbers(tmp_path):
    def trained(model, steps):
        for _ in range(steps):
            model.train_on_batch(*two_headed_data())
        return np.concatenate([np.ravel(weight) for weight in model.get_weights()])

    model = two_headed_model(two_headed_network(dropout=0.5))
    trained(model, 3)
    model.save(tmp_path / "model.keras")
    expected = trained(model, 3)
    found = trained(keras.models.load_model(tmp_path / "model.keras"), 3)
    assert found.tolist() == expected.tolist()
