"""`AdaptiveGroups` against all groupings there are, scikit-learn, and the methods it contains."""

import itertools

import numpy as np
import pytest
import references
from autodiff import to_numpy
from scipy import special
from sklearn.cluster import KMeans
from weighting_cases import Batch, check_step, make_batches, step

import keras_taskrobust as ktr
from keras_taskrobust.weighting import AdaptiveGroups
from keras_taskrobust.weighting._adaptive_groups import homogeneous_groups

K = 6
w = ktr.weighting


def scatter(values, sizes, groups):
    """The squared distances from the groups' means, each point counted with its size."""
    total = 0.0
    for group in set(groups):
        member = groups == group
        mean = np.average(values[member], weights=sizes[member])
        total += (sizes[member] * (values[member] - mean) ** 2).sum()
    return total


def best_groups(values, sizes, num_groups):
    """The best of all cuts of the sorted values."""
    order = np.argsort(values)
    rank = np.argsort(order)
    cuts = itertools.combinations(range(1, len(values)), num_groups - 1)
    labels = [np.searchsorted(cut, rank, side="right") for cut in cuts]
    return min(labels, key=lambda groups: scatter(values, sizes, groups))


class Reference:
    """The method by the letter; every task must occur in the first window."""

    def __init__(self, num_groups, window, alpha):
        self.num_groups, self.window, self.alpha = num_groups, window, alpha
        self.groups = np.arange(K) * num_groups // K
        self.means, self.sizes = np.zeros(K), np.zeros(K)
        self.calls = []

    def step(self, losses, counts):
        tasks = references.present_tasks(counts)
        elements = {g: sum(counts[k] for k in tasks if self.groups[k] == g) for g in self.groups}
        scores = {
            g: self.alpha * sum(counts[k] * losses[k] / n for k in tasks if self.groups[k] == g)
            for g, n in elements.items()
            if n
        }
        of_groups = references.softmax_over(scores)
        weights = {
            k: of_groups[self.groups[k]] * counts[k] / elements[self.groups[k]] for k in tasks
        }
        self.calls.append((losses, counts))
        if len(self.calls) == self.window:
            self.group_again()
        return references.spread(weights, K)

    def group_again(self):
        for k in range(K):
            elements = sum(counts[k] for _, counts in self.calls)
            if elements:
                total = sum(losses[k] * counts[k] for losses, counts in self.calls)
                self.means[k], self.sizes[k] = total / elements, elements
        assert self.sizes.all()
        self.groups = best_groups(self.means, self.sizes, self.num_groups)
        self.calls = []


@pytest.mark.parametrize(("num_groups", "window"), [(2, 4), (3, 3), (4, 5)])
def test_thirty_steps_equal_the_reference(num_groups, window):
    layer = AdaptiveGroups(num_groups, window, weighting=w.SoftmaxWeightedLoss(2.0))
    reference = Reference(num_groups, window, 2.0)
    seen = set()
    for batch in make_batches(30, K, seed=4, absent=0.3):
        check_step(layer, reference, batch, rtol=1e-5, atol=1e-7)
        assert to_numpy(layer.groups).tolist() == reference.groups.tolist()
        seen.add(tuple(reference.groups))
    assert len(seen) > 3, "tasks change their groups"


@pytest.mark.parametrize("num_groups", range(1, 8))
def test_the_groups_are_the_best_of_all(num_groups):
    rng = np.random.default_rng(num_groups)
    for _ in range(10):
        values = rng.gamma(2.0, 2.0, size=7)
        sizes = rng.integers(1, 500, size=7).astype("float64")
        groups = homogeneous_groups(values.astype("float32"), sizes.astype("float32"), num_groups)
        assert to_numpy(groups).tolist() == best_groups(values, sizes, num_groups).tolist()


@pytest.mark.parametrize("num_groups", [2, 5, 9])
def test_k_means_finds_no_better_groups(num_groups):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(mean, 0.3, size=8) for mean in (1.0, 3.0, 4.0, 7.0)])
    sizes = rng.integers(1, 2000, size=len(values)).astype("float64")
    found = homogeneous_groups(values.astype("float32"), sizes.astype("float32"), num_groups)
    peer = KMeans(num_groups, n_init=20, random_state=0, tol=0.0)
    peer.fit(values[:, None], sample_weight=sizes)
    assert len(set(to_numpy(found))) == num_groups
    assert scatter(values, sizes, to_numpy(found)) <= peer.inertia_ * (1 + 1e-5)


def test_a_rare_noisy_task_gets_no_group_of_its_own():
    values = np.array([3.0, 3.5, 9.0, 4.0], "float32")
    even = homogeneous_groups(values, np.ones(4), 2)
    assert to_numpy(even).tolist() == [0, 0, 1, 0]
    rare = homogeneous_groups(values, np.array([100.0, 100.0, 1.0, 100.0]), 2)
    assert to_numpy(rare).tolist() == [0, 0, 1, 1]


def test_one_group_is_pooled():
    layer, pooled = AdaptiveGroups(1, window=2), w.PooledWeighting()
    for batch in make_batches(6, K):
        np.testing.assert_allclose(step(layer, batch)[1], step(pooled, batch)[1], rtol=1e-6)


@pytest.mark.parametrize("num_groups", [K, K + 3])
@pytest.mark.parametrize("window", [2, None])
def test_a_group_for_every_task_is_the_inner_weighting(num_groups, window):
    for inner in (lambda: w.SoftmaxWeightedLoss(3.0), w.HardMaximum):
        layer = AdaptiveGroups(num_groups, window, weighting=inner())
        alone = inner()
        batches = make_batches(6, K)
        # Tied tasks have groups of their own, too.
        batches[2:4] = [batch._replace(losses=np.ones(K)) for batch in batches[2:4]]
        for batch in batches:
            np.testing.assert_allclose(step(layer, batch)[1], step(alone, batch)[1], rtol=1e-5)


def test_fixed_groups_are_minimax_over_pooled_losses():
    groups = np.array([2, 0, 2, 1, 0, 2])
    layer = AdaptiveGroups(3, window=None, initial_groups=groups)
    (batch,) = make_batches(1, K, absent=0.0)
    member = groups[:, None] == np.arange(3)
    counts = batch.counts @ member
    pooled = (batch.counts * batch.losses) @ member / counts
    objective, weights = step(layer, batch)
    np.testing.assert_allclose(weights @ member, special.softmax(pooled), rtol=1e-5)
    np.testing.assert_allclose(objective, special.softmax(pooled) @ pooled, rtol=1e-5)
    within = weights / (weights @ member)[groups]
    np.testing.assert_allclose(within, batch.counts / counts[groups], rtol=1e-5)
    assert not layer.variables


def test_groups_split_and_merge():
    layer = AdaptiveGroups(2, window=2, initial_groups=[0, 0, 1, 1])
    layer.build((4,))
    for losses, groups in (
        ([1.0, 5.0, 1.1, 5.1], [0, 1, 0, 1]),
        ([5.0, 1.0, 1.1, 1.2], [1, 0, 0, 0]),
    ):
        before = to_numpy(layer.groups).tolist()
        layer(np.array(losses))
        assert to_numpy(layer.groups).tolist() == before, "only at the end of a window"
        layer(np.array(losses))
        assert to_numpy(layer.groups).tolist() == groups


def test_the_window_averages_over_elements():
    layer = AdaptiveGroups(2, window=2)
    for losses, counts in (([9.0, 2.0, 6.0], [1, 1, 1]), ([1.0, 2.0, 6.0], [9, 1, 1])):
        step(layer, Batch(np.array(losses), np.array(counts), np.eye(3)))
    np.testing.assert_allclose(to_numpy(layer.last_mean), [1.8, 2.0, 6.0], rtol=1e-6)
    assert to_numpy(layer.groups).tolist() == [0, 0, 1]


def test_absent_tasks_keep_their_place_and_unseen_ones_stand_above_all():
    layer = AdaptiveGroups(2, window=1)
    for losses, counts, groups in (
        ([1.0, 1.1, 4.0, 0.0], [5, 5, 5, 0], [0, 0, 1, 1]),
        ([1.0, 4.0, 0.0, 0.0], [5, 5, 0, 0], [0, 1, 1, 1]),
        ([0.0, 0.0, 0.0, 1.2], [0, 0, 0, 5], [0, 1, 1, 0]),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], [0, 1, 1, 0]),
    ):
        step(layer, Batch(np.array(losses), np.array(counts), np.eye(4)))
        assert to_numpy(layer.groups).tolist() == groups


def test_the_state_of_the_inner_weighting_belongs_to_the_height():
    layer = AdaptiveGroups(2, window=1, initial_groups=[0, 1], weighting=w.GroupDRO(1.0))
    for losses in ([1.0, 3.0], [3.0, 1.0]):
        layer(np.array(losses))
    # The first call pairs the tasks with groups 0 and 1, the second finds them still so.
    expected = special.softmax([4.0, 4.0])
    scores = to_numpy(layer.weighting.log_probabilities)
    np.testing.assert_allclose(special.softmax(scores), expected, rtol=1e-6)
    assert to_numpy(layer.groups).tolist() == [1, 0]
    weights = to_numpy(layer.compute_weights(np.array([5.0, 1.0])))
    np.testing.assert_allclose(weights, special.softmax([5.0, 1.0]), rtol=1e-5)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_bad_num_groups(value):
    with pytest.raises(ValueError, match="`num_groups` must be an integer >= 1. Received: num_gr"):
        AdaptiveGroups(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_bad_window(value):
    with pytest.raises(ValueError, match="`window` must be an integer >= 1. Received: window="):
        AdaptiveGroups(window=value)


@pytest.mark.parametrize("value", [[0, 2], [-1, 0], [0.5], 3, [True]])
def test_bad_initial_groups(value):
    with pytest.raises(ValueError, match=r"`initial_groups` must be integers in \[0, 2\).*Receiv"):
        AdaptiveGroups(2, initial_groups=value)


def test_initial_groups_of_another_number_of_tasks():
    layer = AdaptiveGroups(2, initial_groups=[0, 1, 1])
    with pytest.raises(ValueError, match="`initial_groups` must hold one value for each of the 4"):
        layer.build((4,))


def test_the_inner_weighting_needs_losses_alone():
    with pytest.raises(ValueError, match="`weighting` must weigh by the losses alone.*gramian"):
        AdaptiveGroups(weighting="pcgrad")
    with pytest.raises(ValueError, match="Unknown weighting"):
        AdaptiveGroups(weighting="spam")
