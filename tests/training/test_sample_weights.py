"""Weights of samples, of elements and of classes, wherever they are given."""

import keras
import numpy as np
import pytest
from networks import (
    RUN_EAGERLY,
    cross_entropy,
    element_losses,
    grouped_data,
    grouped_model,
    two_headed_data,
    two_headed_model,
)

import keras_taskrobust as ktr


def expected_losses(model, x, y, weights):
    """The weighted means of a grouped model's three tasks."""
    losses = element_losses(model.predict(x, verbose=0), y["labels"])
    inside = [weights * (y["groups"] == group) for group in range(3)]
    return [(losses * each).sum() / each.sum() for each in inside]


def task_losses(logs, prefix=""):
    return [float(np.ravel(logs[f"{prefix}{name}_loss"])[0]) for name in "abc"]


@pytest.mark.parametrize("named", [False, True])
def test_an_array_of_element_weights_for_the_only_grouped_output(named):
    loss = ktr.GroupedLoss(cross_entropy, ("a", "b", "c"))
    model = grouped_model(
        optimizer=keras.optimizers.SGD(0.0),
        loss={"words": loss} if named else loss,
        run_eagerly=RUN_EAGERLY,
    )
    x, y = grouped_data()
    weights = np.random.default_rng(1).uniform(0.0, 2.0, y["labels"].shape).astype("float32")
    targets = {"words": y} if named else y
    expected = pytest.approx(expected_losses(model, x, y, weights), rel=1e-5)
    history = model.fit(
        x, targets, sample_weight=weights, validation_data=[x, targets, weights], verbose=0
    ).history
    logs = model.evaluate(x, targets, sample_weight=weights, verbose=0, return_dict=True)
    step = model.train_on_batch(x, targets, weights, return_dict=True)
    generated = model.fit(
        ((x, targets, weights) for _ in range(1)), steps_per_epoch=1, shuffle=False, verbose=0
    ).history
    for each in (history, logs, step, generated):
        assert task_losses(each) == expected
    assert task_losses(history, "val_") == expected


@pytest.mark.parametrize("split", [0.0, 0.25])
def test_class_weights_of_one_sparse_grouped_output(split):
    model = grouped_model(optimizer=keras.optimizers.SGD(0.0), run_eagerly=RUN_EAGERLY)
    x, y = grouped_data()
    class_weight = {0: 3.0, 2: 0.0, 4: 0.5}
    weights = np.vectorize(lambda label: class_weight.get(label, 1.0))(y["labels"])
    held_out = int(len(x) * (1 - split))
    x_train, y_train = x[:held_out], {name: array[:held_out] for name, array in y.items()}
    expected = expected_losses(model, x_train, y_train, weights[:held_out])
    history = model.fit(
        x, y, class_weight=class_weight, validation_split=split, shuffle=False, verbose=0
    ).history
    assert task_losses(history) == pytest.approx(expected, rel=1e-5)
    if split:
        x, y = x[held_out:], {name: array[held_out:] for name, array in y.items()}
        unweighted = expected_losses(model, x, y, np.ones((4, 4)))
        assert task_losses(history, "val_") == pytest.approx(unweighted, rel=1e-5)
    else:
        logs = model.train_on_batch(x, y, class_weight=class_weight, return_dict=True)
        assert task_losses(logs) == pytest.approx(expected, rel=1e-5)


def test_class_weights_of_samples_are_those_of_keras():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(12, 3)).astype("float32"), rng.integers(0, 2, 12)
    class_weight = {0: 0.5, 1: 2.0}
    weights = np.where(labels == 0, 0.5, 2.0)
    for loss, y in (("sparse_categorical_crossentropy", labels), ("mse", np.eye(2)[labels])):
        network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
        model = ktr.MinimaxModel(network)
        model.compile(keras.optimizers.SGD(0.0), loss=loss)
        (task,) = model.task_names
        predicted = network.predict(x, verbose=0)
        values = element_losses(np.log(predicted), labels)
        if loss == "mse":
            values = ((predicted - y) ** 2).mean(-1)
        found = model.train_on_batch(x, y, class_weight=class_weight, return_dict=True)
        assert found[f"{task}_loss"] == pytest.approx(np.average(values, weights=weights), rel=1e-5)


def test_class_weights_without_one_sparse_loss_are_refused_alike():
    x, y = two_headed_data()
    model = two_headed_model()
    grouped = grouped_model(loss=ktr.GroupedLoss("mse", ("a", "b", "c")))
    features, targets = grouped_data()
    targets["labels"] = np.ones((*targets["labels"].shape, 6))
    for fit in ("fit", "train_on_batch"):
        with pytest.raises(ValueError, match=r"`class_weight` needs a model with one loss"):
            getattr(model, fit)(x, y, class_weight={0: 2.0})
        with pytest.raises(ValueError, match="`class_weight` needs labels that are arrays of clas"):
            getattr(grouped, fit)(features, targets, class_weight={0: 2.0})
    with pytest.raises(ValueError, match="Received: the loss .* for a data set"):
        grouped_model().fit((grouped_data() for _ in range(1)), class_weight={0: 2.0}, verbose=0)


SIZES = {"level": 1, "kind": 3}


def with_missing_labels():
    x, y = two_headed_data()
    y["level"][::3] = np.nan
    return x, y, ~np.isnan(y["level"][:, 0])


@pytest.mark.parametrize("split", [0.0, 0.25])
@pytest.mark.parametrize("weighting", ["uniform", "scale_free_minimax"])
def test_missing_labels_of_one_output_need_weights_of_it_alone(weighting, split):
    x, y, known = with_missing_labels()
    model = two_headed_model(
        optimizer=keras.optimizers.SGD(0.0), weighting=weighting, run_eagerly=RUN_EAGERLY
    )
    fitted = int(len(x) * (1.0 - split))
    inside = np.flatnonzero(known[:fitted])
    error = model.predict(x, verbose=0)["level"][inside] - y["level"][inside]
    history = model.fit(
        x, y, sample_weight={"level": known}, validation_split=split, verbose=0
    ).history
    assert history["level_loss"][0] == pytest.approx(np.square(error).mean(), rel=1e-5)
    assert np.isfinite(history["kind_loss"]).all()
    logs = model.evaluate(x, y, sample_weight={"level": known}, verbose=0, return_dict=True)
    assert np.isfinite(logs["level_loss"])


def test_weights_by_name_of_targets_in_a_list():
    x, y, known = with_missing_labels()
    inputs = keras.Input((5,))
    heads = [keras.layers.Dense(units, name=name)(inputs) for name, units in SIZES.items()]
    model = ktr.MinimaxModel(keras.Model(inputs, heads))
    model.compile("sgd", loss={"level": "mse", "kind": cross_entropy}, run_eagerly=RUN_EAGERLY)
    targets = [y["level"], y["kind"]]
    model.fit(x, targets, sample_weight={"level": known}, verbose=0)
    logs = model.evaluate(x, targets, sample_weight={"level": known}, verbose=0, return_dict=True)
    assert np.isfinite([logs["level_loss"], logs["kind_loss"]]).all()


def refused_labels():
    x, y, known = with_missing_labels()
    model = two_headed_model(run_eagerly=True)
    missing = r"11 of the 32 labels of 'level' are NaN.*sample_weight=\{'level': ~np.isnan"
    yield lambda: model.fit(x, y), missing
    yield lambda: model.fit(x, y, sample_weight={"level": np.ones(32), "kind": None}), missing
    unknown = r"`sample_weight` must be among.*Received: \['age'\]"
    yield lambda: model.fit(x, y, sample_weight={"age": known}), unknown
    measuring = two_headed_model(trivial_losses="measure")
    yield lambda: measuring.measure_trivial_losses(x, y), "labels of 'level' under which"
    short = {**y, "kind": y["kind"][:-1]}
    yield lambda: measuring.measure_trivial_losses(x, short), "arrays of 31, 32 samples"
    listed = {**y, "kind": y["kind"].tolist()}
    yield lambda: measuring.measure_trivial_losses(x, listed), "must be arrays.*Received: .* int"


@pytest.mark.parametrize("index", range(6))
def test_labels_that_no_step_can_use_are_refused(index):
    call, message = list(refused_labels())[index]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_loss_of_ones_own_may_take_labels_that_are_nan():
    def of_known(target, output):
        target = keras.ops.where(keras.ops.isnan(target), output, target)
        return keras.ops.abs(target - output)[:, 0]

    x, y, _ = with_missing_labels()
    model = two_headed_model(
        loss={"level": of_known, "kind": cross_entropy}, run_eagerly=RUN_EAGERLY
    )
    model.fit(x, y, epochs=2, verbose=0)
