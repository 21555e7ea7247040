"""`GradNorm` against float64 formulas; its regulariser's gradient against the paper's L_grad."""

import numpy as np
import pytest
import references
from autodiff import gradient_by_variable, to_numpy
from weighting_cases import Batch, make_batches, step

from keras_taskrobust.weighting import GradNorm

K = 4
ALPHAS = [0, 0.5, 1.5, 3.0]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_twenty_steps_equal_the_reference(alpha):
    layer, reference = GradNorm(alpha), references.GradNorm(alpha)
    layer.build((K,))
    rng = np.random.default_rng(16)
    for batch in make_batches(20, K, seed=16):
        logits = rng.normal(size=K).astype("float32")
        layer.logits.assign(logits)
        losses = batch.losses.astype("float64")
        slope = gradient_by_variable(
            lambda batch=batch: layer(
                batch.losses, counts=batch.counts, gramian=batch.gramian, training=False
            ),
            layer.logits,
        )
        expected = reference.step(losses, batch.counts, logits.astype("float64"))
        norms = np.sqrt(np.diag(batch.gramian).astype("float64"))
        expected_slope = reference.gradient(losses, batch.counts, logits.astype("float64"), norms)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-4, atol=1e-5)
        assert (slope[batch.counts == 0] == 0).all()
        objective, weights = step(layer, batch)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        # The regulariser trains the logits and adds nothing to the value.
        value = references.objective(expected, losses, batch.counts)
        np.testing.assert_allclose(objective, value, rtol=1e-5)
        np.testing.assert_array_equal(to_numpy(layer.logits), logits)
    first = to_numpy(layer.initial_losses)
    np.testing.assert_allclose(first, [reference.initial[k] for k in range(K)], rtol=1e-6)


def test_the_weights_move_towards_equal_norms():
    layer = GradNorm(alpha=0)
    layer.build((3,))
    gramian = np.diag([9.0, 1.0, 0.25])
    arguments = {"gramian": gramian, "training": False}
    for _ in range(60):
        slope = gradient_by_variable(lambda: layer(np.ones(3), **arguments), layer.logits)
        layer.logits.assign(to_numpy(layer.logits) - 0.05 * slope)
    norms = to_numpy(layer.compute_weights(np.ones(3))) * np.sqrt(np.diag(gramian))
    np.testing.assert_allclose(norms, norms.mean(), rtol=0.15)


def test_a_task_that_learns_slowly_gains_weight():
    layer = GradNorm(alpha=1.5)
    layer(np.array([1.0, 1.0]), gramian=np.eye(2))
    losses = np.array([0.9, 0.3])
    slope = gradient_by_variable(
        lambda: layer(losses, gramian=np.eye(2), training=False), layer.logits
    )
    assert slope[0] < 0 < slope[1]


def test_without_a_gramian_the_stored_weights_serve_and_nothing_learns():
    layer = GradNorm()
    layer.build((2,))
    layer.logits.assign([1.0, -1.0])
    losses = np.array([1.0, 2.0])
    weights = to_numpy(layer.compute_weights(losses))
    np.testing.assert_allclose(weights, 2 * np.exp([1.0, -1.0]) / np.exp([1.0, -1.0]).sum(), 1e-6)

    def objective():
        # `+ 0 * logits`: TensorFlow and PyTorch have no derivative by what was never used.
        return layer(losses, training=False) + 0.0 * layer.logits[0]

    np.testing.assert_array_equal(gradient_by_variable(objective, layer.logits), [0.0, 0.0])


def test_a_loss_that_has_vanished():
    """r = 0: its target is 0; with alpha = 0 all targets are the mean, whatever the losses."""
    # Weighted norms are 1 and 2, their mean 1.5; relative rates 0 and 2. The targets are 0 and
    # 1.5 * 2 ** 1.5, or twice 1.5. The derivative of the weights by the first logit is 0.5, -0.5.
    for alpha, expected in ((1.5, 0.5 * 1.0 - 0.5 * -2.0), (0, 0.5 * -1.0 - 0.5 * 2.0)):
        layer = GradNorm(alpha=alpha)
        layer(np.array([1.0, 1.0]), gramian=np.diag([1.0, 4.0]))
        slope = gradient_by_variable(
            lambda layer=layer: layer(
                np.array([0.0, 1.0]), gramian=np.diag([1.0, 4.0]), training=False
            ),
            layer.logits,
        )
        np.testing.assert_allclose(slope, [expected, -expected], rtol=1e-5)


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_vanished_losses_and_gradients_give_finite_gradients(first):
    layer = GradNorm(alpha=0.5)
    layer(np.array([1.0, first, 2.0]), gramian=np.eye(3))
    for losses, gramian in (
        (np.zeros(3), np.zeros((3, 3))),
        (np.array([0.0, 1.0, 0.0]), np.diag([0.0, 1.0, -1e-9])),
    ):
        arguments = {"gramian": gramian, "training": False}
        slope = gradient_by_variable(
            lambda losses=losses, arguments=arguments: layer(losses, **arguments), layer.logits
        )
        assert np.isfinite(slope).all()
        assert np.isfinite(to_numpy(layer(losses, **arguments)))


def test_a_nonfinite_loss_gives_no_nonfinite_gradient():
    layer = GradNorm()
    layer.build((3,))
    losses = np.array([1.0, np.nan, 2.0], "float32")
    gramian = np.array([[4.0, np.nan, 1.0], [np.nan] * 3, [1.0, np.nan, 1.0]], "float32")
    slope = gradient_by_variable(
        lambda: layer(losses, gramian=gramian, training=False), layer.logits
    )
    assert np.isfinite(slope).all()
    assert slope[1] == 0
    assert slope[0] != 0


def test_a_task_s_first_loss_is_kept():
    layer = GradNorm()
    for losses, counts in (([1.0, 9.0], [1, 0]), ([2.0, 3.0], [1, 1]), ([4.0, 5.0], [1, 1])):
        step(layer, Batch(np.array(losses), np.array(counts), np.eye(2)))
    np.testing.assert_array_equal(to_numpy(layer.initial_losses), [1.0, 3.0])


def test_its_rate_is_the_paper_s_and_it_asks_for_the_gramian():
    assert GradNorm().learning_rate == 0.025
    assert GradNorm().alpha == 1.5
    assert GradNorm.needs == "gramian"


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="`alpha` must be a number >= 0. Received: ") as error:
        GradNorm(alpha=alpha)
    assert str(error.value).endswith(f"alpha={alpha}")
