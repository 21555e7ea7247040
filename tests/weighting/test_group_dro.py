"""`GroupDRO` against a float64 reference of its algorithm."""

import keras
import numpy as np
import pytest
import references
from autodiff import to_numpy
from weighting_cases import Batch, check_step, make_batches, step

import keras_taskrobust as ktr
from keras_taskrobust.weighting import GroupDRO

K = 4
SIZES = [1000, 10, 250, 4]
CASES = {
    "default": {},
    "fast": {"step_size": 0.7},
    "momentum": {"step_size": 0.4, "momentum": 0.9},
    "adjustment": {"step_size": 0.2, "adjustment": 3.0, "group_sizes": SIZES},
    "both": {"step_size": 0.2, "momentum": 0.5, "adjustment": 1.0, "group_sizes": SIZES},
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_equal_the_reference(case):
    arguments = {"step_size": 0.01, **CASES[case]}
    reference = references.GroupDRO(K, **arguments)
    arguments["loss_momentum"] = arguments.pop("momentum", 0.0)
    layer = GroupDRO(**arguments) if CASES[case] else GroupDRO()
    for batch in make_batches(20, K, seed=12):
        check_step(layer, reference, batch)
    assert np.ptp(reference.q) > 0.01
    # Kept near 0, or float32 would lose the small steps of a long run.
    assert to_numpy(layer.log_probabilities).max() == 0
    q = np.exp(to_numpy(layer.log_probabilities).astype("float64"))
    np.testing.assert_allclose(q / q.sum(), reference.q, atol=1e-5)


def test_the_adversary_remembers():
    layer = GroupDRO(step_size=1.0)
    for _ in range(5):
        layer(np.array([2.0, 1.0]))
    weights = to_numpy(layer.compute_weights(np.array([0.0, 0.0])))
    np.testing.assert_allclose(weights[0] / weights[1], np.exp(5.0), rtol=1e-5)


def test_it_does_not_overflow_and_can_recover():
    layer = GroupDRO(step_size=10.0)
    for _ in range(20):
        layer(np.array([50.0, 1.0]))
    np.testing.assert_array_equal(to_numpy(layer.compute_weights(np.zeros(2))), [1.0, 0.0])
    for _ in range(20):
        layer(np.array([0.0, 50.0]))
    np.testing.assert_array_equal(to_numpy(layer.compute_weights(np.zeros(2))), [0.0, 1.0])


def test_an_absent_task_keeps_its_probability():
    layer = GroupDRO(step_size=1.0)
    layer(np.array([1.0, 2.0, 3.0]))
    step(layer, Batch(np.array([0.5, np.nan, 0.0]), np.array([1, 0, 1]), np.eye(3)))
    q = to_numpy(layer.log_probabilities)
    np.testing.assert_allclose(q - q[1], [-0.5, 0.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), True, "0.1", None])
def test_bad_step_size(value):
    with pytest.raises(ValueError, match="`step_size` must be a positive number. Rec") as error:
        GroupDRO(step_size=value)
    assert str(error.value).endswith(f"step_size={value}")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_bad_adjustment(value):
    with pytest.raises(ValueError, match="`adjustment` must be a number >= 0.*Received") as error:
        GroupDRO(adjustment=value, group_sizes=[1, 2])
    assert f"adjustment={value}" in str(error.value)


def test_an_adjustment_needs_group_sizes():
    with pytest.raises(ValueError, match=r"`group_sizes` given.*adjustment=1.0, group_sizes=None"):
        GroupDRO(adjustment=1.0)


@pytest.mark.parametrize("sizes", [[1, 0], [-1.0, 2.0], [float("nan")], ["a"], [None, 1], 3, "ab"])
def test_bad_group_sizes(sizes):
    with pytest.raises(ValueError, match="`group_sizes` must be .*Received: group_sizes="):
        GroupDRO(adjustment=1.0, group_sizes=sizes)


@pytest.mark.parametrize("sizes", [[1, 2], [1, 2, 3, 4], []])
def test_group_sizes_of_another_number(sizes):
    with pytest.raises(ValueError, match=r"each of the 3 tasks. Received: group_sizes="):
        GroupDRO(adjustment=1.0, group_sizes=sizes).build((3,))


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64"])
def test_group_sizes_may_be_an_array(dtype):
    """Such as `np.bincount` gives."""
    layer = GroupDRO(adjustment=1.0, group_sizes=np.array([4, 16], dtype))
    np.testing.assert_allclose(
        to_numpy(layer.compute_weights(np.zeros(2))),
        references.GroupDRO(2, 0.01, 0.0, 1.0, [4, 16]).step(np.zeros(2), np.ones(2)),
        rtol=1e-6,
    )
    assert layer.get_config()["group_sizes"] == [4, 16]
    assert type(layer.get_config()["group_sizes"][0]) is float


def test_one_task_a_batch_as_in_the_official_code():
    """`q *= exp(eta * L); q /= q.sum(); loss @ q`, in which an absent group has the loss 0."""
    layer = ktr.weighting.GroupDRO(0.5, normalize_over="all")
    minimax = ktr.weighting.SoftmaxWeightedLoss(1.5, loss_momentum=0.5, normalize_over="all")
    q, averages = np.full(3, 1 / 3), {}
    for task, loss in ((0, 2.0), (1, 1.0), (0, 1.5), (2, 3.0), (1, 0.5)):
        losses, counts = np.zeros(3), np.zeros(3)
        losses[task], counts[task] = loss, 4.0
        q = q * np.exp(0.5 * losses)
        q /= q.sum()
        _, weights = layer(losses, counts, return_weights=True)
        expected = np.where(counts > 0, q, 0.0)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weights), expected, rtol=1e-5)
        averages[task] = 0.5 * averages.get(task, loss) + 0.5 * loss
        powers = {k: np.exp(1.5 * average) for k, average in averages.items()}
        _, weights = minimax(losses, counts, return_weights=True)
        expected = np.where(counts > 0, powers[task] / sum(powers.values()), 0.0)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weights), expected, rtol=1e-5)


def test_weights_over_all_tasks_need_averages_in_minimax():
    with pytest.raises(ValueError, match="needs the losses of absent tasks"):
        ktr.weighting.SoftmaxWeightedLoss(normalize_over="all")
    with pytest.raises(ValueError, match="`normalize_over` must be one of present, all"):
        ktr.weighting.GroupDRO(normalize_over="seen")
