"""`UncertaintyWeighting` against float64 formulas, its gradient by s included."""

import numpy as np
import pytest
import references
from autodiff import gradient_by_variable, to_numpy
from weighting_cases import make_batches, step

from keras_taskrobust.weighting import UncertaintyWeighting

K = 4
each_form = pytest.mark.parametrize("half", [False, True])


@each_form
def test_twenty_steps_equal_the_reference(half):
    layer, reference = UncertaintyWeighting(half=half), references.Uncertainty(half)
    layer.build((K,))
    rng = np.random.default_rng(14)
    for batch in make_batches(20, K, seed=14):
        s = rng.normal(size=K).astype("float32")
        layer.log_variances.assign(s)
        losses, s = batch.losses.astype("float64"), s.astype("float64")
        objective, weights = step(layer, batch)
        np.testing.assert_allclose(weights, reference.step(losses, batch.counts, s), atol=1e-5)
        expected = reference.objective(losses, batch.counts, s)
        np.testing.assert_allclose(objective, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(to_numpy(layer.log_variances), s)


@each_form
def test_the_gradient_by_s(half):
    layer, reference = UncertaintyWeighting(half=half), references.Uncertainty(half)
    layer.build((K,))
    rng = np.random.default_rng(15)
    for batch in make_batches(5, K, seed=15, absent=0.4):
        s = rng.normal(size=K).astype("float32")
        layer.log_variances.assign(s)
        actual = gradient_by_variable(
            lambda batch=batch: layer(batch.losses, counts=batch.counts), layer.log_variances
        )
        losses, s = batch.losses.astype("float64"), s.astype("float64")
        expected = reference.gradient(losses, batch.counts, s)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        width = 1e-6
        differences = [
            reference.objective(losses, batch.counts, s + e)
            - reference.objective(losses, batch.counts, s - e)
            for e in width * np.eye(K)
        ]
        np.testing.assert_allclose(actual, np.array(differences) / (2 * width), atol=1e-5)
        assert (actual[batch.counts == 0] == 0).all()


@each_form
def test_s_starts_at_zero_and_rests_at_the_logarithm_of_the_loss(half):
    layer = UncertaintyWeighting(half=half)
    losses = np.array([0.5, 4.0, 30.0], "float32")
    value = to_numpy(layer(losses))
    assert value == pytest.approx(losses.sum() * (0.5 if half else 1.0))
    np.testing.assert_array_equal(to_numpy(layer.log_variances), np.zeros(3))
    layer.log_variances.assign(np.log(losses))
    slope = gradient_by_variable(lambda: layer(losses), layer.log_variances)
    np.testing.assert_allclose(slope, np.zeros(3), atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nonfinite_loss_gives_s_no_gradient(bad):
    layer = UncertaintyWeighting()
    losses = np.array([2.0, bad, 0.5], "float32")
    layer.build((3,))
    slope = gradient_by_variable(lambda: layer(losses), layer.log_variances)
    np.testing.assert_allclose(slope, [-1.0, 0.0, 0.5], atol=1e-6)


@pytest.mark.parametrize("half", [None, 1, 0.5, "yes"])
def test_bad_half(half):
    with pytest.raises(ValueError, match=f"`half` must be a bool. Received: half={half}"):
        UncertaintyWeighting(half=half)
