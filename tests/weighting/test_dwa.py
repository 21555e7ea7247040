"""`DynamicWeightAverage` against a float64 reference of equation 7 of Liu et al."""

import numpy as np
import pytest
import references
from autodiff import to_numpy
from scipy import special
from weighting_cases import Batch, check_step, make_batches, step

from keras_taskrobust.weighting import DynamicWeightAverage

K = 4


@pytest.mark.parametrize("temperature", [2.0, 0.5])
@pytest.mark.parametrize("window", [1, 4])
def test_twenty_steps_equal_the_reference(temperature, window):
    layer = DynamicWeightAverage(temperature, window)
    reference = references.DynamicWeightAverage(K, temperature, window)
    everything = []
    for batch in make_batches(20, K, seed=13, absent=0.4):
        everything.append(check_step(layer, reference, batch))
    assert np.std(everything[3 * window :], axis=0).min() > 1e-2


def test_the_first_two_windows_are_even():
    layer = DynamicWeightAverage(window=3)
    for losses in np.random.default_rng(0).uniform(1, 5, size=(6, 2)):
        objective, weights = layer(losses, return_weights=True)
        np.testing.assert_allclose(to_numpy(weights), [1.0, 1.0], rtol=1e-6)
        np.testing.assert_allclose(float(objective), losses.sum(), rtol=1e-6)
    weights = to_numpy(layer.compute_weights(np.ones(2)))
    assert abs(weights[0] - 1.0) > 1e-3


def test_the_windows_are_means():
    layer = DynamicWeightAverage(temperature=1.0, window=2)
    for losses in ([1.0, 3.0], [3.0, 1.0], [1.0, 5.0], [2.0, 3.0]):
        layer(np.array(losses))
    expected = 2 * special.softmax([1.5 / 2.0, 4.0 / 2.0])
    np.testing.assert_allclose(to_numpy(layer.compute_weights(np.ones(2))), expected, rtol=1e-6)


def test_a_task_absent_for_a_window_keeps_its_means():
    layer = DynamicWeightAverage(temperature=1.0)
    for losses in ([1.0, 4.0], [2.0, 1.0]):
        layer(np.array(losses))
    step(layer, Batch(np.array([1.0, 77.0]), np.array([1, 0]), np.eye(2)))
    expected = 2 * special.softmax([0.5, 0.25])
    np.testing.assert_allclose(to_numpy(layer.compute_weights(np.ones(2))), expected, rtol=1e-6)


def test_a_loss_of_zero_before_counts_as_no_progress():
    layer = DynamicWeightAverage(temperature=1.0)
    for losses in ([0.0, 1.0], [5.0, 1.0]):
        layer(np.array(losses))
    np.testing.assert_allclose(to_numpy(layer.compute_weights(np.ones(2))), [1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "2", None])
def test_bad_temperature(value):
    with pytest.raises(ValueError, match="`temperature` must be a positive number. Rec") as error:
        DynamicWeightAverage(temperature=value)
    assert str(error.value).endswith(f"temperature={value}")


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, float("nan"), True, "2", None])
def test_bad_window(value):
    with pytest.raises(ValueError, match="`window` must be an integer >= 1. Received") as error:
        DynamicWeightAverage(window=value)
    assert str(error.value).endswith(f"window={value}")


def test_a_numpy_window():
    layer = DynamicWeightAverage(window=np.int64(3))
    assert layer.get_config()["window"] == 3
    assert type(layer.get_config()["window"]) is int
