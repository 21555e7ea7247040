"""Task losses against those of stock Keras, and against NumPy where Keras has no such thing."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.losses import ALL_OBJECTS_DICT
from networks import element_losses, grouped_data, grouped_model, grouped_network

import keras_taskrobust as ktr

#: All but the base classes and those for which an output of one column means nothing.
LOSS_NAMES = sorted(
    set(ALL_OBJECTS_DICT)
    - {"Loss", "LossFunctionWrapper", "CTC", "ctc"}
    - {"SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"}
)

ignoring = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)


def squared_error(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


class SquaredError(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return squared_error(y_true, y_pred)


class Wrapped(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return 2.0 * super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        return squared_error(y_true, y_pred)


def network_of(names):
    inputs = keras.Input((3,))
    outputs = {n: keras.layers.Dense(1, activation="sigmoid", name=n)(inputs) for n in names}
    return keras.Model(inputs, outputs)


def ours_and_stock(network, losses, x, y):
    """Keras's `<output>_loss` figures, from a MinimaxModel and from the network by itself."""
    model = ktr.MinimaxModel(network)
    found = []
    for each in (model, network):
        each.compile(loss=losses, run_eagerly=True)
        logs = each.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
        found.append({name: logs[f"{name}_loss"] for name in losses})
    return found


@pytest.mark.filterwarnings("ignore:In loss categorical_:SyntaxWarning")
def test_every_loss_by_name_is_keras_own_for_flat_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3)).astype("float32")
    y = np.array([0, 1, 1, 0, 1, 0], "int32")
    losses = {name: name for name in LOSS_NAMES}
    ours, stock = ours_and_stock(network_of(losses), losses, x, dict.fromkeys(losses, y))
    assert ours == pytest.approx(stock, rel=1e-5, abs=1e-9)


def test_users_losses_see_integer_labels_as_floats():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    labels = np.arange(6, dtype="int32")
    losses = {"function": squared_error, "instance": SquaredError()}
    y = {"function": labels, "instance": labels[:, None]}
    ours, stock = ours_and_stock(network_of(losses), losses, x, y)
    assert ours == pytest.approx(stock, rel=1e-5)


@pytest.mark.parametrize("make", [dict, lambda u: ktr.GroupedLoss(u["u"], ("g",))])
def test_an_overridden_call_of_a_loss_is_not_passed_over(make):
    with pytest.raises(ValueError, match=r"overridden `__call__` would be passed over.*Wrapped"):
        ktr.MinimaxModel(network_of(["u"])).compile(loss=make({"u": Wrapped()}))


def test_an_ignored_class_is_not_counted():
    x, y = grouped_data()
    labels = np.where(y["groups"] == 1, -1, y["labels"])
    network = grouped_network()
    model = ktr.MinimaxModel(network)
    model.compile(loss={"words": ignoring})
    network.compile(loss=ignoring)
    ours = model.evaluate(x, {"words": labels}, batch_size=16, verbose=0, return_dict=True)
    stock = network.evaluate(x, labels, batch_size=16, verbose=0)
    assert ours["words_loss"] == pytest.approx(stock, rel=1e-5)


def test_an_ignored_class_is_not_counted_in_its_group():
    x, y = grouped_data()
    y["labels"][y["labels"] == 2] = -1
    weight = np.linspace(0.5, 2.0, len(x)).astype("float32")
    model = grouped_model(loss=ktr.GroupedLoss(ignoring, ("a", "b", "c")))
    losses = element_losses(model.predict(x, verbose=0), y["labels"])
    shares = np.where(y["labels"] >= 0, weight[:, None], 0.0)
    logs = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    for group, name in enumerate("abc"):
        inside = shares * (y["groups"] == group)
        expected = (losses * inside).sum() / inside.sum()
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("each", [False, True], ids=["one array", "an array each"])
def test_sample_weight_of_targets_in_a_list(each):
    rng = np.random.default_rng(0)
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("left", "right")]
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile(
        loss={"left": "mse", "right": "mse"}, weighted_metrics={"left": ["mae"], "right": ["mae"]}
    )
    x, left, right = (rng.normal(size=(8, n)).astype("float32") for n in (3, 1, 1))
    first, second = rng.uniform(size=(2, 8)).astype("float32")
    weights = {"left": first, "right": second if each else first}
    sample_weight = list(weights.values()) if each else first
    predictions = dict(zip(weights, model.predict(x, verbose=0), strict=True))
    y = [left, right]
    logs = model.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)
    for name, target in zip(weights, y, strict=True):
        error = (predictions[name] - target)[:, 0]
        squared = np.average(error**2, weights=weights[name])
        assert logs[f"{name}_loss"] == pytest.approx(squared, rel=1e-5)
        absolute = np.average(np.abs(error), weights=weights[name])
        assert logs[f"{name}_mae"] == pytest.approx(absolute, rel=1e-5)


def test_sample_weight_by_output_beside_a_grouped_output():
    inputs = keras.Input((4, 5))
    words = keras.layers.Dense(6, name="words")(inputs)
    level = keras.layers.Dense(1, name="level")(keras.layers.Flatten()(inputs))
    model = ktr.MinimaxModel(keras.Model(inputs, {"words": words, "level": level}))
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.0),
        loss={"words": ktr.GroupedLoss(cross_entropy, ("a", "b", "c")), "level": "mse"},
    )
    x, grouped = grouped_data()
    rng = np.random.default_rng(1)
    y = {"words": grouped, "level": rng.normal(size=(16, 1)).astype("float32")}
    weights = {name: rng.uniform(size=16).astype("float32") for name in y}
    predicted = model.predict(x, verbose=0)
    losses = element_losses(predicted["words"], grouped["labels"])
    squared = ((predicted["level"] - y["level"]) ** 2)[:, 0]
    expected = {"level": np.average(squared, weights=weights["level"])}
    for group, name in enumerate("abc"):
        inside = weights["words"][:, None] * (grouped["groups"] == group)
        expected[name] = (losses * inside).sum() / inside.sum()
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    history = model.fit(
        x, y, sample_weight=weights, validation_data=(x, y, weights), verbose=0
    ).history
    for name, loss in expected.items():
        figures = logs[f"{name}_loss"], *history[f"{name}_loss"], *history[f"val_{name}_loss"]
        assert figures == pytest.approx([loss] * 3, rel=1e-5)


def excluding_model(loss, weighting):
    inputs = keras.Input((4, 3))
    trunk = keras.layers.Dense(3, kernel_initializer="identity")(inputs)
    outputs = {
        name: keras.layers.Dense(2, kernel_initializer="ones", name=name)(trunk)
        for name in ("whole", "part")
    }
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile(
        keras.optimizers.SGD(0.1), loss={"whole": "mse", "part": loss}, weighting=weighting
    )
    return model


@pytest.mark.parametrize(
    ("by", "weighting"),
    [
        ("weight of samples", "uniform"),
        ("weight of elements", "upgrad"),
        ("group", "uniform"),
        ("group", "upgrad"),
    ],
)
def test_the_label_of_an_excluded_element_does_not_matter(by, weighting):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 4, 3)).astype("float32"), rng.normal(size=(6, 4, 2))
    left_out = np.zeros((6, 4), bool)
    left_out[1] = True
    if by != "weight of samples":
        left_out[2, 3] = True
    found = []
    for value in (0.5, [np.nan, np.inf]):
        part = np.where(left_out[..., None], value, labels).astype("float32")
        loss, weight = "mse", np.where(left_out, 0.0, 2.0).astype("float32")
        if by == "weight of samples":
            weight = weight[:, 0]
        if by == "group":
            loss, weight = ktr.GroupedLoss("mse", ("u", "v")), None
            part = {"labels": part, "groups": np.where(left_out, -1, np.arange(4) % 2)}
        model = excluding_model(loss, weighting)
        weights = None if weight is None else {"whole": np.ones(len(x)), "part": weight}
        y = {"whole": labels.astype("float32"), "part": part}
        model.fit(x, y, sample_weight=weights, batch_size=6, verbose=0)
        found.append(model.network.get_weights())
    for expected, actual in zip(*found, strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_the_label_of_an_element_that_counts_does():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 4, 2)).astype("float32")
    broken = labels.copy()
    broken[3, 1, 0] = np.nan
    model = excluding_model("mse", "uniform")
    with pytest.warns(UserWarning, match="the loss of 'part' became NaN"):
        model.fit(
            x,
            {"whole": labels, "part": broken},
            sample_weight={"whole": np.ones(6), "part": np.arange(6.0)},
            batch_size=6,
            verbose=0,
        )
    assert np.isnan(model.network.get_weights()[0]).all()


def test_groups_may_be_numbered():
    assert ktr.GroupedLoss("mse", range(3)).task_names == ("0", "1", "2")
    loss = ktr.GroupedLoss("mse", np.unique([7, 5]))
    assert loss.task_names == ("5", "7")
    assert ktr.GroupedLoss.from_config(loss.get_config()).task_names == ("5", "7")
    with pytest.raises(ValueError, match=r"must be a tuple of at least one name.*groups=10"):
        ktr.GroupedLoss("mse", 10)


def test_the_names_of_groups_are_not_their_ids():
    model = grouped_model()
    x, y = grouped_data()
    names = np.array(["a", "b", "c"])[y["groups"]]
    message = r"integers that count the groups \('a', 'b', 'c'\).*an array of <U1"
    for ids in (names, names.astype(object)):
        with pytest.raises(ValueError, match=message.replace("<U1", str(ids.dtype))):
            model.fit(x, {**y, "groups": ids}, verbose=0)
