"""Twenty steps of each weighting against a float64 NumPy run: the same on every backend."""

import keras
import numpy as np
import pytest
from marks import slow
from numpy_training import (
    RATE,
    STEPS,
    TASKS,
    Adam,
    make_data,
    make_weights,
    train,
    weights_dwa,
    weights_gradnorm,
    weights_group_dro,
    weights_minimax,
    weights_uncertainty,
)

import keras_taskrobust as ktr

CASES = {
    "minimax": (ktr.weighting.SoftmaxWeightedLoss(alpha=2.0), weights_minimax, RATE),
    "group_dro": (ktr.weighting.GroupDRO(step_size=0.5), weights_group_dro, RATE),
    "dwa": (ktr.weighting.DynamicWeightAverage(), weights_dwa, RATE),
    "uncertainty": (ktr.weighting.UncertaintyWeighting(), weights_uncertainty, RATE),
    "uncertainty_own_rate": (
        ktr.weighting.UncertaintyWeighting(learning_rate=0.1),
        weights_uncertainty,
        0.1,
    ),
    "gradnorm": (ktr.weighting.GradNorm(), weights_gradnorm, 0.025),
}


def make_network():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(7, activation="tanh", name="first")(inputs)
    shared = keras.layers.Dense(6, activation="tanh", name="last")(hidden)
    words = keras.layers.Dense(12, name="words")(shared)
    outputs = {
        "level": keras.layers.Dense(1, name="level")(shared),
        "kind": keras.layers.Dense(3, name="kind")(shared),
        "words": keras.layers.Reshape((3, 4))(words),
    }
    network = keras.Model(inputs, outputs)
    for name, value in make_weights().items():
        layer, attribute = name.split("/")
        getattr(network.get_layer(layer), attribute).assign(value)
    return network


def make_targets(data):
    return {
        "level": data["level"].astype("float32"),
        "kind": data["kind"].astype("int32"),
        "words": {
            "labels": data["labels"].astype("int32"),
            "groups": data["groups"].astype("int32"),
        },
    }


@pytest.mark.parametrize("name", [slow(name) if name == "uncertainty" else name for name in CASES])
def test_twenty_steps_equal_the_numpy_run(name):
    weighting, reference, own_rate = CASES[name]
    model = ktr.MinimaxModel(make_network())
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(RATE),
        loss={
            "level": "mse",
            "kind": cross_entropy,
            "words": ktr.GroupedLoss(cross_entropy, ("first", "second", "third")),
        },
        weighting=weighting,
    )
    data = make_data()
    history = model.fit(
        data["x"].astype("float32"),
        make_targets(data),
        batch_size=len(data["x"]),
        epochs=STEPS,
        verbose=0,
    ).history
    assert model.task_names == TASKS
    losses = np.array([history[f"{task}_loss"] for task in TASKS]).T
    weights = np.array([history[f"{task}_weight"] for task in TASKS]).T
    expected_losses, expected_weights = train(reference, own_rate)
    assert np.ptp(expected_weights) > 0.01
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-5)


def test_rows_of_an_embedding_that_repeat_in_a_batch_take_one_adam_step():
    ids = np.array([0, 0, 0, 1, 2, 2], "int32")
    target = np.array([1.0, 2.0, -4.0, 0.5, 3.0, -1.0])
    inputs = keras.Input((), dtype="int32")
    network = keras.Model(inputs, {"value": keras.layers.Embedding(3, 1, name="rows")(inputs)})
    rows = np.array([0.1, -0.2, 0.3])
    network.get_layer("rows").embeddings.assign(rows[:, None])
    model = ktr.MinimaxModel(network)
    model.compile(keras.optimizers.Adam(0.1), loss={"value": "mse"})
    targets = {"value": target[:, None].astype("float32")}
    model.fit(ids, targets, batch_size=6, epochs=4, shuffle=False, verbose=0)
    weights, adam = {"rows": rows}, Adam(0.1)
    for _ in range(4):
        error = 2 * (weights["rows"][ids] - target) / len(ids)
        adam.update(weights, {"rows": np.bincount(ids, error)})
    found = keras.ops.convert_to_numpy(network.get_layer("rows").embeddings)[:, 0]
    np.testing.assert_allclose(found, weights["rows"], rtol=1e-4)
