"""Losses, targets, weights and metrics find their outputs as they do in Keras."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    LOSSES,
    cross_entropy,
    two_headed_data,
    two_headed_model,
    two_headed_network,
)

import keras_taskrobust as ktr

OUTPUTS = ("a", "b", "c")
#: The names of the tasks, by the form of the outputs.
TASKS = {"dict": OUTPUTS, "list": OUTPUTS, "nested": ("p/a", "p/b", "c")}


def arranged(form, values):
    """A value for each output, in the structure of a network's outputs."""
    a, b, c = values
    return {"dict": {"a": a, "b": b, "c": c}, "list": [a, b, c]}.get(
        form, {"p": {"a": a, "b": b}, "c": c}
    )


@functools.cache
def network_of(form):
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(1, activation="tanh", name=name)(inputs) for name in OUTPUTS]
    return keras.Model(inputs, arranged(form, outputs))


def data_of(form, number=6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, 3)).astype("float32")
    y = [rng.uniform(size=(number, 1)).round().astype("float32") for _ in OUTPUTS]
    weights = [rng.uniform(size=number).astype("float32") for _ in OUTPUTS]
    return x, arranged(form, y), arranged(form, weights)


def logs_of(model, x, y, sample_weight=None, **compile_arguments):
    # Without `metrics`, Keras keeps those of the former `compile`.
    model.compile("sgd", run_eagerly=True, **{"metrics": [], **compile_arguments})
    return model.evaluate(
        x, y, sample_weight=sample_weight, batch_size=len(x), verbose=0, return_dict=True
    )


METRICS = st.sampled_from((None, ["mae"], ["mse", "accuracy"]))


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(tuple(TASKS)),
    st.sets(st.integers(0, 2), min_size=1),
    st.tuples(METRICS, METRICS, METRICS),
    st.tuples(METRICS, METRICS, METRICS),
    st.booleans(),
)
def test_the_metrics_of_any_outputs_are_those_of_keras(
    form, scored, metrics, weighted_metrics, is_weighted
):
    network = network_of(form)
    x, y, weights = data_of(form)
    arguments = {
        "loss": arranged(form, ["mse" if index in scored else None for index in range(3)]),
        "metrics": arranged(form, metrics),
        "weighted_metrics": arranged(form, weighted_metrics),
    }
    weights = weights if is_weighted else None
    expected = logs_of(network, x, y, weights, **arguments)
    found = logs_of(ktr.MinimaxModel(network), x, y, weights, **arguments)
    losses = {f"{task}_loss" for task in TASKS[form]}
    figures = {name: value for name, value in found.items() if name in expected}
    ours = {"loss", "mean_loss", "worst_loss"} | losses
    assert set(found) - ours - {f"{task}_weight" for task in TASKS[form]} <= set(expected)
    if is_weighted:  # Keras divides by the number of samples, whatever they weigh.
        expected = {n: value for n, value in expected.items() if n not in losses}
    del expected["loss"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("form", ["dict", "list"])
def test_metrics_of_an_output_beside_those_with_a_loss(form, argument):
    network = network_of(form)
    x, y, _ = data_of(form)
    losses = {"a": "mse", "b": None, "c": "mae"}
    loss = losses if form == "dict" else list(losses.values())
    logs = logs_of(ktr.MinimaxModel(network), x, y, loss=loss, **{argument: {"b": "mae"}})
    predicted = network.predict(x, verbose=0)
    target, output = (z["b"] if form == "dict" else z[1] for z in (y, predicted))
    assert [name for name in logs if name.endswith("mae")] == ["b_mae"]
    assert logs["b_mae"] == pytest.approx(np.abs(target - output).mean(), rel=1e-5)


def test_metrics_of_nested_outputs_in_any_order():
    inputs = keras.Input((3,))
    layers = [keras.layers.Dense(size, name=f"layer_{size}") for size in (2, 1)]
    outputs = {"p": {"wide": layers[0](inputs), "narrow": layers[1](inputs)}}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    x, y = np.ones((4, 3)), {"p": {"wide": np.zeros((4, 2)), "narrow": np.zeros((4, 1))}}
    metrics = {"p": {"wide": ["mae"], "narrow": ["mse"]}}
    logs = logs_of(model, x, y, loss={"p": {"narrow": "mae", "wide": "mse"}}, metrics=metrics)
    predicted = model.predict(x, verbose=0)["p"]
    assert logs["layer_2_mae"] == pytest.approx(np.abs(predicted["wide"]).mean(), rel=1e-5)
    assert logs["layer_1_mse"] == pytest.approx((predicted["narrow"] ** 2).mean(), rel=1e-5)
    assert logs["p/wide_loss"] == pytest.approx((predicted["wide"] ** 2).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="`metrics` of outputs in nested dicts must be a dict"):
        logs_of(model, x, y, loss={"p": {"narrow": "mae", "wide": "mse"}}, metrics=["mae", "mae"])


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
def test_metrics_of_unknown_outputs_and_without_targets_are_refused(argument):
    network, (x, y, _) = network_of("dict"), data_of("dict")
    loss = {"a": "mse", "b": None, "c": None}
    with pytest.raises(ValueError, match=rf"keys of `{argument}` must.*\['colour'\].*'a', 'b', 'c"):
        logs_of(ktr.MinimaxModel(network), x, y, loss=loss, **{argument: {"colour": "mae"}})
    with pytest.raises(ValueError, match=rf"`{argument}` need targets.*no targets for \['b'\]"):
        logs_of(ktr.MinimaxModel(network), x, {"a": y["a"]}, loss=loss, **{argument: {"b": "mae"}})
    single = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="level")])
    with pytest.raises(ValueError, match=r"\['colour'\], for the outputs \['level'\]"):
        logs_of(ktr.MinimaxModel(single), x, y["a"], loss="mse", **{argument: {"colour": "mae"}})


class Double(keras.Model):
    def __init__(self, key=None):
        super().__init__()
        self.key = key

    def call(self, inputs):
        return 2.0 * inputs if self.key is None else {self.key: 2.0 * inputs}


@pytest.mark.parametrize("kind", ["tensor", "dict", "sequential", "subclass", "subclass with dict"])
def test_one_loss_for_the_only_output(kind):
    inputs = keras.Input((3,))
    doubled = keras.layers.Rescaling(2.0, name="double")(inputs)
    network = {
        "tensor": lambda: keras.Model(inputs, doubled),
        "dict": lambda: keras.Model(inputs, {"twice": doubled}),
        "sequential": lambda: keras.Sequential([inputs, keras.layers.Rescaling(2.0, name="last")]),
        "subclass": Double,
        "subclass with dict": lambda: Double("twice"),
    }[kind]()
    task = {"tensor": "double", "dict": "twice", "sequential": "last"}.get(kind, "output")
    x = np.arange(12, dtype="float32").reshape(4, 3)
    for y in (x, {"twice": x}) if "dict" in kind else (x,):
        model = ktr.MinimaxModel(network)
        logs = logs_of(model, x, y, loss="mse", metrics=["mae"])
        assert model.task_names == (task,)
        assert logs[f"{task}_loss"] == pytest.approx((x**2).mean(), rel=1e-6)
        assert logs["mae"] == pytest.approx(x.mean(), rel=1e-6)


def test_a_grouped_loss_for_the_only_output_in_a_dict():
    x = np.arange(4, dtype="float32").reshape(2, 2, 1)
    y = {"labels": 2.0 * x + 1.0, "groups": np.array([[0, 1], [1, -1]])}
    for targets in (y, {"twice": y}):
        model = ktr.MinimaxModel(Double("twice"))
        logs = logs_of(model, x, targets, loss=ktr.GroupedLoss("mse", ("one", "other")))
        assert [logs[f"{task}_loss"] for task in model.task_names] == [1.0, 1.0]


@pytest.mark.parametrize("form", ["list", "nested"])
def test_losses_in_the_structure_of_the_outputs(form, tmp_path):
    network, (x, y, weights) = network_of(form), data_of(form)
    model = ktr.MinimaxModel(network)
    loss = arranged(form, ["mse", "mae", "binary_crossentropy"])
    expected = logs_of(network, x, y, loss=loss)
    found = logs_of(model, x, y, loss=loss)
    assert model.task_names == TASKS[form]
    assert {name: found[name] for name in expected if name != "loss"} == pytest.approx(
        {name: value for name, value in expected.items() if name != "loss"}, rel=1e-5
    )
    model.fit(x, y, sample_weight=weights, verbose=0)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").task_names == TASKS[form]


def test_targets_in_a_list_of_the_outputs_that_have_a_loss():
    network, (x, y, weights) = network_of("list"), data_of("list")
    loss = ["mse", None, "mae"]
    arguments = {"loss": loss, "weighted_metrics": [["mae"], None, ["mae"]]}
    model = ktr.MinimaxModel(network)
    expected = logs_of(model, x, y, weights, **arguments)
    found = logs_of(model, x, [y[0], y[2]], [weights[0], weights[2]], **arguments)
    assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"of the outputs \['a', 'b', 'c'\]. Received: 1 targets"):
        model.evaluate(x, y[:1], verbose=0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mse", r"a loss for its only output.*outputs=\['a', 'b', 'c'\]"),
        (["mse", "mse"], r"a list with one for each output"),
        ([None, None, None], "at least one output name"),
        ({"p": {"a": None}}, "at least one output name"),
    ],
)
def test_losses_without_a_place_are_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        ktr.MinimaxModel(network_of("list")).compile("sgd", loss=loss)


@pytest.mark.parametrize("weighting", ["minimax", "mgda"])
def test_an_output_without_a_loss_is_named_and_the_warning_can_be_silenced(weighting):
    x, y = two_headed_data()
    model = two_headed_model(loss={"kind": cross_entropy}, weighting=weighting)
    with pytest.warns(UserWarning, match=r"outputs \['level'\] have no loss.*'level': None"):
        model.evaluate(x, {"kind": y["kind"]}, verbose=0)
    model = two_headed_model(loss={"kind": cross_entropy, "level": None}, weighting=weighting)
    before = model.network.get_layer("level").get_weights()
    model.fit(x, {"kind": y["kind"]}, verbose=0)
    for a, b in zip(before, model.network.get_layer("level").get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_a_task_loss_is_keras_weighted_mean():
    x, y = two_headed_data()
    rng = np.random.default_rng(1)
    weights = {name: rng.uniform(0.0, 3.0, len(x)).astype("float32") for name in y}
    weights["kind"][:5] = 0.0
    reduction = {"reduction": "mean_with_sample_weight"}
    stock = {
        "level": keras.losses.MeanSquaredError(**reduction),
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True, **reduction),
    }
    network = two_headed_network()
    expected = logs_of(network, x, y, weights, loss=stock)
    found = logs_of(ktr.MinimaxModel(network), x, y, weights, loss=LOSSES)
    assert [found[f"{n}_loss"] for n in y] == pytest.approx(
        [expected[f"{n}_loss"] for n in y], rel=1e-5
    )
    default = logs_of(network, x, y, weights, loss=LOSSES)
    assert abs(default["kind_loss"] - found["kind_loss"]) > 0.1
