"""Uniform, pooled and hard maximum against float64 references."""

import numpy as np
import pytest
import references
from autodiff import to_numpy
from weighting_cases import check_step, make_batches

from keras_taskrobust.weighting import HardMaximum, PooledWeighting, UniformWeighting

K = 4
CASES = {
    "uniform": (UniformWeighting(), references.Uniform()),
    "pooled": (PooledWeighting(), references.Pooled()),
    "hard_max": (HardMaximum(), references.HardMaximum()),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_reference(case):
    layer, reference = CASES[case]
    for batch in make_batches(20, K, seed=17):
        check_step(layer, reference, batch)


def test_pooled_is_the_mean_over_elements():
    elements = [np.array([1.0, 2.0, 6.0]), np.array([10.0]), np.array([])]
    losses = np.array([3.0, 10.0, 0.0])
    objective = PooledWeighting()(losses, counts=np.array([3, 1, 0]))
    assert float(objective) == pytest.approx(np.concatenate(elements).mean())


def test_hard_max_of_negative_losses_and_ties():
    weights = HardMaximum().compute_weights(
        np.array([-1.0, 0.0, -1.0, -4.0]), counts=np.array([1, 0, 1, 1])
    )
    np.testing.assert_array_equal(to_numpy(weights), [0.5, 0.0, 0.5, 0.0])
    # An absent task's masked loss is 0, but it ties with nobody.
    weights = HardMaximum().compute_weights(np.array([0.0, 9.0, 0.0, -1.0]), np.array([1, 0, 0, 1]))
    np.testing.assert_array_equal(to_numpy(weights), [1.0, 0.0, 0.0, 0.0])
