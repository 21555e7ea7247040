"""Elements that do not count, losses of a whole batch, and sizes that are not known."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from networks import cross_entropy, element_losses, skip_on

import keras_taskrobust as ktr

SAMPLES, STEPS, CLASSES = 6, 4, 3


def roots_and_logarithms(y_true, y_pred):
    """Its derivative is infinite where the two are equal, and where either is 0."""
    terms = ops.sqrt(ops.abs(y_true - y_pred)) + ops.abs(ops.log(y_true / y_pred))
    return ops.mean(terms, axis=-1)


#: Losses of numbers in (0, 1), and of class indices, with the activation of their output.
OF_NUMBERS = {
    name: name
    for name in (
        "mean_squared_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "kl_divergence",
        "cosine_similarity",
        "poisson",
        "hinge",
        "binary_crossentropy",
        "categorical_crossentropy",
    )
} | {"own": roots_and_logarithms}
OF_INDICES = {
    "logits": (cross_entropy, "linear"),
    "probabilities": ("sparse_categorical_crossentropy", "softmax"),
    "ignoring": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
        "linear",
    ),
}
LOSSES = OF_NUMBERS | {name: loss for name, (loss, _) in OF_INDICES.items()}
JUNK = st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 255.0, -100.0, -1.0, 0.0]), min_size=1)


@pytest.fixture(autouse=True, scope="module")
def deterministic_operations():
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework import config

    tf.config.experimental.enable_op_determinism()
    yield
    config.disable_op_determinism()


class Case:
    """A model with an output for every loss, and data of which some elements do not count."""

    def __init__(self, by, names, weighting):
        rng = np.random.default_rng(0)
        keras.utils.set_random_seed(0)
        self.by = by
        self.excluded = np.zeros((SAMPLES, STEPS), bool)
        self.excluded[1] = True
        if by != "weight of samples":
            self.excluded[[0, 2], [1, 3]] = True
        self.x = rng.normal(size=(SAMPLES, STEPS, 3)).astype("float32")
        if by == "mask":
            self.x[self.excluded] = 0.0
        self.labels = {name: self.draw_labels(name, rng) for name in names}
        self.model = ktr.MinimaxModel(self.network(names))
        losses = {name: LOSSES[name] for name in names}
        if by == "group":
            losses = {
                name: ktr.GroupedLoss(loss, (f"{name}_a", f"{name}_b"))
                for name, loss in losses.items()
            }
        self.model.compile(keras.optimizers.SGD(0.1), losses, weighting)
        self.initial = self.model.get_weights()

    def draw_labels(self, name, rng):
        if name in OF_INDICES:
            dtype = "float32" if name == "probabilities" else "int32"
            return rng.integers(0, CLASSES, (SAMPLES, STEPS)).astype(dtype)
        labels = rng.uniform(0.1, 0.9, (SAMPLES, STEPS, CLASSES)).astype("float32")
        return np.rint(labels) if name == "hinge" else labels

    def network(self, names):
        inputs = keras.Input((STEPS, 3))
        x = keras.layers.Masking()(inputs) if self.by == "mask" else inputs
        x = keras.layers.Dense(4, activation="tanh")(x)
        outputs = {}
        for name in names:
            _, activation = OF_INDICES.get(name, (None, "sigmoid"))
            outputs[name] = keras.layers.Dense(CLASSES, activation, name=name)(x)
        return keras.Model(inputs, outputs)

    def train(self, junk=None):
        """The weights after five steps from the same start."""
        labels = {name: values.copy() for name, values in self.labels.items()}
        for values in labels.values():
            if junk is not None:
                values[self.excluded] = self.filling(junk, values)
        weight = np.where(self.excluded, 0.0, 2.0).astype("float32")
        if self.by == "weight of samples":
            weight = weight[:, 0]
        if self.by == "group":
            groups = np.where(self.excluded, -1, np.arange(STEPS) % 2)
            labels = {name: {"labels": y, "groups": groups} for name, y in labels.items()}
        weights = dict.fromkeys(labels, weight) if self.by.startswith("weight") else None
        self.model.set_weights(self.initial)
        for _ in range(5):
            self.model.train_on_batch(self.x, labels, weights)
        return self.model.get_weights()

    def filling(self, junk, values):
        junk = np.resize(junk, values[self.excluded].shape)
        if values.dtype == "int32":
            junk = np.where(np.isfinite(junk), junk, np.iinfo("int32").max)
        return junk


@pytest.mark.parametrize(
    ("by", "names", "weighting"),
    [
        ("group", LOSSES, "uniform"),
        ("weight of elements", LOSSES, "uniform"),
        ("weight of samples", ["own", "logits"], "uniform"),
        ("group", ["own", "logits"], "upgrad"),
        ("mask", ["own", "logits", "ignoring"], "upgrad"),
        ("mask", ["own", "logits", "ignoring"], "uniform"),
    ],
)
def test_labels_that_do_not_count_change_no_bit(by, names, weighting):
    case = Case(by, names, weighting)
    expected = case.train()
    assert all(np.isfinite(values).all() for values in expected)
    assert any((a != b).any() for a, b in zip(expected, case.initial, strict=True))

    @settings(max_examples=4, deadline=None)
    @given(JUNK)
    def check(junk):
        for actual, known in zip(case.train(junk), expected, strict=True):
            np.testing.assert_array_equal(actual, known)

    check()


@pytest.mark.parametrize("by", ["group", "weight"])
def test_an_infinite_derivative_at_an_element_that_does_not_count(by):
    x = np.array([[1.0], [2.0], [0.0]], "float32")
    labels = np.array([[3.0], [3.0], [0.0]], "float32")
    inputs = keras.Input((1,))
    network = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="out")(inputs))
    network.set_weights([np.ones((1, 1))])
    model = ktr.MinimaxModel(network)
    groups, weight = np.array([0, 0, -1]), np.array([1.0, 1.0, 0.0])
    loss = {"out": lambda y_true, y_pred: ops.sqrt(ops.abs(y_true - y_pred))}
    if by == "group":
        loss, labels, weight = ktr.GroupedLoss(loss["out"], ("a",)), {"labels": labels}, None
        labels["groups"] = groups
    model.compile(keras.optimizers.SGD(1.0), loss)
    model.train_on_batch(x, labels, sample_weight=weight)
    # The mean over two elements of d sqrt(3 - w x) / dw = -x / (2 sqrt(3 - w x)), at w = 1.
    expected = 1 + (1 / (2 * np.sqrt(2)) + 2 / 2) / 2
    np.testing.assert_allclose(network.get_weights()[0], [[expected]], rtol=1e-6)


def mean_squared_error_of_batch(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


def mean_squared_errors_of_columns(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=0)


def name_of(loss):
    return loss if isinstance(loss, str) else getattr(loss, "name", None) or loss.__name__


OF_BATCH = [
    keras.losses.Dice(),
    keras.losses.Tversky(),
    "dice",
    keras.losses.Circle(),
    mean_squared_error_of_batch,
    mean_squared_errors_of_columns,
]


def one_output():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(3, "sigmoid", name="out")(inputs))


def batch_of(number=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(number, 3)).astype("float32"), np.eye(3)[np.arange(number) % 3]


@pytest.mark.parametrize("loss", OF_BATCH, ids=name_of)
@pytest.mark.parametrize("by", ["group", "weight"])
def test_a_loss_of_the_batch_is_refused_where_elements_count_differently(by, loss):
    x, y = batch_of()
    y = y[:, :1] if isinstance(loss, keras.losses.Circle) else y
    model = ktr.MinimaxModel(one_output())
    if by == "group":
        model.compile("sgd", ktr.GroupedLoss(loss, ("a", "b")), run_eagerly=True)
        arguments = {"y": {"labels": y, "groups": np.array([0, 0, 1, 1, -1])}}
    else:
        model.compile("sgd", {"out": loss}, run_eagerly=True)
        arguments = {"y": y, "sample_weight": np.ones(5)}
    before = model.get_weights()
    with pytest.raises(ValueError, match="a loss must give a value for each element.*Received"):
        model.train_on_batch(x, **arguments)
    for actual, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("loss", OF_BATCH, ids=name_of)
def test_a_loss_of_the_batch_is_keras_own_for_an_output(loss):
    x, y = batch_of()
    y = y[:, :1] if isinstance(loss, keras.losses.Circle) else y
    network = one_output()
    model = ktr.MinimaxModel(network)
    network.compile(loss=loss, run_eagerly=True)
    model.compile(loss={"out": loss}, run_eagerly=True)
    assert model.test_on_batch(x, y, return_dict=True)["out_loss"] == pytest.approx(
        float(network.test_on_batch(x, y)), rel=1e-6
    )


def test_dice_of_each_sample_by_groups():
    x, y = batch_of()
    network = one_output()
    groups = np.array([0, 1, 1, -1, 0])
    model = ktr.MinimaxModel(network)
    model.compile(loss=ktr.GroupedLoss(keras.losses.Dice(axis=1), ("a", "b")), run_eagerly=True)
    predicted = network.predict(x, verbose=0).astype("float64")
    of_sample = 1 - 2 * (y * predicted).sum(1) / (y.sum(1) + predicted.sum(1))
    logs = model.test_on_batch(x, {"labels": y, "groups": groups}, return_dict=True)
    for group, name in enumerate("ab"):
        expected = of_sample[groups == group].mean()
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)


def test_flat_predictions_have_a_loss_each():
    predicted, labels = np.array([[0.2, 0.6, 0.9, 0.4], [1.0, 0.0, 1.0, 0.0]], "float32")
    groups, weight = np.array([0, 1, 1, -1]), np.array([1.0, 2.0, 0.5, 3.0], "float32")
    loss = ktr.GroupedLoss("mse", ("a", "b"))
    y = {"labels": labels, "groups": groups}
    totals, counts = loss.totals_and_counts(y, ops.convert_to_tensor(predicted), weight)
    of_sample = weight * (predicted - labels) ** 2
    np.testing.assert_allclose(totals, [of_sample[0], of_sample[1:3].sum()], rtol=1e-6)
    np.testing.assert_allclose(counts, [1.0, 2.5])


@pytest.mark.parametrize("name", ["binary_crossentropy", "sparse_categorical_crossentropy"])
def test_a_weight_does_not_take_the_logits_from_a_saturated_probability(name):
    x = np.array([[40.0, -40.0], [1.0, 0.5], [-2.0, 1.0]], "float32")
    is_binary = name.startswith("binary")
    y = np.array([[0, 1], [1, 0], [0, 0]]) if is_binary else np.array([1, 0, 0])
    weight = np.array([1.0, 2.0, 0.0])
    inputs = keras.Input((2,))
    activation = "sigmoid" if is_binary else "softmax"
    network = keras.Model(inputs, keras.layers.Activation(activation, name="out")(inputs))
    kind = keras.losses.BinaryCrossentropy
    kind = kind if is_binary else keras.losses.SparseCategoricalCrossentropy
    network.compile(loss=kind(reduction="mean_with_sample_weight"))
    model = ktr.MinimaxModel(network)
    model.compile(loss={"out": name})
    ours = model.test_on_batch(x, y, sample_weight=weight, return_dict=True)["out_loss"]
    assert ours == pytest.approx(float(network.test_on_batch(x, y, weight)), rel=1e-5)


@skip_on("jax", "torch")
@pytest.mark.parametrize("unknown", [("predicted", "groups"), ("predicted", "groups", "weight")])
@pytest.mark.parametrize("sparse", [False, True])
def test_sizes_that_are_not_known_give_the_same_figures(unknown, sparse):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shape = (5, 4, 3)
    labels = rng.integers(0, 3, (5, 4, 1)) if sparse else rng.uniform(size=shape)
    arrays = {
        "predicted": rng.normal(size=shape).astype("float32"),
        "labels": labels.astype("int32" if sparse else "float32"),
        "groups": rng.integers(-1, 2, (5, 1)).astype("int32"),
        "weight": rng.uniform(size=(5, 1)).astype("float32"),
    }
    loss = ktr.GroupedLoss(cross_entropy if sparse else "mse", ("a", "b"))

    def figures(predicted, labels, groups, weight):
        y = {"labels": labels, "groups": groups}
        return loss.totals_and_counts(y, predicted, weight)

    signature = {
        name: tf.TensorSpec([None, None, *array.shape[2:]], array.dtype)
        if name in (*unknown, "labels")
        else tf.TensorSpec(array.shape, array.dtype)
        for name, array in arrays.items()
    }
    tensors = {name: tf.constant(array) for name, array in arrays.items()}
    traced = tf.function(figures, input_signature=list(signature.values()))
    for actual, expected in zip(traced(*tensors.values()), figures(**tensors), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    predicted = arrays["predicted"]
    of_element = (
        element_losses(predicted, labels[..., 0])
        if sparse
        else np.square(predicted - labels).mean(-1)
    )
    shares = arrays["weight"] * (arrays["groups"] == np.arange(2)[:, None, None])
    shares = np.broadcast_to(shares, (2, 5, 4))
    for actual, known in zip(figures(**tensors), (of_element * shares, shares), strict=True):
        np.testing.assert_allclose(actual, known.sum((1, 2)), rtol=1e-5)


@skip_on("jax", "torch")
def test_a_data_set_that_does_not_tell_its_sizes():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 3)).astype("float32")
    labels = rng.normal(size=(6, 4, 1)).astype("float32")
    groups, weight = np.array([[0], [1], [0], [1], [-1], [1]]), rng.uniform(size=(6, 4))
    inputs = keras.Input((None, 3))
    network = keras.Model(inputs, keras.layers.Dense(1, name="out")(inputs))
    model = ktr.MinimaxModel(network)
    model.compile(loss=ktr.GroupedLoss("mse", ("a", "b")), weighted_metrics=["mse"])
    batch = (x, {"labels": labels, "groups": groups}, weight.astype("float32"))
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None] * array.ndim, array.dtype), batch
    )
    data = tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=signature)
    logs = model.evaluate(data, steps=1, verbose=0, return_dict=True)
    errors = np.square(network.predict(x, verbose=0) - labels)[..., 0]
    for name, counted in (("a_loss", groups == 0), ("b_loss", groups == 1), ("mse", groups >= 0)):
        expected = np.average(errors, weights=weight * counted)
        assert logs[name] == pytest.approx(expected, rel=1e-5)
