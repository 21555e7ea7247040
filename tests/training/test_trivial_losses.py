"""Trivial losses against closed forms, brute force and the data they are measured on."""

import re
import warnings

import keras
import numpy as np
import pytest
from marks import slow
from networks import cross_entropy, grouped_data, grouped_model, two_headed_data, two_headed_model
from scipy import optimize, special

import keras_taskrobust as ktr
from keras_taskrobust.training.callbacks import Checkpoint
from keras_taskrobust.training.constants import KerasConstant
from keras_taskrobust.training.trivial_losses import BATCHES

N, C = 90, 3


def constant_model(loss, shape, trivial_losses="measure", **compile_arguments):
    """A network whose output has this shape a sample, and one task."""
    inputs = keras.Input(shape)
    model = ktr.MinimaxModel(keras.Model(inputs, keras.layers.Dense(shape[-1])(inputs)))
    model.compile(
        "sgd", loss=loss, weighting="uniform", trivial_losses=trivial_losses, **compile_arguments
    )
    return model


def measured(loss, y, shape, sample_weight=None, batch_size=32):
    model = constant_model(loss, shape)
    x = np.zeros((len(y), *shape), "float32")
    (found,) = model.measure_trivial_losses(x, y, sample_weight, batch_size).values()
    return found


def least(function, start):
    """The minimum over constants, by brute force."""
    return optimize.minimize(function, start, method="BFGS", options={"gtol": 1e-9}).fun


def labels_and_weights(seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.gamma(2.0, 1.5, size=(N, C)).astype("float32")
    indices = rng.choice(C, size=N, p=[0.6, 0.3, 0.1]).astype("int32")
    weights = (rng.integers(0, 4, size=N) / 2).astype("float32")
    return numbers, indices, weights


def frequencies(one_hot, weights, even=1 / C):
    return (weights @ one_hot + even) / (weights.sum() + 1.0)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_squared_and_absolute_errors(is_weighted):
    y, _, weights = labels_and_weights()
    w = weights.astype("float64") if is_weighted else np.ones(N)
    given = weights if is_weighted else None
    mean = w @ y / w.sum()
    expected = w @ ((y - mean) ** 2).mean(1) / w.sum()
    assert measured("mse", y, (C,), given) == pytest.approx(expected, rel=1e-6)

    def of_absolute(constant):
        return w @ np.abs(y - constant).mean(1) / w.sum()

    # The minimum of a piecewise linear function is at one of its corners.
    best = sum(min(w @ np.abs(y[:, d] - v) / w.sum() for v in y[:, d]) for d in range(C)) / C
    assert measured("mae", y, (C,), given) == pytest.approx(best, rel=1e-6)
    assert best <= of_absolute(mean)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_cross_entropies_of_classes(from_logits, is_weighted):
    _, y, weights = labels_and_weights()
    w = weights.astype("float64") if is_weighted else np.ones(N)
    given = weights if is_weighted else None
    one_hot = np.eye(C)[y]
    p = frequencies(one_hot, w)
    expected = -(w @ one_hot) @ np.log(p) / w.sum()
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    assert measured(sparse, y, (C,), given) == pytest.approx(expected, rel=1e-6)
    smoothing = 0.2
    smooth = one_hot * (1 - smoothing) + smoothing / C
    p = frequencies(smooth, w)
    dense = keras.losses.CategoricalCrossentropy(from_logits, label_smoothing=smoothing)
    expected = -(w @ smooth) @ np.log(p) / w.sum()
    found = measured(dense, one_hot.astype("float32"), (C,), given)
    assert found == pytest.approx(expected, rel=1e-6)
    lowest = least(lambda z: -(w @ smooth) @ special.log_softmax(z) / w.sum(), np.zeros(C))
    assert lowest <= found + 1e-6
    assert found < lowest + 1 / N


@pytest.mark.parametrize("from_logits", [False, True])
def test_binary_cross_entropy(from_logits):
    numbers, _, w = labels_and_weights()
    y = (numbers > 2.5).astype("float32")
    smooth = 0.9 * y.astype("float64") + 0.05
    p = frequencies(smooth, w.astype("float64"), 0.5)
    of_units = -(smooth * np.log(p) + (1 - smooth) * np.log(1 - p)).mean(1)
    loss = keras.losses.BinaryCrossentropy(from_logits, label_smoothing=0.1)
    assert measured(loss, y, (C,), w) == pytest.approx(w @ of_units / w.sum(), rel=1e-5)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.Huber(delta=0.7),
        "log_cosh",
        keras.losses.mean_absolute_percentage_error,
        keras.losses.MeanSquaredLogarithmicError(),
        keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, gamma=1.5),
        keras.losses.BinaryFocalCrossentropy(from_logits=True, label_smoothing=0.1),
    ],
)
def test_what_is_searched_is_the_least(loss, is_weighted):
    y, _, weights = labels_and_weights()
    y = y[:, :1] + 0.1
    is_binary = isinstance(loss, keras.losses.BinaryFocalCrossentropy)
    y = np.float32(y > 5.0) if is_binary else y
    w = weights if is_weighted else np.ones(N, "float32")
    function = keras.losses.get(loss)
    function = getattr(function, "call", function)
    grid = np.linspace(-6.0, 12.0, 3001) if getattr(loss, "from_logits", False) else None
    grid = np.linspace(0.001, 0.999 if is_binary else y.max(), 3001) if grid is None else grid

    def of_constant(c):
        values = keras.ops.convert_to_numpy(function(y, np.full_like(y, c)))
        return float(w @ values / w.sum())

    found = measured(loss, y, (1,), weights if is_weighted else None)
    assert found == pytest.approx(min(map(of_constant, grid)), rel=1e-4)


def test_images_have_a_constant_for_each_pixel_and_sequences_one():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 2, 3, 2)).astype("float32") + np.arange(3)[:, None]
    expected = np.square(images - images.mean(0)).mean()
    assert measured("mse", images, (2, 3, 2)) == pytest.approx(expected, rel=1e-6)
    median = np.sort(images, axis=0)[9]  # a lower median of 20
    expected = np.abs(images - median).mean()
    assert measured("mae", images, (2, 3, 2)) == pytest.approx(expected, rel=1e-6)
    labels = rng.integers(0, C, size=(20, 2, 3))
    labels[:, 0, 0] = 1
    p = (np.eye(C)[labels].sum(0) + 1 / C) / 21
    expected = -np.log(np.take_along_axis(p[None].repeat(20, 0), labels[..., None], -1)).mean()
    assert measured(cross_entropy, labels, (2, 3, C)) == pytest.approx(expected, rel=1e-6)
    sequences = images.reshape(20, 6, 2)
    expected = np.square(sequences - sequences.mean((0, 1))).mean()
    assert measured("mse", sequences, (6, 2)) == pytest.approx(expected, rel=1e-6)


def test_what_does_not_count_has_no_say():
    numbers, indices, weights = labels_and_weights()
    numbers[weights == 0] = np.nan
    kept = weights > 0
    whole = measured("mse", numbers, (C,), weights)
    assert whole == pytest.approx(measured("mse", numbers[kept], (C,), weights[kept]), rel=1e-6)
    ignoring = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    p = frequencies(np.eye(C)[indices[indices != 2]], np.ones((indices != 2).sum()))
    expected = -np.log(p)[indices[indices != 2]].mean()
    assert measured(ignoring, indices, (C,)) == pytest.approx(expected, rel=1e-6)


def test_keras_masks_count():
    tokens = np.array([[1, 2, 0, 0], [2, 2, 2, 0], [1, 1, 2, 3]])
    labels = (tokens % C).astype("int32")
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(inputs)
    network = keras.Model(inputs, keras.layers.Dense(C)(embedded))
    model = ktr.MinimaxModel(network)
    model.compile("sgd", cross_entropy, "uniform", trivial_losses="measure")
    (found,) = model.measure_trivial_losses(tokens, labels).values()
    seen = labels[tokens > 0]
    p = frequencies(np.eye(C)[seen], np.ones(len(seen)))
    assert found == pytest.approx(-np.log(p)[seen].mean(), rel=1e-6)


def test_groups_share_the_even_mixture():
    x, y = grouped_data(40)
    y["groups"] = np.where(np.random.default_rng(1).random((40, 4)) < 0.7, 0, y["groups"])
    y["labels"] = np.where(y["groups"] == 1, 5, y["labels"])
    model = grouped_model(weighting="uniform", trivial_losses="measure")
    found = model.measure_trivial_losses(x, y)
    of_groups = [y["labels"][y["groups"] == group] for group in range(3)]
    smooth = [
        (np.bincount(labels, minlength=6) + 1 / 6) / (len(labels) + 1) for labels in of_groups
    ]
    log_p = np.log(np.mean(smooth, axis=0))
    expected = [-log_p[labels].mean() for labels in of_groups]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)
    lowest = least(
        lambda z: -np.mean([special.log_softmax(z)[labels].mean() for labels in of_groups]),
        np.zeros(6),
    )
    assert lowest <= np.mean(expected) < lowest + 0.02


def test_groups_of_numbers_share_a_constant():
    rng = np.random.default_rng(0)
    groups = rng.choice(3, size=50, p=[0.8, 0.1, 0.1])
    y = (rng.normal(size=(50, 2)) + groups[:, None]).astype("float32")
    for name, error in (("mse", np.square), ("mae", np.abs)):
        model = constant_model(ktr.GroupedLoss(name, ("a", "b", "c")), (2,))
        x = np.zeros((50, 2), "float32")
        found = model.measure_trivial_losses(x, {"labels": y, "groups": groups}).values()

        def of_constants(c, error=error):
            return [error(y[groups == g] - c).mean() for g in range(3)]

        lowest = optimize.minimize(
            lambda c, of=of_constants: np.mean(of(c)), np.ones(2), method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10},
        ).fun  # fmt: skip
        assert np.mean(list(found)) == pytest.approx(lowest, rel=1e-5)


class Scaled(ktr.MinimaxModel):
    """Each loss in units of its own."""

    factors = (1.0, 1.0)

    def compute_task_totals(self, *arguments):
        totals, counts, auxiliary = super().compute_task_totals(*arguments)
        factors = keras.ops.convert_to_tensor(self.factors, dtype="float32")
        return ktr.training.TaskTotals(totals * factors, counts, auxiliary)


def trained(factors, steps, weighting, optimizer):
    keras.utils.set_random_seed(0)
    from networks import LOSSES, two_headed_network

    model = Scaled(two_headed_network())
    model.factors = factors
    model.compile(optimizer, loss=LOSSES, weighting=weighting)
    x, y = two_headed_data(16 * steps)
    start = [keras.ops.convert_to_numpy(one) for one in model.trainable_variables]
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    moves = zip(model.trainable_variables, start, strict=True)
    return model, np.concatenate(
        [np.ravel(keras.ops.convert_to_numpy(v) - before) for v, before in moves]
    )


@pytest.mark.parametrize("momentum", [0.0, slow(0.9)])
def test_units_do_not_matter(momentum):
    weighting = {"scale_free_minimax": {"loss_momentum": momentum}}
    ((name, options),) = weighting.items()

    def run(factors):
        return trained(
            factors, 20, ktr.weighting.create(name, options), keras.optimizers.Adam(0.01)
        )

    model, moves = run((1.0, 1.0))
    doubled, of_powers = run((2.0**10, 2.0**-7))
    np.testing.assert_array_equal(of_powers, moves)
    ratios = np.divide(list(doubled.trivial_losses.values()), list(model.trivial_losses.values()))
    np.testing.assert_array_equal(ratios, (2.0**10, 2.0**-7))
    _, of_others = run((10.0, 0.3))
    assert np.abs(of_others - moves).max() < 1e-5 * np.abs(moves).max()


def test_they_are_measured_once_and_saved(tmp_path):
    x, y = two_headed_data()
    model = two_headed_model(weighting="scale_free_minimax")
    assert np.isnan(list(model.trivial_losses.values())).all()
    model.fit(x, y, verbose=0, callbacks=[Checkpoint(tmp_path)])
    known = model.trivial_losses
    assert known["level"] == pytest.approx(y["level"].var(), rel=1e-6)
    again = two_headed_model(weighting="scale_free_minimax")
    Checkpoint(tmp_path).restore(again)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    other = {"level": 5 * y["level"], "kind": y["kind"]}
    for one in (model, again, loaded):
        assert one.trivial_losses == known
        one.fit(x, other, verbose=0)
        assert one.trivial_losses == known
        assert one.measure_trivial_losses(x, other) == known


def test_weights_of_before_trivial_losses_still_load(tmp_path):
    two_headed_model(weighting="uniform").save_weights(tmp_path / "old.weights.h5")
    model = two_headed_model(weighting="uniform", trivial_losses="measure")
    model.load_weights(tmp_path / "old.weights.h5")
    assert np.isnan(list(model.trivial_losses.values())).all()


def test_logs_hold_the_ratios():
    x, y = two_headed_data()
    model = two_headed_model(weighting="uniform", trivial_losses={"kind": 2.0})
    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    trivial = model.trivial_losses
    assert trivial["kind"] == 2.0
    for start in ("", "val_"):
        ratios = [history[f"{start}{name}_trivial_ratio"][0] for name in model.task_names]
        losses = [history[f"{start}{name}_loss"][0] for name in model.task_names]
        np.testing.assert_allclose(ratios, np.divide(losses, list(trivial.values())), rtol=1e-6)
        assert history[f"{start}worst_trivial_ratio"] == [max(ratios)]
    assert two_headed_model().trivial_losses is None


def test_a_measurement_moves_no_random_number():
    def history(trivial_losses):
        from networks import two_headed_network

        keras.utils.set_random_seed(1)
        model = two_headed_model(two_headed_network(dropout=0.5), weighting="uniform",
                                 trivial_losses=trivial_losses)  # fmt: skip
        return model.fit(*two_headed_data(), batch_size=4, verbose=0).history["loss"]

    assert history(None) == history("measure")


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.pairs = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return keras.tree.map_structure(lambda array: array[part], self.pairs)


class ReadAnew:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter([self.batches[index] for index in range(4)])


def test_any_data_that_can_be_read_again():
    x, y = two_headed_data()
    expected = two_headed_model(weighting="uniform", trivial_losses="measure")
    expected = expected.measure_trivial_losses(x, y, batch_size=8)
    batches = Batches(x, y)
    for data in (batches, ReadAnew(batches)):
        model = two_headed_model(weighting="uniform", trivial_losses="measure")
        found = model.measure_trivial_losses(data)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)


def test_of_arrays_as_many_samples_as_batches_hold_evenly_spread():
    number = 10 * BATCHES
    x = np.zeros((number, 1), "float32")
    y = np.arange(number, dtype="float32")[:, None]
    model = constant_model("mse", (1,))
    (found,) = model.measure_trivial_losses(x, y, batch_size=2).values()
    rows = np.linspace(0, number - 1, 2 * BATCHES).astype(int)
    assert found == pytest.approx(y[rows].var(), rel=1e-5)


def test_what_is_held_out_is_not_measured():
    x, y = two_headed_data(40)
    y["level"][30:] = 100.0
    model = two_headed_model(weighting="scale_free_minimax")
    model.fit(x, y, validation_split=0.25, verbose=0)
    assert model.trivial_losses["level"] == pytest.approx(y["level"][:30].var(), rel=1e-6)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_generator_is_read_ahead_and_trained_on_from_its_start(epochs):
    x, y = two_headed_data(40)
    drawn = []

    def batches():
        for step in range(4 * epochs):
            rows = slice(10 * (step % 4), 10 * (step % 4) + 10)
            drawn.append(step)
            yield x[rows], {name: label[rows] for name, label in y.items()}

    expected, model = (two_headed_model(weighting="scale_free_minimax") for _ in range(2))
    model.set_weights(expected.get_weights())
    same = {"epochs": epochs, "verbose": 0, "shuffle": False}
    histories = (
        expected.fit(x, y, batch_size=10, **same).history,
        model.fit(batches(), steps_per_epoch=4, **same).history,
    )
    assert drawn == list(range(4 * epochs))
    assert model.trivial_losses["level"] == pytest.approx(y["level"].var(), rel=1e-5)
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-4)


def refusals():
    x, y = two_headed_data()
    losses = {"level": "mse", "kind": cross_entropy}

    def model(**arguments):
        return two_headed_model(**{"weighting": "scale_free_minimax", **arguments})

    yield lambda: model().fit(iter([(x, y)])), r"read more than once.*Received: list_iterator"
    yield lambda: model().train_on_batch(x, y), r"call `measure_trivial_losses` first"
    yield lambda: model(trivial_losses="mean"), r'must be "measure", or a dict.*mean'
    yield lambda: model(trivial_losses={"age": 1.0}), r"among the tasks level, kind.*age"
    yield lambda: model(trivial_losses={"kind": "1"}), r"trivial_losses\['kind'\]` must be finite"
    yield (
        lambda: model(loss={**losses, "level": "hinge"}),
        (r"`trivial_losses=\{'level': value\}`.*hinge"),
    )
    negative = {**losses, "level": "cosine_similarity"}
    yield lambda: model(loss=negative, trivial_losses={"level": 1.0}), r"can be negative"
    yield lambda: model(trivial_losses={"level": 0.0, "kind": 1.0}), r"must lie above 0"
    constant = {**y, "level": np.ones_like(y["level"])}
    yield lambda: model().fit(x, constant), r"must lie above 0.*'level': 0.0"
    unseen = {"labels": np.ones((8, 4), "int32"), "groups": np.zeros((8, 4), "int32")}
    yield (
        lambda: grouped_model(trivial_losses="measure").fit(np.zeros((8, 4, 5)), unseen),
        r"no element of 'b', 'c'.*`trivial_losses=\{'b': value\}`",
    )
    yield lambda: two_headed_model().measure_trivial_losses(x, y), r"Compile with `trivial_losses="


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        ("binary_crossentropy", np.array([[-1.0], [1.0]]), "between 0 and 1 under.*from -1.0 to"),
        (cross_entropy, np.array([1, C]), rf"between 0 and {C - 1} under.*from 1 to {C}"),
    ],
)
def test_labels_that_a_loss_does_not_take(loss, labels, message):
    constant = KerasConstant(keras.losses.get(loss), 1, 1 if labels.ndim > 1 else C)
    ones = np.ones((2, 1))
    with pytest.raises(ValueError, match=message):
        constant.add(labels.reshape(2, 1, -1)[..., : labels.ndim], ones, np.zeros((2, 1), int))


def test_what_a_loss_raises_names_its_output():
    x, y = two_headed_data()
    model = two_headed_model(weighting="scale_free_minimax")
    with pytest.raises((ValueError, RuntimeError)) as error:
        model.fit(x, {**y, "kind": np.eye(3)[y["kind"]]}, verbose=0)
    assert error.value.__notes__ == ["In the loss of the output 'kind'."]


@pytest.mark.parametrize("index", range(11))
def test_refusals(index):
    call, message = list(refusals())[index]
    with pytest.raises(ValueError, match=message):
        call()


def test_other_losses_take_a_given_value():
    x, y = two_headed_data()

    def own_loss(target, output):
        return keras.ops.sum(keras.ops.abs(target - keras.ops.mean(output, -1, True)), axis=-1)

    model = two_headed_model(
        loss={"level": own_loss, "kind": cross_entropy},
        weighting="scale_free_minimax",
        trivial_losses={"level": 0.4},
    )
    model.fit(x, y, verbose=0)
    assert model.trivial_losses["level"] == pytest.approx(0.4)


def test_a_warning_names_the_task_that_is_worse_than_a_constant():
    x, y = two_headed_data()
    y["level"] += 50.0

    def fit(epochs, rate, weighting, kind):
        model = two_headed_model(
            optimizer=keras.optimizers.SGD(rate),
            weighting=weighting,
            trivial_losses={"kind": kind},
        )
        model.fit(x, y, epochs=epochs, batch_size=1, verbose=0)

    def warnings_of(epochs, rate, weighting="uniform", kind=100.0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(epochs, rate, weighting, kind)
        return [str(one.message) for one in caught if "best constant" in str(one.message)]

    (message,) = warnings_of(epochs=5, rate=1e-4)
    assert message.startswith("In epoch 4 the loss of the task 'level' was ")
    assert '`weighting="scale_free_minimax"` gives such a task more weight' in message
    (message,) = warnings_of(epochs=5, weighting="scale_free_minimax", rate=1e-4)
    assert "scale_free_minimax" not in message
    assert not warnings_of(epochs=2, rate=1e-4)
    (message,) = warnings_of(epochs=9, rate=1e-9)
    assert message.startswith("In epoch 3 the loss of the task 'level' was ")
    assert "the loss stands still" in message
    assert "scale the targets" in message
    (message,) = warnings_of(epochs=9, rate=1e-9, kind=0.01)
    assert re.match(
        r"In epoch 3 the losses of the tasks '\w+', '\w+' were \d.*, \d.* times", message
    )


def test_evaluation_before_training_is_finite():
    model = two_headed_model(weighting="scale_free_minimax")
    logs = model.evaluate(*two_headed_data(), verbose=0, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert np.isnan(logs["worst_trivial_ratio"])
