"""Where weights that sum to one say nothing, or one loss drowns the others, that is told once."""

import warnings

import keras
import numpy as np
import pytest
from networks import grouped_data, grouped_model

import keras_taskrobust as ktr
from keras_taskrobust.weighting import GroupDRO, SoftmaxWeightedLoss

X, Y = grouped_data(8)
LONE = {**Y, "groups": np.broadcast_to(np.arange(8)[:, None] // 4, (8, 4)).astype("int32")}


@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_one_task_a_batch_is_told_once(validation):
    model = grouped_model(weighting="minimax")
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "validation_data": validation}
    with pytest.warns(UserWarning, match="No batch of this epoch held two tasks") as told:
        model.fit(X, LONE, epochs=2, **arguments)
    assert sum("No batch of this epoch" in str(warning.message) for warning in told) == 1


@pytest.mark.parametrize("weighting", ["uncertainty", GroupDRO(normalize_over="all")])
def test_weights_that_still_say_something_are_not_warned_of(weighting):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No batch of this epoch")
        grouped_model(weighting=weighting).fit(X, LONE, batch_size=4, shuffle=False, verbose=0)
        grouped_model().fit(X, Y, batch_size=4, verbose=0)


def outputs_of_two_kinds(weighting, scale, kind="sparse_categorical_crossentropy"):
    inputs = keras.Input((3,))
    heads = {
        "price": keras.layers.Dense(1, kernel_initializer="zeros")(inputs),
        "kind": keras.layers.Dense(2, "softmax", kernel_initializer="zeros")(inputs),
    }
    model = ktr.MinimaxModel(keras.Model(inputs, heads))
    model.compile("sgd", {"price": "mae", "kind": kind}, weighting)
    kinds = np.zeros(8, "int32") if kind.startswith("sparse") else np.zeros((8, 2), "float32")
    model.fit(
        np.ones((8, 3), "float32"),
        {"price": np.full((8, 1), scale, "float32"), "kind": kinds},
        epochs=2,
        verbose=0,
    )


def test_the_task_with_all_of_the_weight_among_losses_of_different_kinds_is_told_once():
    with pytest.warns(UserWarning, match="'price' had all of the weight, and 'kind' none") as told:
        outputs_of_two_kinds("minimax", 1000.0)
    assert sum("all of the weight" in str(warning.message) for warning in told) == 1


@pytest.mark.parametrize(
    ("weighting", "scale", "kind"),
    [
        ("minimax", 1.0, "sparse_categorical_crossentropy"),
        ("minimax", 1000.0, "mae"),
        ("uniform", 1000.0, "sparse_categorical_crossentropy"),
        (
            SoftmaxWeightedLoss(reference_losses=[900.0, 0.0]),
            1000.0,
            "sparse_categorical_crossentropy",
        ),
    ],
)
def test_weight_that_goes_to_one_task_for_a_reason_is_not_warned_of(weighting, scale, kind):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="In the first epoch")
        outputs_of_two_kinds(weighting, scale, kind)
