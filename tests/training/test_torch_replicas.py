"""Replicas on PyTorch take the step of one process on all of the batch."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("tests torch.distributed", allow_module_level=True)

import replica_cases
from replica_cases import EQUAL, EQUAL_MODELS, NOT_ON_TORCH, PLAIN, Replica
from replica_processes import check_equal, run
from torch_replica_cases import CASES


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Several cases in one pair of processes, whose start takes longer than they."""
    names = [name for name in CASES if name not in (*EQUAL_MODELS, *NOT_ON_TORCH)]
    return run(names, tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="module")
def found_of_models(tmp_path_factory):
    return run(EQUAL_MODELS, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def found_by_three(tmp_path_factory):
    return run(EQUAL, tmp_path_factory.mktemp("three"), number=3)


def check_equal_to_one(replicas, name):
    first, *others = replicas = [found[name] for found in replicas]
    for other in others:
        np.testing.assert_array_equal(other["state"], first["state"])
    check_equal(CASES[name](Replica()), replicas)


@pytest.mark.parametrize("name", [*EQUAL, *PLAIN])
def test_two_replicas_equal_one(found, name):
    check_equal_to_one(found, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
def test_three_replicas_equal_one(found_by_three, name):
    check_equal_to_one(found_by_three, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL_MODELS)
def test_two_replicas_of_models_equal_one(found_of_models, name):
    check_equal_to_one(found_of_models, name)


@pytest.mark.parametrize("kind", ["seeded", "unseeded"])
def test_dropout_differs_between_replicas_and_is_reproducible(found, kind):
    (first, second), (other, again) = (replica[f"{kind} dropout"] for replica in found)
    for weights, _ in (second, other, again):
        np.testing.assert_array_equal(weights, first[0])
    np.testing.assert_array_equal(second[1], first[1])
    np.testing.assert_array_equal(again[1], other[1])
    assert np.abs(other[1] - first[1]).max() > 0.01


@pytest.mark.parametrize(
    ("name", "number"),
    [
        # Totals and counts; which gradients there are; the gradients.
        ("collectives of losses", 3),
        # And the metric.
        ("collectives with metrics", 4),
        # 48 + 72 and 54 + 9 + 27 numbers, of which a bucket has 100.
        ("collectives in small buckets", 5),
        # And the rows of the tasks.
        ("collectives of gradients", 4),
        # Instead of them their Gramian.
        ("collectives at a representation", 4),
    ],
)
def test_the_number_of_sums_in_a_step(found, name, number):
    assert [replica[name] for replica in found] == [[number] * 2] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unequal batches", "at the end of the data rank 0; at batch 3 of training rank 1"),
        (
            "unequal batches before validation",
            "at batch 1 of an evaluation rank 0; at batch 3 of training rank 1",
        ),
        (
            "unequal evaluation",
            "at batch 3 of an evaluation rank 0; at the end of the data rank 1",
        ),
        ("evaluation of one", "at batch 1 of an evaluation rank 0; at batch 1 of training rank 1"),
        ("unequal models", "kernel of shape (5, 8), float32 on rank 0; "),
        ("refusal", "GradDrop compares the elements of the tasks' gradients"),
    ],
)
def test_what_replicas_must_not_do(found, name, message):
    for replica in found:
        assert message in replica[name]


@pytest.mark.parametrize(("kind", "number"), [("losses", 4), ("gradients", 5)])
def test_nothing_moves_in_a_step_whose_sums_fail(found, kind, number):
    for replica in found:
        assert replica[f"failing sums of {kind}"] == [False] * number


def test_moving_averages_are_the_mean_of_the_replicas(found):
    first, second = (replica["normalised"] for replica in found)
    np.testing.assert_array_equal(first["state"], second["state"])
    assert np.abs(first["alone"] - second["alone"]).max() > 1e-3
    np.testing.assert_allclose(first["moved"], (first["alone"] + second["alone"]) / 2, rtol=1e-5)


def test_a_step_calls_no_hooks_of_backward():
    """By which other libraries sum the gradients, too."""
    model = replica_cases.perceptron_model("minimax")
    for variable in model.trainable_variables:
        variable.value.register_post_accumulate_grad_hook(lambda value: 1 / 0)
    x, y, weights = replica_cases.perceptron_batch(np.random.default_rng(0))
    before = replica_cases.vector(model.trainable_variables)
    model.train_on_batch(x, y, weights)
    assert (replica_cases.vector(model.trainable_variables) != before).any()
