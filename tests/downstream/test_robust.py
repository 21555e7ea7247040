"""Each way to keep what pre-training gave, against a closed form."""

import dataclasses

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops
from marks import slow

from keras_taskrobust.downstream import robust, text_task
from keras_taskrobust.downstream.finetuning_run import head_variables
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text_finetuning import encode_task, finetune_text, open_bert

SETTINGS = FineTuning(learning_rate=1e-2, batch_size=12, epochs=1, max_steps=2)


@pytest.mark.parametrize("importance", [None, 3.0])
def test_a_penalized_fit_ends_where_the_closed_form_says(importance):
    """(w - y)^2 + s / 2 F (w - w0)^2 has its minimum at (2 y + s F w0) / (2 + s F)."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[2.0]], "float32")])
    factors = None if importance is None else [np.array([[importance]], "float32")]
    robust.penalize_distance(model, model.trainable_variables, 0.5, factors)
    model.compile(keras.optimizers.SGD(0.2), loss="mse")
    one, minus = np.ones((1, 1), "float32"), -np.ones((1, 1), "float32")
    model.fit(one, minus, epochs=30, verbose=0)
    factor = 0.5 * (importance or 1.0)
    expected = (2 * -1.0 + factor * 2.0) / (2 + factor)
    np.testing.assert_allclose(model.trainable_variables[0].numpy(), [[expected]], rtol=1e-5)


def test_the_fisher_diagonal_is_that_of_logistic_regression():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)).astype("float32"), rng.integers(0, 2, 5).astype("int32")
    inputs = keras.Input((3,))
    hidden = keras.layers.Dropout(0.5)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = model.get_weights()
    kernel, bias = robust.fisher_diagonal(model, x, y, loss)
    logits = x.astype("float64") @ before[0] + before[1]
    errors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[y]
    np.testing.assert_allclose(kernel, (x**2).T @ errors**2 / 5, rtol=1e-4)
    np.testing.assert_allclose(bias, (errors**2).mean(0), rtol=1e-4)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_distillation_is_zero_at_the_start_and_then_the_change_of_the_features(preset):
    backbone, encoder = open_bert(preset)
    classifier = keras_hub.models.BertTextClassifier(backbone, num_classes=2, dropout=0.0)
    model = robust.distil_from_start(classifier, strength=2.0)
    rng = np.random.default_rng(0)
    x = {
        "token_ids": rng.integers(5, encoder.vocabulary_size, (2, 6)).astype("int32"),
        "segment_ids": np.zeros((2, 6), "int32"),
        "padding_mask": np.array([[1] * 6, [1] * 3 + [0] * 3], "int32"),
    }
    assert len(model.trainable_variables) == len(classifier.trainable_variables)

    def penalty():
        model(x, training=False)
        return float(ops.convert_to_numpy(sum(model.losses)))

    def features():
        return ops.convert_to_numpy(backbone(x, training=False)["sequence_output"])

    before = features()
    assert penalty() == pytest.approx(0.0, abs=1e-12)
    table = backbone.token_embedding.embeddings
    table.assign(ops.convert_to_numpy(table) + 0.1 * rng.normal(size=table.shape))
    squares = ((features().astype("float64") - before) ** 2).mean(-1)
    expected = 2.0 * squares[x["padding_mask"] == 1].mean()
    assert expected > 1e-4
    assert penalty() == pytest.approx(expected, rel=1e-4)


def test_averages_of_weights():
    start = [np.array([0.0, 2.0], "float32"), np.array([[4.0]], "float32")]
    end = [np.array([4.0, 2.0], "float32"), np.array([[0.0]], "float32")]
    mixed = robust.interpolate(start, end, 0.75)
    np.testing.assert_array_equal(mixed[0], [3.0, 2.0])
    np.testing.assert_array_equal(mixed[1], [[1.0]])
    assert mixed[0].dtype == "float32"
    mean = robust.uniform_soup([start, end])
    np.testing.assert_array_equal(mean[0], [2.0, 2.0])


def test_the_greedy_soup_takes_what_does_not_harm():
    members = [[np.array([value])] for value in (3.0, -1.0, 1.5, 2.0)]
    tried = []

    def score(weights):
        tried.append(float(weights[0][0]))
        return -abs(weights[0][0] - 1.9)

    (soup,) = robust.greedy_soup(members, score)
    # 2.0 is best; with 1.5 worse (1.75), with 3.0 worse (2.5), with -1.0 worse (0.5).
    np.testing.assert_array_equal(soup, [2.0])
    assert tried == [3.0, -1.0, 1.5, 2.0, 1.75, 2.5, 0.5]
    (soup,) = robust.greedy_soup(
        [[np.array([1.0])], [np.array([3.0])]], lambda w: -abs(w[0][0] - 2)
    )
    np.testing.assert_array_equal(soup, [2.0])


@pytest.mark.parametrize("degrees", [0.0, 30.0, 60.0, 90.0])
@pytest.mark.parametrize("number", [2, 3])
def test_model_stock_has_the_ratio_of_the_paper(degrees, number):
    """Moves of equal length with one angle between all: t = N cos / (1 + (N - 1) cos)."""
    cosine = np.cos(np.radians(degrees))
    gramian = np.full((number, number), cosine) + (1 - cosine) * np.eye(number)
    values, vectors = np.linalg.eigh(gramian)
    moves = 2.0 * vectors @ np.diag(np.sqrt(np.maximum(values, 0)))
    start = np.arange(number, dtype="float64")
    (stock,) = robust.model_stock([start], [[start + move] for move in moves])
    ratio = number * cosine / (1 + (number - 1) * cosine)
    np.testing.assert_allclose(stock, start + ratio * moves.mean(0), atol=1e-12)


@pytest.mark.parametrize("number", [2, 3])
def test_model_stock_of_moves_that_cancel_out_is_the_start(number):
    angles = 2 * np.pi * np.arange(number) / number
    start = np.ones(2, "float32")
    moves = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (stock,) = robust.model_stock([start], [[start + move] for move in moves])
    np.testing.assert_array_equal(stock, start)


def test_model_stock_of_models_that_did_not_move_is_the_start():
    start = [np.ones(3)]
    np.testing.assert_array_equal(robust.model_stock(start, [start, [np.zeros(3)]])[0], np.ones(3))
    with pytest.raises(ValueError, match="at least two fine-tuned models. Received: 1"):
        robust.model_stock(start, [start])


def moved(preset, folder, head=None, **fields):
    """How far each weight of the encoder went, and the result."""
    task = text_task("RTE")
    keras.utils.set_random_seed(0)
    backbone, encoder = open_bert(preset)
    before = {variable.path: ops.convert_to_numpy(variable) for variable in backbone.weights}
    if fields.get("method") == "ewc":
        fields["fisher_examples"] = 3
    settings = dataclasses.replace(SETTINGS, **fields)
    data = encode_task(task.load(folder), encoder, backbone.max_sequence_length, settings)
    result = finetune_text(backbone, task, data, settings, head=head)
    distances = {
        variable.path: np.abs(ops.convert_to_numpy(variable) - before[variable.path]).max()
        for variable in backbone.weights
        if variable.path in before
    }
    assert np.isfinite(result.scores["last"]["accuracy"])
    return distances, result


@pytest.mark.parametrize(
    "method",
    [
        "linear_probe",
        "lora",
        "lwf",
        "probe_then_full",
        pytest.param("ewc", marks=pytest.mark.slow),
    ],
)
def test_methods_train_what_they_should(method, preset, glue_folder):
    distances, _ = moved(preset, glue_folder, method=method)
    moved_paths = {path for path, distance in distances.items() if distance > 0}
    if method == "linear_probe":
        assert not moved_paths
    elif method == "lora":  # KerasHub freezes the kernels, not these biases
        assert all(path.endswith(("query/bias", "value/bias")) for path in moved_paths)
    else:
        assert moved_paths == set(distances)


@pytest.mark.slow
def test_a_strong_pull_keeps_the_encoder_near_its_start(preset, glue_folder):
    fields = {"batch_size": 1, "max_steps": 8}
    free, _ = moved(preset, glue_folder, **fields)
    held, _ = moved(preset, glue_folder, **fields, method="l2_sp", strength=1e4)
    assert sum(held.values()) < 0.6 * sum(free.values())


@pytest.mark.parametrize(("method", "is_decayed"), [slow("full", True), ("l2_sp", False)])
def test_a_pull_takes_the_place_of_weight_decay(method, is_decayed, preset, glue_folder):
    """The first step has no penalty yet: only weight decay could move the encoder otherwise."""
    fields = {"method": method, "max_steps": 1}
    (free, one), (decayed, other) = (
        moved(preset, glue_folder, **fields, weight_decay=rate) for rate in (0.0, 5.0)
    )
    assert (free != decayed) == is_decayed
    kernels = [head_variables(result.model)[0].numpy() for result in (one, other)]
    assert not np.array_equal(*kernels)


def test_wise_ft_ends_between_start_and_fine_tuned(preset, glue_folder):
    whole, _ = moved(preset, glue_folder)
    half, _ = moved(preset, glue_folder, wise_share=0.5)
    for path, distance in whole.items():
        assert half[path] == pytest.approx(0.5 * distance, rel=1e-3, abs=1e-6), path


@pytest.mark.parametrize("share", [0.5, slow(0.0)])
@pytest.mark.parametrize("method", ["l2_sp", slow("ewc")])
def test_wise_ft_and_soups_go_with_a_pull(method, share, preset, glue_folder):
    fields = {"method": method, "max_steps": 1, "soup_size": 2}
    distances, _ = moved(preset, glue_folder, **fields, wise_share=share)
    assert {distance > 0 for distance in distances.values()} == {share > 0}


@pytest.mark.slow
def test_a_soup_ends_between_start_and_fine_tuned(preset, glue_folder):
    whole, _ = moved(preset, glue_folder)
    soup, _ = moved(preset, glue_folder, soup_size=2, soup="model_stock", max_steps=1)
    assert 0 < sum(soup.values()) <= sum(whole.values())


@pytest.mark.parametrize("is_trained", [slow(False), True])
def test_model_stock_pulls_a_head_only_if_it_was_trained(is_trained, preset, glue_folder):
    rng = np.random.default_rng(0)
    trained = [rng.normal(size=shape).astype("float32") for shape in ((8, 2), 2)]
    fields = {"head": trained if is_trained else None, "batch_size": 4, "soup_size": 2}
    (far, mean), (near, stock) = (
        moved(preset, glue_folder, **fields, max_steps=1, soup=soup)
        for soup in ("uniform", "model_stock")
    )
    assert sum(near.values()) < sum(far.values())
    heads = [head_variables(one.model) for one in (mean, stock)]
    same = [np.array_equal(a.numpy(), b.numpy()) for a, b in zip(*heads, strict=True)]
    assert all(same) != is_trained
