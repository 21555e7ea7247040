"""Random numbers as a function of counters: SplitMix64 as published, uniform, independent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_taskrobust.randomness import (
    generator,
    hash_counters,
    permute,
    shuffled,
    shuffled_epoch,
    to_unit_interval,
)

pytestmark = pytest.mark.backend_free


def test_a_generator_is_a_function_of_its_counters():
    drawn = [generator(*key).random(3).tolist() for key in ((1, 2), (1, 2), (2, 1), (1, 2, 1))]
    assert drawn[0] == drawn[1]
    assert len({tuple(numbers) for numbers in drawn}) == 3


def test_every_epoch_has_an_order_of_its_own():
    epochs = [shuffled_epoch(50, 7, epoch) for epoch in range(3)]
    assert len({tuple(order) for order in epochs}) == 3
    for epoch, order in enumerate(epochs):
        assert sorted(order) == list(range(50))
        assert np.array_equal(shuffled(np.array([3, 49]), 50, 7, epoch), order[[3, 49]])


def test_splitmix64_gives_its_published_numbers():
    # The first numbers of SplitMix64 from the state 0 (Vigna's reference, splitmix64.c).
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert hash_counters(np.arange(3)).tolist() == published


def test_hashed_counters_look_uniform_and_independent():
    grid = to_unit_interval(hash_counters(3, np.arange(200)[:, None], np.arange(200)))
    assert stats.kstest(grid.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.02
    assert hash_counters(1, 2) != hash_counters(2, 1)


@given(st.integers(1, 500), st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size, key):
    permuted = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(permuted), np.arange(size))
    assert permute(np.array([size - 1]), size, key)[0] == permuted[-1]


@pytest.mark.parametrize("size", [50, 300])
def test_permutations_are_uniform(size):
    places = np.array([permute(np.arange(6), size, key) for key in range(2000)])
    for column in places.T:
        assert stats.chisquare(np.bincount(column, minlength=size)).pvalue > 1e-4
    steps = np.mod(places[:, 0] - places[:, 1], size)
    assert stats.chisquare(np.bincount(steps, minlength=size)[1:]).pvalue > 1e-4
