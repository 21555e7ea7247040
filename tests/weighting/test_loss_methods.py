"""The loss-based methods against float64 references, and against torchjd where it has them."""

import math

import numpy as np
import pytest
import references
import torch
from autodiff import gradient_by_variable, to_numpy
from scipy import special, stats
from torchjd import scalarization
from weighting_cases import Batch, check_step, make_batches, step, step_compiled

import keras_taskrobust as ktr
from keras_taskrobust.weighting._random import advanced, normal

w = ktr.weighting
K = 4
REFERENCE = [0.1, 0.5, 0.0, 1.5]


def chi_square(radius):
    return lambda v: radius - 0.5 * np.sum((len(v) * v - 1) ** 2) / len(v)


def divergence(radius):
    return lambda v: radius - np.sum(special.xlogy(v, len(v) * v))


#: A layer, its reference, and the tolerance: SciPy's own where it searches for the worst case.
CASES = {
    "static": lambda: (w.StaticWeighting(), references.Static(), 1e-7),
    "static_given": lambda: (w.StaticWeighting(REFERENCE), references.Static(REFERENCE), 1e-7),
    "rlw": lambda: (w.RandomLossWeighting(), references.RandomLossWeighting(), 1e-5),
    "rlw_seed": lambda: (w.RandomLossWeighting(9), references.RandomLossWeighting(9), 1e-5),
    "gls": lambda: (w.GeometricLoss(), references.GeometricLoss(), 1e-5),
    "stch": lambda: (w.SmoothTchebycheff(), references.SmoothTchebycheff(K), 1e-5),
    "stch_small": lambda: (
        w.SmoothTchebycheff(0.05, reference_losses=REFERENCE),
        references.SmoothTchebycheff(K, 0.05, reference=REFERENCE),
        1e-5,
    ),
    "stch_nadir": lambda: (
        w.SmoothTchebycheff(0.3, warmup_steps=6, nadir_steps=4),
        references.SmoothTchebycheff(K, 0.3, 6, 4),
        1e-5,
    ),
    "stch_warmup": lambda: (
        w.SmoothTchebycheff(1.0, warmup_steps=3),
        references.SmoothTchebycheff(K, 1.0, 3),
        1e-5,
    ),
    **{
        f"cvar_{fraction}": lambda fraction=fraction: (
            w.ConditionalValueAtRisk(fraction),
            references.WorstCase(upper=lambda n: min(1.0, 1 / (fraction * n))),
            1e-6,
        )
        for fraction in (0.1, 0.5, 0.7, 1.0)
    },
    **{
        f"chi2_dro_{radius}": lambda radius=radius: (
            w.ChiSquareDRO(radius),
            references.WorstCase(chi_square(radius)),
            2e-4,
        )
        for radius in (0.01, 0.2, 1.0)
    },
    **{
        f"kl_dro_{radius}": lambda radius=radius: (
            w.KLDivergenceDRO(radius),
            references.WorstCase(divergence(radius)),
            3e-4,
        )
        for radius in (0.005, 0.1, 0.5)
    },
    "rate_of_improvement": lambda: (
        w.RateOfImprovement(2.0, window=3),
        references.RateOfImprovement(K, 2.0, 3),
        2e-5,
    ),
    "excess_loss": lambda: (w.ExcessLoss(), references.ExcessLoss(K, 1.0, 1e-3), 2e-5),
    "excess_loss_all": lambda: (
        w.ExcessLoss(REFERENCE, 0.4, smoothing=0.2),
        references.ExcessLoss(K, 0.4, 0.2, REFERENCE),
        2e-5,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_reference(case):
    layer, reference, tolerance = CASES[case]()
    for batch in make_batches(20, K, seed=21):
        check_step(layer, reference, batch, tolerance, tolerance, max(tolerance, 1e-5))


# Against torchjd, on all tasks at once; its scalarised loss is differentiated.


def torchjd_weights(scalarizer, losses):
    values = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(scalarizer(values), values)[0].numpy()


@pytest.mark.parametrize("mu", [0.02, 1.0])
def test_stch_and_gls_equal_torchjd(mu):
    for losses in np.random.default_rng(3).gamma(2.0, size=(10, K)):
        reference = torch.tensor(REFERENCE, dtype=torch.float64)
        for layer, peer in (
            (w.GeometricLoss(), scalarization.GeometricMean()),
            (w.SmoothTchebycheff(mu), scalarization.STCH(mu)),
            (
                w.SmoothTchebycheff(mu, reference_losses=REFERENCE),
                scalarization.STCH(mu, reference=reference),
            ),
        ):
            weights = to_numpy(layer.compute_weights(losses))
            np.testing.assert_allclose(weights, torchjd_weights(peer, losses), atol=2e-5)


def test_imtl_l_equals_torchjd():
    layer, peer = w.ImpartialLoss(), scalarization.IMTLL(K).double()
    layer.build((K,))
    rng = np.random.default_rng(4)
    for losses in rng.gamma(2.0, size=(4, K)):
        scales = rng.normal(size=K).astype("float32")
        layer.log_scales.assign(scales)
        with torch.no_grad():
            peer.log_scale.copy_(torch.tensor(scales))
        values = torch.tensor(losses, requires_grad=True)
        objective = peer(values)
        expected, slope = torch.autograd.grad(objective, [values, peer.log_scale])
        np.testing.assert_allclose(to_numpy(layer(losses)), objective.item(), rtol=1e-5)
        np.testing.assert_allclose(to_numpy(layer.compute_weights(losses)), expected, rtol=1e-5)
        actual = gradient_by_variable(lambda losses=losses: layer(losses), layer.log_scales)
        np.testing.assert_allclose(actual, slope.numpy(), rtol=1e-5, atol=1e-5)


def test_imtl_l_of_an_absent_task_has_no_gradient():
    layer = w.ImpartialLoss()
    layer.build((3,))
    counts = np.array([1.0, 0.0, 2.0])
    slope = gradient_by_variable(
        lambda: layer(np.array([2.0, 7.0, 0.5]), counts=counts), layer.log_scales
    )
    np.testing.assert_allclose(slope, [1.0, 0.0, -0.5], atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.01])
def test_famo_equals_torchjd_whose_losses_after_the_update_are_the_next_batch_s(decay):
    minimum = [0.01] * K
    layer = w.FAMO(0.3, weight_decay=decay, minimum_losses=minimum)
    peer = scalarization.FAMO(
        K, torch.tensor(minimum, dtype=torch.float64), lr=0.3, weight_decay=decay
    ).double()
    for number, batch in enumerate(make_batches(20, K, seed=5, absent=0.0)):
        losses = batch.losses.astype("float64") + 0.02
        if number:
            peer.update(torch.tensor(losses))
        expected = torchjd_weights(peer, losses)
        weights = step(layer, batch._replace(losses=losses.astype("float32")))[1]
        np.testing.assert_allclose(weights, expected, atol=1e-4)
    assert np.ptp(to_numpy(layer.logits)) > 0.5


def test_a_task_absent_from_famo_is_compared_with_its_own_last_loss():
    """Two tasks always present move as without the third, until it has two losses."""
    two, three = w.FAMO(0.3), w.FAMO(0.3)
    losses = np.random.default_rng(6).gamma(2.0, size=(6, 3)) + 0.1
    for row in losses:
        expected = step(two, Batch(row[:2], np.ones(2), np.eye(2)))[1]
        weights = step(three, Batch(row, np.array([1, 1, 0]), np.eye(3)))[1]
        np.testing.assert_allclose(weights[:2], expected, atol=1e-6)
    before = to_numpy(three.logits)[2]
    step(three, Batch(losses[0], np.ones(3), np.eye(3)))
    assert to_numpy(three.logits)[2] == before == 0
    step(three, Batch(losses[1], np.ones(3), np.eye(3)))
    assert to_numpy(three.logits)[2] != 0


# Limits.


def test_gls_of_a_vanished_or_negative_loss_is_finite():
    weights = to_numpy(w.GeometricLoss().compute_weights(np.array([0.0, -1.0, 2.0])))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    "layer", [w.ChiSquareDRO(50.0), w.KLDivergenceDRO(50.0), w.ConditionalValueAtRisk(0.01)]
)
def test_a_large_ball_is_the_maximum_and_ties_share(layer):
    layer = type(layer).from_config(layer.get_config())
    for losses, expected in (
        ([1.0, 5.0, 3.0, 2.0], [0, 1, 0, 0]),
        ([5.0, 5.0, 3.0, -1.0], [0.5, 0.5, 0, 0]),
        ([2.0] * 4, [0.25] * 4),
    ):
        weights = to_numpy(layer.compute_weights(np.array(losses)))
        np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("layer", [w.ChiSquareDRO(0.3), w.KLDivergenceDRO(0.2)])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_balls_know_no_scale(layer, scale):
    layer = type(layer).from_config(layer.get_config())
    losses = np.random.default_rng(8).gamma(2.0, size=20)
    expected = to_numpy(layer.compute_weights(losses))
    weights = to_numpy(layer.compute_weights(scale * losses))
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-5)
    if isinstance(layer, w.ChiSquareDRO):
        np.testing.assert_allclose(chi_square(0.3)(weights.astype("float64")), 0, atol=1e-4)
    else:
        np.testing.assert_allclose(divergence(0.2)(weights.astype("float64")), 0, atol=1e-4)


def test_the_rate_of_improvement_is_not_drawn_to_a_high_loss():
    layer = w.RateOfImprovement(window=1)
    for t in range(10):
        layer(np.array([100.0, 1.0]) * 0.9**t)
    weights = to_numpy(layer.compute_weights(np.ones(2)))
    np.testing.assert_allclose(weights, [0.5, 0.5], atol=1e-4)


def test_a_task_below_its_reference_draws_no_weight():
    layer = w.ExcessLoss([5.0, 5.0], smoothing=0.0)
    for _ in range(5):
        layer(np.array([4.9, 0.1]))
    np.testing.assert_allclose(to_numpy(layer.compute_weights(np.array([4.9, 0.1]))), [0.5, 0.5])


# Random numbers.


def test_random_numbers_are_normal_and_independent():
    steps, streams = np.arange(400), np.arange(25, dtype="float32")
    drawn = np.array([to_numpy(normal(3, float(t), streams)) for t in steps])
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    neighbours = (
        (drawn[1:], drawn[:-1]),
        (drawn[:, 1:], drawn[:, :-1]),
        (drawn[1:, 1:], drawn[:-1, :-1]),
    )
    for one, other in neighbours:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(one.size)
    other_seed = np.array([to_numpy(normal(4, float(t), streams)) for t in steps])
    assert abs(np.corrcoef(drawn.ravel(), other_seed.ravel())[0, 1]) < 4 / math.sqrt(drawn.size)


def test_the_counter_starts_over_where_float32_stops_counting():
    assert float(advanced(np.float32(2**24 - 1))) == 0
    assert float(advanced(np.float32(7))) == 8


def test_random_weights_average_to_equal_ones():
    layer = w.RandomLossWeighting()
    layer.build((3,))
    batch = Batch(np.ones(3), np.ones(3), np.eye(3))
    weights = [step_compiled(layer, batch)[1] for _ in range(300)]
    np.testing.assert_allclose(np.mean(weights, axis=0), 1 / 3, atol=0.05)
    assert np.std(weights, axis=0).min() > 0.1


# Arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: w.StaticWeighting([1.0, -1.0]), "`weights` must be numbers >= 0. Received"),
        (lambda: w.StaticWeighting(["a"]), "`weights` must be finite numbers. Received"),
        (lambda: w.StaticWeighting({"price": 1.0}), "in the order of the model's `task_names`"),
        (lambda: w.RandomLossWeighting(-1), "`seed` must be an integer >= 0. Received: seed=-1"),
        (lambda: w.SmoothTchebycheff(0), "`mu` must be a positive number. Received: mu=0"),
        (lambda: w.SmoothTchebycheff(warmup_steps=1.5), "`warmup_steps` must be an integer >= 0"),
        (
            lambda: w.SmoothTchebycheff(warmup_steps=1, nadir_steps=2),
            "`nadir_steps` must be at most `warmup_steps`. Received: nadir_steps=2, warmup_steps=1",
        ),
        (
            lambda: w.SmoothTchebycheff(warmup_steps=1, reference_losses=[1.0]),
            "`reference_losses` is the ideal point of the plain form",
        ),
        (lambda: w.ConditionalValueAtRisk(1.5), "`fraction` must be a number above 0 and at most"),
        (lambda: w.ChiSquareDRO(0), "`radius` must be a positive number. Received: radius=0"),
        (lambda: w.KLDivergenceDRO(True), "`radius` must be a positive number. Rec.*radius=True"),
        (lambda: w.FAMO(weighting_rate=0), "`weighting_rate` must be a positive number. Received"),
        (lambda: w.FAMO(weight_decay=-1), "`weight_decay` must be a number >= 0. Received"),
        (lambda: w.RateOfImprovement(window=0), "`window` must be an integer >= 1. Received"),
        (lambda: w.ExcessLoss(smoothing=1.0), "`smoothing` must be at least 0 and less than 1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "layer",
    [
        lambda: w.StaticWeighting([1.0, 2.0]),
        lambda: w.SmoothTchebycheff(reference_losses=[1.0, 2.0]),
        lambda: w.FAMO(minimum_losses=[1.0, 2.0]),
        lambda: w.ExcessLoss([1.0, 2.0]),
    ],
)
def test_one_value_for_each_task(layer):
    with pytest.raises(ValueError, match="must hold one value for each of the 3 tasks. Received"):
        layer().build((3,))


def test_a_nadir_without_smoothing_keeps_the_ratios_of_weights():
    layer = w.SmoothTchebycheff(warmup_steps=1)
    nadir, counts = np.array([4.0, 1.0, 2.0, 8.0]), np.ones(K)
    layer(nadir, counts)
    for losses in np.random.default_rng(0).uniform(0.1, 9.0, (3, K)):
        expected = K / nadir / (losses / nadir).sum()
        weights = to_numpy(layer.compute_weights(losses, counts))
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
