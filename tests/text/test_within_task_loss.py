"""The loss of the word within its task, against NumPy in float64."""

import json

import keras
import numpy as np
import pytest
from scipy.special import log_softmax
from test_pos_bert import VOCABULARY, make_backbone, make_batch, make_preprocessor

from keras_taskrobust.text import POS_TASKS, PosBert, TargetCounts

GROUPS = (*POS_TASKS, "other")
COUNTS = TargetCounts(np.random.default_rng(0).integers(0, 40, (10, len(VOCABULARY))))
SHARES = COUNTS.log_task_shares


def make_model(weighting="uniform", optimizer="adam", dropout=0.0, dtype=None, **arguments):
    arguments = {"task_loss": "within", "log_task_shares": SHARES, "groups": GROUPS} | arguments
    model = PosBert(make_backbone(dropout, dtype=dtype), make_preprocessor(), **arguments)
    model.compile(optimizer, weighting=weighting)
    return model


def targets(groups=10):
    """Of which some belong to no task, with labels that mean nothing."""
    x, y = make_batch(groups=groups)
    masked = y["masked_lm"]
    assert (masked["groups"] < 0).any()
    return x, y, masked["labels"], masked["groups"]


def log_probabilities(model, x, groups):
    """`log p(w | context, k)` of the model's own logits."""
    logits = np.asarray(model.predict(x, verbose=0)["masked_lm"], "float64")
    return log_softmax(logits + SHARES[np.maximum(groups, 0)], axis=-1)


def losses_of_tasks(log_p, labels, groups):
    of_labels = np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    return {
        f"{task}_loss": -of_labels[groups == index].mean()
        for index, task in enumerate(GROUPS)
        if (groups == index).any()
    }


def test_losses_equal_numpy():
    model = make_model()
    x, y, labels, groups = targets()
    expected = losses_of_tasks(log_probabilities(model, x, groups), labels, groups)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_in_half_precision_the_shares_are_added_in_single():
    model = make_model(dtype="mixed_bfloat16")
    x, y, labels, groups = targets()
    outputs = model(x, training=False)
    logits = keras.ops.convert_to_numpy(keras.ops.cast(outputs["masked_lm"], "float32"))
    assert keras.backend.standardize_dtype(outputs["masked_lm"].dtype) == "bfloat16"
    log_p = log_softmax(logits.astype("float64") + SHARES[np.maximum(groups, 0)], axis=-1)
    found = model.compute_task_totals(x, y, outputs, None)
    totals, counts = map(keras.ops.convert_to_numpy, (found.totals, found.counts))
    losses = (totals[counts > 0] / counts[counts > 0]).tolist()
    assert losses == pytest.approx([*losses_of_tasks(log_p, labels, groups).values()], rel=1e-6)


def test_a_step_equals_numpy():
    """On the bias of the head, which moves by the sum of the logits' gradients."""
    model = make_model(optimizer=keras.optimizers.SGD(0.5), next_sentence=None)
    x, y, labels, groups = targets()
    bias = model.network.get_layer("masked_lm")._bias
    before = keras.ops.convert_to_numpy(bias).astype("float64")
    gradients = np.exp(log_probabilities(model, x, groups)) - np.eye(len(VOCABULARY))[labels]
    present = [index for index in range(10) if (groups == index).any()]
    of_tasks = [gradients[groups == index].mean(0) for index in present]
    model.train_on_batch(x, {"masked_lm": y["masked_lm"]})
    after = keras.ops.convert_to_numpy(bias)
    np.testing.assert_allclose(after, before - 0.5 * np.mean(of_tasks, axis=0), atol=1e-6)


def test_shares_that_tell_nothing_change_nothing():
    even = np.full(SHARES.shape, -np.log(10))
    model = make_model(log_task_shares=even)
    full = make_model(task_loss="full", log_task_shares=None)
    full.network.set_weights(model.network.get_weights())
    x, y, *_ = targets()
    expected = full.evaluate(x, y, verbose=0, return_dict=True)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_only_the_loss_of_masked_tokens_differs():
    model = make_model(next_sentence="task")
    full = make_model(task_loss="full", log_task_shares=None, next_sentence="task")
    full.network.set_weights(model.network.get_weights())
    x, y, *_ = targets()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = full.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["next_sentence_loss"] == expected["next_sentence_loss"]
    assert logs["noun_loss"] != pytest.approx(expected["noun_loss"], rel=1e-3)
    text = "the [MASK] sat"
    assert model.fill_mask(text, tagger="textblob") == full.fill_mask(text, tagger="textblob")


def test_a_group_that_is_not_there_makes_the_losses_nan():
    model = make_model()
    x, y, _, groups = targets()
    groups[0, 0] = 10
    totals = model.compute_task_totals(x, y, model(x, training=False), None).totals
    assert np.isnan(keras.ops.convert_to_numpy(totals)).all()


def test_the_frequencies_of_the_tasks_are_constant_outputs():
    model = make_model(next_sentence=None)
    x, y, labels, groups = targets()
    outputs = {"masked_lm": model.constant_logits(y, COUNTS.log_frequencies)}
    found = model.compute_task_totals(x, y, outputs, None)
    of_labels = COUNTS.log_frequencies[np.maximum(groups, 0), labels]
    expected = [-of_labels[groups == index].sum() for index in range(10)]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found.totals), expected, rtol=1e-5)


@pytest.mark.parametrize("task_loss", ["full", "within"])
def test_trivial_losses_are_of_the_even_mixture_or_of_each_task(task_loss):
    shares = SHARES if task_loss == "within" else None
    model = make_model(next_sentence=None, task_loss=task_loss, log_task_shares=shares)
    model.compile("adam", weighting="uniform", trivial_losses="measure")
    x, y, labels, groups = targets()
    words = len(VOCABULARY)
    counts = [np.bincount(labels[groups == index], minlength=words) for index in range(10)]
    p = np.array([(each + 1 / words) / (each.sum() + 1) for each in counts])
    seen = [each.sum() > 0 for each in counts]
    p = p if task_loss == "within" else np.broadcast_to(p[seen].mean(0), p.shape)
    expected = -(counts * np.log(p)).sum(1) / np.where(seen, np.sum(counts, axis=1), np.nan)
    found = model.measure_trivial_losses(x, y, allow_unseen=True)
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert 1 < sum(seen) < 10
    batches = (batch for batch in [(x, y)] * 2)
    model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)


def test_the_table_is_saved_and_is_no_part_of_the_config(tmp_path):
    model = make_model(dropout=0.2, weighting="minimax")
    x, y, *_ = targets()

    def train(model):
        return model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]

    train(model)
    model.save(tmp_path / "model.keras")
    expected = train(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert train(loaded) == expected
    assert loaded.task_loss == "within"
    assert "log_task_shares" not in json.dumps(model.get_config())
    assert not any("log_task_shares" in weight.path for weight in loaded.trainable_weights)


def test_a_model_from_a_config_waits_for_its_table():
    model = make_model()
    copy = PosBert.from_config(model.get_config())
    copy.compile("adam", weighting="uniform")
    x, y, *_ = targets()
    assert not np.isfinite(copy.evaluate(x, y, verbose=0, return_dict=True)["noun_loss"])
    copy.set_weights(model.get_weights())
    expected = model.evaluate(x, y, verbose=0, return_dict=True)["noun_loss"]
    assert copy.evaluate(x, y, verbose=0, return_dict=True)["noun_loss"] == expected


def test_a_config_from_before_is_of_the_full_loss():
    config = PosBert(make_backbone()).get_config()
    del config["task_loss"]
    assert PosBert.from_config(config).task_loss == "full"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_loss": "words"}, "`task_loss` must be one of full, within. Received: .*words"),
        ({"log_task_shares": None}, r"`log_task_shares` must be given .*count_targets\(text"),
        ({"task_loss": "full"}, "`log_task_shares` must be given for task_loss='within', and for"),
        ({"groups": POS_TASKS}, r"of shape \(9, 16\). Received: .* shape \(10, 16\)"),
        ({"log_task_shares": np.exp(SHARES)}, "must be the logarithms of shares that sum to 1"),
        ({"log_task_shares": np.where(SHARES < -3, np.nan, SHARES)}, "must be the logarithms of"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)
