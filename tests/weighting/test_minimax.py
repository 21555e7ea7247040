"""`SoftmaxWeightedLoss` against float64 references and against the mathematics of the paper."""

import keras
import numpy as np
import pytest
import references
from autodiff import gradient, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy import special
from weighting_cases import check_step, make_batches

import keras_taskrobust as ktr
from keras_taskrobust.weighting import HardMaximum, SoftmaxWeightedLoss, SquareRootSchedule

K = 4
REFERENCE = [0.5, 0.0, 1.5, -1.0]
TRIVIAL = [2.0, 0.5, 7.0, 3.0]


@keras.saving.register_keras_serializable("tests")
def halving(step):
    return 4.0 / (1.0 + step)


CASES = {
    "constant": (SoftmaxWeightedLoss(2.5), references.Minimax(2.5)),
    "default": (SoftmaxWeightedLoss(), references.Minimax(1.0)),
    "tiny": (SoftmaxWeightedLoss(1e-3), references.Minimax(1e-3)),
    "sharp": (SoftmaxWeightedLoss(1e4), references.Minimax(1e4)),
    "momentum": (
        SoftmaxWeightedLoss(3.0, loss_momentum=0.9),
        references.Minimax(3.0, momentum=0.9),
    ),
    "reference_losses": (
        SoftmaxWeightedLoss(1.5, reference_losses=REFERENCE),
        references.Minimax(1.5, reference=REFERENCE),
    ),
    "square_root": (
        SoftmaxWeightedLoss(SquareRootSchedule(0.7)),
        references.Minimax(lambda t: 0.7 * t**0.5),
    ),
    "callable": (SoftmaxWeightedLoss(halving), references.Minimax(lambda t: 4.0 / t)),
    "keras_schedule": (
        SoftmaxWeightedLoss(keras.optimizers.schedules.PolynomialDecay(1.0, 10, 5.0)),
        references.Minimax(lambda t: 1.0 + 4.0 * min(t - 1, 10) / 10),
    ),
    "memory": (SoftmaxWeightedLoss(3.0, loss_memory=6), references.Minimax(3.0, memory=6)),
    "anchored": (
        SoftmaxWeightedLoss(4.0, trivial_losses=TRIVIAL),
        references.Minimax(4.0, trivial=TRIVIAL),
    ),
    "unit_free": (
        SoftmaxWeightedLoss(4.0, 0.8, REFERENCE, trivial_losses=TRIVIAL, unit_free=True),
        references.Minimax(4.0, 0.8, REFERENCE, trivial=TRIVIAL, unit_free=True),
    ),
    "largest_score": (
        SoftmaxWeightedLoss(
            SquareRootSchedule(), loss_memory=3, trivial_losses=TRIVIAL, largest_score=0.5
        ),
        references.Minimax(lambda t: t**0.5, memory=3, trivial=TRIVIAL, largest=0.5),
    ),
    "everything": (
        SoftmaxWeightedLoss(SquareRootSchedule(), 0.5, REFERENCE),
        references.Minimax(lambda t: t**0.5, 0.5, REFERENCE),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_reference(case):
    layer, reference = CASES[case]
    everything = []
    for batch in make_batches(20, K, seed=11):
        everything.append(check_step(layer, reference, batch))
    assert np.std(everything, axis=0).max() > 1e-4


def smooth_maximum(losses, alpha):
    return special.logsumexp(alpha * losses) / alpha


@pytest.mark.parametrize("alpha", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_the_gradient_is_that_of_the_smooth_maximum(alpha):
    losses = np.array([0.2, 1.4, 0.9, 1.35])
    layer = SoftmaxWeightedLoss(alpha)
    slope = gradient(lambda x: layer(x), losses)
    width = 1e-5 / alpha
    differences = [
        (smooth_maximum(losses + e, alpha) - smooth_maximum(losses - e, alpha)) / (2 * width)
        for e in width * np.eye(4)
    ]
    np.testing.assert_allclose(slope, differences, atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.compute_weights(losses)), differences, atol=1e-5)


def test_with_reference_losses_the_gradient_is_that_of_the_excess():
    losses, width = np.array([0.2, 1.4, 0.9, 1.35]), 1e-5
    layer = SoftmaxWeightedLoss(2.0, reference_losses=REFERENCE)
    excess = losses - REFERENCE
    differences = [
        (smooth_maximum(excess + e, 2.0) - smooth_maximum(excess - e, 2.0)) / (2 * width)
        for e in width * np.eye(K)
    ]
    np.testing.assert_allclose(gradient(lambda x: layer(x), losses), differences, atol=1e-5)


def numeric_slope(function, at):
    """Central differences in float64."""
    widths = 1e-6 * np.maximum(abs(at), 1e-2)
    return np.array(
        [
            (function(at + e) - function(at - e)) / (2 * width)
            for e, width in zip(np.diag(widths), widths, strict=True)
        ]
    )


@pytest.mark.parametrize("reference", [None, [0.5, 0.0, 1.5, -1.0]])
@pytest.mark.parametrize("alpha", [0.3, 3.0, 10.0])
def test_the_gradient_over_trivial_losses_is_that_of_the_docstring(alpha, reference):
    losses, trivial = np.array([1.4, 0.4, 5.0, 2.0]), np.array(TRIVIAL)
    floor = np.array(reference or 0.0)
    units = trivial - floor

    def unit_free(values):
        return smooth_maximum((values - floor) / units, alpha)

    def anchored(values):
        return special.logsumexp(alpha * (values - floor) / units, b=units) / alpha

    options = {"reference_losses": reference, "trivial_losses": TRIVIAL}
    layer = SoftmaxWeightedLoss(alpha, **options, unit_free=True)
    slope = gradient(lambda x: layer(x), losses)
    np.testing.assert_allclose(slope, numeric_slope(unit_free, losses), rtol=2e-5, atol=1e-6)
    slope = gradient(lambda x: SoftmaxWeightedLoss(alpha, **options)(x), losses)
    factor = special.softmax(alpha * (losses - floor) / units) @ units
    expected = factor * numeric_slope(anchored, losses)
    np.testing.assert_allclose(slope, expected, rtol=2e-5, atol=1e-6)


def test_the_gaps_over_trivial_losses_stay_within_their_bounds():
    """Of scores: unit-free as Theorem 3.1, anchored as a softmax with the prior `T / sum(T)`."""
    trivial = np.array([1.0, 0.25, 4.0, 16.0])
    prior = trivial / trivial.sum()
    bounds = {
        True: special.lambertw((K - 1) / np.e).real,
        False: special.lambertw((1 - prior.min()) / (np.e * prior.min())).real,
    }
    rng = np.random.default_rng(0)
    for alpha in (1.0, 10.0):
        layers = {
            unit_free: SoftmaxWeightedLoss(alpha, trivial_losses=trivial, unit_free=unit_free)
            for unit_free in (True, False)
        }
        for scores in rng.exponential(2.0 / alpha, size=(20, K)):
            for unit_free, layer in layers.items():
                weights = to_numpy(layer.compute_weights(scores * trivial)).astype("float64")
                direction = weights * trivial  # the weights of the gradients of the scores
                gap = scores.max() - direction @ scores / direction.sum()
                assert -1e-5 <= gap <= bounds[unit_free] / alpha + 1e-5
    scores = np.zeros(K)
    scores[1] = (1.0 + bounds[False]) / alpha  # the task of the least prior, at the worst distance
    direction = to_numpy(layers[False].compute_weights(scores * trivial)) * trivial
    gap = scores.max() - direction @ scores / direction.sum()
    np.testing.assert_allclose(gap, bounds[False] / alpha, rtol=1e-4)


@given(st.lists(st.integers(-20, 20), min_size=K, max_size=K), st.booleans())
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_units_do_not_matter(exponents, has_momentum):
    """Losses times powers of two: the same shares to the bit, weights divided by the factors."""
    factors = 2.0 ** np.array(exponents)
    momentum = 0.5 if has_momentum else 0.0
    layers = [
        SoftmaxWeightedLoss(3.0, momentum, trivial_losses=scale * np.array(TRIVIAL), unit_free=True)
        for scale in (np.ones(K), factors)
    ]
    for losses in np.random.default_rng(0).uniform(0.1, 5.0, (3, K)).astype("float32"):
        plain, scaled = (
            to_numpy(layer(losses * scale, return_weights=True)[1])
            for layer, scale in zip(layers, (1.0, factors), strict=True)
        )
        np.testing.assert_array_equal(plain, scaled * factors.astype("float32"))


def test_what_lies_above_the_largest_score_is_not_told_apart():
    layer = SoftmaxWeightedLoss(5.0, trivial_losses=[1.0, 1.0, 1.0], largest_score=0.8)
    weights = to_numpy(layer.compute_weights(np.array([0.9, 3.0, 0.2])))
    np.testing.assert_allclose(weights, special.softmax(5.0 * np.array([0.8, 0.8, 0.2])), rtol=1e-6)


@pytest.mark.parametrize("reference", [None, [0.5, 0.0, 1.5, -1.0]])
def test_weights_that_are_not_detached(reference):
    losses, alpha = np.array([0.2, 1.4, 0.9, 5.0]), 1.5
    floor = np.array(reference or 0.0)
    layer = SoftmaxWeightedLoss(alpha, reference_losses=reference, through_weights=True)
    weights = to_numpy(layer.compute_weights(losses))
    expected = numeric_slope(lambda x: special.softmax(alpha * (x - floor)) @ x, losses)
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    assert weights.min() < 0
    assert not layer.facts.nonnegative


def test_a_memory_counts_elements_not_batches():
    """A batch of 30 and two of 15 leave much the same; one element changes little."""
    layer = SoftmaxWeightedLoss(1.0, loss_memory=30)
    layer(np.array([2.0, 2.0]), np.array([30, 1000]))
    layer(np.array([8.0, 2.0]), np.array([1, 0]))
    kept = 29 / 30
    average = (kept * 30 * 2.0 + 8.0) / (kept * 30 + 1)
    weights = to_numpy(layer.compute_weights(np.array([9.0, 9.0]), np.array([1e-6, 1e-6])))
    np.testing.assert_allclose(weights, special.softmax([average, 2.0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_memory": 1}, "`loss_memory` must be a number above 1"),
        ({"loss_memory": float("inf")}, "`loss_memory` must be a number above 1"),
        ({"loss_memory": 5, "loss_momentum": 0.5}, "`loss_memory` takes the place"),
        ({"trivial_losses": [1.0, 0.0]}, "`trivial_losses` must lie above 0"),
        (
            {"trivial_losses": [1.0, 1.0], "reference_losses": [0.2, 0.9995]},
            "`trivial_losses` must lie above 0, or above the `ref.*0.9995",
        ),
        ({"trivial_losses": [1.0, 1.0], "reference_losses": [0.2]}, "`trivial_losses` must lie"),
        ({"trivial_losses": [1.0, float("nan")]}, "`trivial_losses` must be finite numbers"),
        ({"unit_free": True}, "which need `trivial_losses`"),
        ({"largest_score": 2.0}, "which need `trivial_losses`"),
        ({"trivial_losses": [1.0, 1.0], "largest_score": 0}, "`largest_score` must be a positive"),
        ({"unit_free": 1}, "`unit_free` must be"),
        ({"through_weights": True, "loss_momentum": 0.5}, "`through_weights` is the derivative"),
        ({"through_weights": True, "loss_memory": 5}, "`through_weights` is the derivative"),
        ({"through_weights": True, "trivial_losses": [1.0]}, "`through_weights` is the derivative"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message) as error:
        SoftmaxWeightedLoss(**options)
    assert "Received: " in str(error.value)


def test_small_alpha_is_the_mean_and_large_alpha_the_maximum():
    losses = np.array([0.2, 1.4, 0.9, 1.35])
    mean = to_numpy(SoftmaxWeightedLoss(1e-7).compute_weights(losses))
    np.testing.assert_allclose(mean, np.full(4, 0.25), atol=1e-6)
    sharp = SoftmaxWeightedLoss(1e4)
    np.testing.assert_array_equal(to_numpy(sharp.compute_weights(losses)), [0, 1, 0, 0])
    np.testing.assert_array_equal(
        to_numpy(sharp.compute_weights(losses)), to_numpy(HardMaximum().compute_weights(losses))
    )
    tied = np.array([2.0, 1.0, 2.0, 0.0])
    np.testing.assert_array_equal(to_numpy(sharp.compute_weights(tied)), [0.5, 0, 0.5, 0])


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e30])
def test_large_alpha_and_large_losses_do_not_overflow(scale):
    losses = np.array([1.0, 3.0, 2.0]) * scale
    objective, weights = SoftmaxWeightedLoss(1e4)(losses, return_weights=True)
    np.testing.assert_array_equal(to_numpy(weights), [0, 1, 0])
    np.testing.assert_allclose(float(objective), 3.0 * scale, rtol=1e-6)


def test_alpha_1e4_is_exact_for_close_losses():
    losses = np.array([64.0, 64.0 - 2**-13, 64.0 - 2**-12], "float32")
    expected = special.softmax(1e4 * losses.astype("float64"))
    weights = to_numpy(SoftmaxWeightedLoss(1e4).compute_weights(losses))
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert 0.1 < weights[1] < 0.3


def test_weights_depend_on_differences_of_losses_only():
    losses = np.array([0.5, 1.0, 0.25])
    layer = SoftmaxWeightedLoss(2.0)
    np.testing.assert_array_equal(
        to_numpy(layer.compute_weights(losses)), to_numpy(layer.compute_weights(losses + 512.0))
    )


@pytest.mark.parametrize("number", [2, 5, 9, 100])
def test_the_objective_stays_within_the_bound_of_theorem_3_1(number):
    """max L - sum_k w_k L_k <= W0((K-1)/e) / alpha, reached when K-1 tasks tie at the right gap."""
    rng = np.random.default_rng(number)
    bound = special.lambertw((number - 1) / np.e).real
    assert bound <= np.log(number)
    for alpha in (0.3, 1.0, 10.0):
        layer = SoftmaxWeightedLoss(alpha)
        for losses in rng.exponential(2.0 / alpha, size=(3, number)):
            gap = losses.max() - float(layer(losses))
            assert -1e-5 <= gap <= bound / alpha + 1e-5
        losses = np.full(number, 5.0)
        losses[1:] -= (1.0 + bound) / alpha
        np.testing.assert_allclose(5.0 - float(layer(losses)), bound / alpha, rtol=1e-4, atol=1e-5)


def test_the_square_root_schedule_counts_training_calls():
    schedule = SquareRootSchedule(2.0)
    np.testing.assert_allclose([float(schedule(t)) for t in (0, 3, 8)], [2.0, 4.0, 6.0])
    layer = SoftmaxWeightedLoss(schedule)
    losses = np.array([0.0, 1.0])
    for t in range(1, 5):
        layer(losses, training=False)
        expected = special.softmax(2.0 * np.sqrt(t) * losses)
        np.testing.assert_allclose(to_numpy(layer.compute_weights(losses)), expected, rtol=1e-5)
        layer(losses)


def test_momentum_weighs_the_average_and_sums_the_batch():
    layer = SoftmaxWeightedLoss(1.0, loss_momentum=0.5)
    layer(np.array([4.0, 0.0]))
    objective, weights = layer(np.array([0.0, 2.0]), return_weights=True)
    expected = special.softmax([2.0, 1.0])
    np.testing.assert_allclose(to_numpy(weights), expected, rtol=1e-6)
    np.testing.assert_allclose(float(objective), 2.0 * expected[1], rtol=1e-6)


@pytest.mark.parametrize("alpha", [-1, -0.5, 0, float("nan"), float("inf"), True, None, "1", [1.0]])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match="`alpha` must be a positive number or a sch.*Rec") as e:
        SoftmaxWeightedLoss(alpha)
    assert f"alpha={alpha}" in str(e.value)


def test_alpha_beyond_float32_is_refused():
    with pytest.raises(ValueError, match=r"`alpha` must be .*Received: alpha=1e\+39"):
        SoftmaxWeightedLoss(1e39)
    layer = SoftmaxWeightedLoss(3e38)
    np.testing.assert_array_equal(to_numpy(layer.compute_weights(np.array([1.0, 2.0]))), [0, 1])


@pytest.mark.parametrize("momentum", [1, 1.0, 1.5, -0.1, float("nan"), "0.9", None, True])
@pytest.mark.parametrize("method", [SoftmaxWeightedLoss, ktr.weighting.GroupDRO])
def test_bad_loss_momentum(method, momentum):
    message = "`loss_momentum` must be .*at least 0 and less than 1. Received: loss_momentum="
    with pytest.raises(ValueError, match=message) as error:
        method(loss_momentum=momentum)
    assert str(error.value).endswith(f"loss_momentum={momentum}")


@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("inf"), 0.0], 3.0, "ab", [None]])
def test_bad_reference_losses(values):
    with pytest.raises(ValueError, match="`reference_losses` must .*Received: reference_losses="):
        SoftmaxWeightedLoss(reference_losses=values)


@pytest.mark.parametrize("name", ["reference_losses", "trivial_losses"])
@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0] * 4, []])
def test_losses_of_another_number_of_tasks(values, name):
    layer = SoftmaxWeightedLoss(**{name: values})
    with pytest.raises(ValueError, match=rf"each of the 3 tasks. Received: {name}="):
        layer.build((3,))


@pytest.mark.parametrize("scale", [0, -2.0, float("nan"), float("inf"), False, "1"])
def test_bad_schedule_scale(scale):
    with pytest.raises(ValueError, match=f"`scale` must be a positive number. .*scale={scale}"):
        SquareRootSchedule(scale)


def test_numpy_numbers_are_numbers():
    layer = SoftmaxWeightedLoss(
        np.float32(2.0), loss_momentum=np.float32(0.5), reference_losses=np.ones(2, "float32")
    )
    plain = SoftmaxWeightedLoss(2.0, loss_momentum=0.5, reference_losses=[1.0, 1.0])
    losses = np.array([1.0, 2.0])
    np.testing.assert_array_equal(
        to_numpy(layer.compute_weights(losses)), to_numpy(plain.compute_weights(losses))
    )
    assert {**layer.get_config(), "name": ""} == {**plain.get_config(), "name": ""}
    assert type(layer.get_config()["alpha"]) is float


@pytest.mark.parametrize(
    "alpha", [halving, SquareRootSchedule(3.0), keras.optimizers.schedules.CosineDecay(2.0, 9)]
)
def test_a_registered_schedule_is_saved(alpha):
    layer = SoftmaxWeightedLoss(alpha)
    copy = ktr.weighting.get(keras.saving.serialize_keras_object(layer))
    assert type(copy.alpha) is type(alpha)
    for t in (0.0, 3.0):
        assert float(copy.alpha(ops.array(t))) == float(alpha(ops.array(t)))
