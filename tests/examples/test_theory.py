"""The numbers of `examples/theory.py`, against closed forms and simulation."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import lambertw

EXAMPLE = Path(__file__).parents[2] / "examples" / "theory.py"
#: Weights are float32.
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def theory():
    """What the example computes in its small size."""
    backend = matplotlib.get_backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOKE", "1")
        plt.switch_backend("template")
        patch.setattr(plt, "show", lambda: plt.close("all"))
        names = runpy.run_path(str(EXAMPLE))
    plt.switch_backend(backend)
    return SimpleNamespace(**names)


def test_the_gap_is_below_its_bound_and_reaches_it(theory):
    bounds = lambertw((theory.NUMBERS - 1) / np.e).real / theory.ALPHA
    assert (theory.random_gaps <= bounds[:, None] + ROUNDING).all()
    np.testing.assert_allclose(theory.worst_gaps, bounds, atol=ROUNDING)
    assert (bounds <= np.log(theory.NUMBERS) / theory.ALPHA).all()


def test_training_obeys_its_bound_under_every_schedule(theory):
    for key, excess in theory.training.items():
        assert (excess >= -ROUNDING).all()
        assert (excess <= theory.training_bounds[key] + ROUNDING).all()


@pytest.mark.parametrize("number", [2, 16])
def test_a_fixed_alpha_keeps_the_floor_of_the_closed_form(theory, number):
    fixed = theory.training[f"alpha = {theory.FIXED:g}", number]
    floor = np.log(number - 1) / (2 * theory.FIXED)
    assert fixed[-1] == pytest.approx(floor, abs=2 / theory.LENGTHS[-1] ** 0.5)
    bound = theory.training_bounds[f"alpha = {theory.FIXED:g}", number][-1]
    assert bound - theory.LENGTHS[-1] ** -0.5 >= floor


def test_growing_alphas_end_below_a_fixed_one(theory):
    fixed = theory.training[f"alpha = {theory.FIXED:g}", 16][-1]
    for name in ("alpha = sqrt(T)", "alpha_t = sqrt(t)"):
        assert theory.training[name, 16][-1] < 0.75 * fixed


def test_minimax_never_loses_where_downstream_contains_upstream_and_can_elsewhere(theory):
    mean, minimax = theory.inherited["contains each upstream risk"].T
    assert (minimax <= mean + ROUNDING).all()
    mean, minimax = theory.inherited["two mixtures of them only"].T
    assert (minimax > mean + 0.01).any()


def test_the_gain_grows_with_the_number_of_tasks(theory):
    np.testing.assert_allclose(theory.gains, theory.expected_gains, rtol=0.01)
    gains = dict(zip(theory.COUNTS.tolist(), theory.gains, strict=True))
    assert gains[9] == pytest.approx(3.54, rel=0.01)
    assert gains[100] == pytest.approx(29.9, rel=0.01)


def test_fine_tuning_stays_in_its_ball_and_risks_do_not_rise(theory):
    distances, risks = theory.fine_tuning[..., 0], theory.fine_tuning[..., 1]
    bounds = np.sqrt(2 * np.array(theory.initial_risks) / theory.MU)
    assert (distances <= bounds[:, None]).all()
    assert (np.diff(risks, axis=1) <= 0).all()
    np.testing.assert_allclose(risks[:, 0], theory.initial_risks)


def test_the_samples_needed_are_below_their_bound_and_grow_with_the_logarithm(theory):
    assert (theory.samples <= theory.sample_bounds).all()
    assert (np.diff(theory.samples) > 0).all()
    # A union bound, exact for rare events, to the leading order: log(2 * places) / (2 error^2).
    slope = np.diff(theory.samples) / np.diff(np.log(theory.ball))
    assert (slope < 1.2 / (2 * theory.ERROR**2)).all()


def test_the_samples_needed_are_those_of_a_simulation(theory):
    radius = int(theory.ball[0])
    number = int(theory.samples_needed(radius))
    rng = np.random.default_rng(0)
    for size, is_enough in ((number // 2, False), (2 * number, True)):
        heads = rng.binomial(size, 0.5, (4000, 2 * radius + 1))
        largest = np.abs(heads / size - 0.5).max(axis=1)
        assert (np.mean(largest > theory.ERROR + 1e-9) <= theory.DELTA) == is_enough
