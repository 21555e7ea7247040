"""Token arrays against KerasHub's; every task fine-tuned for some steps; who is refused."""

import dataclasses
import shutil

import keras
import keras_hub
import numpy as np
import pytest

from keras_taskrobust.downstream import Examples, TaskData, text_task
from keras_taskrobust.downstream.finetuning_run import head_variables
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text_encoding import encode_examples, labelled_batches
from keras_taskrobust.downstream.text_finetuning import (
    encode_task,
    finetune_text,
    open_bert,
    score_text,
)
from keras_taskrobust.downstream.watching import watched_by

SETTINGS = FineTuning(learning_rate=1e-2, batch_size=4, epochs=2, max_steps=5)


def run(preset, task, data, settings=SETTINGS, seed=0):
    keras.utils.set_random_seed(seed)
    backbone, encoder = open_bert(preset)
    encoded = encode_task(data, encoder, backbone.max_sequence_length, settings)
    return finetune_text(backbone, task, encoded, settings, seed)


def first(data, number=16):
    def cut(examples):
        texts = tuple(column[:number] for column in examples.texts)
        labels = None if examples.labels is None else examples.labels[:number]
        return Examples(texts, labels, examples.source)

    dev, test = ({k: cut(v) for k, v in splits.items()} for splits in (data.dev, data.test))
    return TaskData(cut(data.train), dev, test)


@pytest.mark.parametrize("length", [8, 9, 32])
@pytest.mark.parametrize("pair", [False, True])
def test_token_arrays_are_those_of_keras_hub(preset, pair, length):
    _, encoder = open_bert(preset)
    first = ["The old dog, ran!", "a", "a teacher reads the long letter the the the"]
    second = ["the red house", "She bought a very small boat they never liked", "slow train a"]
    columns = (first, second) if pair else (first,)
    arrays = encode_examples(Examples(columns, None, "test"), encoder, length)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=length
    )
    preprocessor.build(None)
    tokens = tuple(preprocessor.tokenizer(column) for column in columns)
    expected = [keras.ops.convert_to_numpy(part) for part in preprocessor.packer(tokens)]
    width = arrays["token_ids"].shape[1]
    assert width % 8 == 0 or width == length
    for name, wanted in zip(("token_ids", "segment_ids"), expected, strict=True):
        np.testing.assert_array_equal(arrays[name], wanted[:, :width])
    np.testing.assert_array_equal(arrays["padding_mask"], expected[0][:, :width] != 0)
    assert not expected[0][:, width:].any()


def test_batches_hold_every_example_once_an_epoch():
    arrays = {"token_ids": np.arange(10)[:, None]}
    batches = labelled_batches(arrays, np.arange(10), 5, seed=3)
    epochs = [np.concatenate([batches[i][1] for i in (2 * e, 2 * e + 1)]) for e in range(2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(batches[1][0]["token_ids"][:, 0], batches[1][1])
    other = labelled_batches(arrays, np.arange(10), 5, seed=4)
    assert not np.array_equal(batches[0][1], other[0][1])
    assert len(labelled_batches(arrays, np.arange(10), 64, seed=0)[7][1]) == 10


def test_every_step_of_probe_and_soup_is_told(preset, glue_folder):
    settings = dataclasses.replace(
        SETTINGS, method="probe_then_full", soup_size=2, probe_epochs=1, max_steps=4
    )
    task, told = text_task("SST-2"), []
    with watched_by(lambda *step: told.append(step)):
        run(preset, task, task.load(glue_folder), settings)
    steps = 2 * (3 + 4)  # three steps an epoch
    assert [(done, of) for done, of, _ in told] == [(1 + step, steps) for step in range(steps)]
    assert all(np.isfinite(loss) for *_, loss in told)


@pytest.mark.parametrize("name", ["SST-2", "MNLI", "STS-B"])
def test_every_kind_of_task_fine_tunes(name, glue_folder, preset):
    task = text_task(name)
    result = run(preset, task, task.load(glue_folder))
    assert [line["step"] for line in result.history] == [3, 5]
    assert all(np.isfinite(list(line.values())).all() for line in result.history)
    splits = len(task.dev_files)
    assert set(result.scores) == {"last", "best"}
    for scores in result.scores.values():
        assert len(scores) == splits * len(task.metrics)
        assert set(scores) == set(result.trivial_scores)
    assert result.further_scores["test_scores"]["best"] == {}
    for epoch in ("last", "best"):
        assert list(result.test_predictions[epoch]) == list(task.test_files)
        for file, predictions in result.test_predictions[epoch].items():
            assert len(task.prediction_lines(file, predictions)) == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "QNLI", "QQP", "MNLI"])
def test_every_real_task_fine_tunes(name, shared_glue, preset):
    task = text_task(name)
    result = run(preset, task, first(task.load(shared_glue)))
    assert np.isfinite(list(result.scores["last"].values())).all()


def test_it_learns_what_can_be_learned_and_keeps_the_best_epoch(preset, glue_folder):
    task = text_task("SST-2")
    settings = dataclasses.replace(SETTINGS, epochs=12, max_steps=None)
    result = run(preset, task, task.load(glue_folder), settings)
    scores = [line["score"] for line in result.history]
    assert result.scores["best"]["accuracy"] == max(scores) > 0.9
    assert result.scores["last"]["accuracy"] == scores[-1]
    labels = task.load(glue_folder).dev["dev"].labels
    for epoch in ("last", "best"):
        correct = (result.predictions[epoch]["dev"] == labels).mean()
        assert correct == result.scores[epoch]["accuracy"]


def test_nothing_but_the_watcher_is_told(preset, glue_folder, caplog, capfd):
    task = text_task("SST-2")
    run(preset, task, task.load(glue_folder))
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""


def test_the_same_seed_gives_the_same_numbers(preset, glue_folder):
    task = text_task("STS-B")
    data = task.load(glue_folder)
    one, again = (run(preset, task, data) for _ in range(2))
    assert one.history == again.history


def test_from_scratch_leaves_the_pretrained_weights_out(preset):
    loaded, _ = open_bert(preset)
    again, _ = open_bert(preset)
    fresh, _ = open_bert(preset, from_scratch=True)
    tables = [
        keras.ops.convert_to_numpy(b.token_embedding.embeddings) for b in (loaded, again, fresh)
    ]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert np.abs(tables[0] - tables[2]).max() > 1e-3


def test_a_preset_that_is_no_bert_is_refused(tmp_path):
    vit = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    vit.save_to_preset(tmp_path / "vit")
    for path in (tmp_path / "vit", tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="must be the folder of a run .* KerasHub BERT") as e:
            open_bert(str(path))
        assert str(path) in str(e.value)
        assert "\n" not in str(e.value)


def test_a_bert_without_tokenizer_is_refused(tmp_path, preset):
    backbone, _ = open_bert(preset)
    backbone.save_to_preset(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"with its tokenizer. Received: .*bare.*tokenizer.json"):
        open_bert(str(tmp_path / "bare"))


def test_damaged_weights_name_the_preset(tmp_path, preset):
    folder = tmp_path / "damaged"
    shutil.copytree(preset, folder)
    (folder / "model.weights.h5").write_bytes(b"no weights")
    with pytest.raises(
        ValueError, match="must be the folder of a run .* Received: preset='.*damaged'"
    ):
        open_bert(str(folder))


def test_more_tokens_than_positions_are_refused(preset, glue_folder):
    settings = dataclasses.replace(SETTINGS, sequence_length=64)
    task = text_task("CoLA")
    with pytest.raises(ValueError, match="at most 32, .* Received: sequence_length=64"):
        run(preset, task, task.load(glue_folder), settings)


def test_a_broken_loss_is_an_error(preset, glue_folder):
    task = text_task("STS-B")
    data = task.load(glue_folder)
    data.train.labels[:] = np.inf
    with pytest.raises(FloatingPointError, match="loss must be finite"):
        run(preset, task, data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1. Received: batch_size=0"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"epochs": 1.5}, "`epochs` must be an integer >= 1. Received: epochs=1.5"),
        ({"lora_rank": 0}, "`lora_rank` must be an integer >= 1. Received: lora_rank=0"),
        ({"sequence_length": 4}, "`sequence_length` must be an integer >= 5 or None"),
        ({"sequence_length": 0}, "`sequence_length` .* Received: sequence_length=0"),
        ({"learning_rate": 0}, "`learning_rate` must be a positive number"),
        ({"probe_learning_rate": -1.0}, "`probe_learning_rate` must be a positive number"),
        ({"weight_decay": -0.1}, "`weight_decay` must be a number >= 0"),
        ({"strength": -1}, "`strength` must be a number >= 0"),
        ({"dropout": 1}, "`dropout` must be at least 0 and less than 1"),
        ({"method": "probe"}, "`method` must be one of full, .*lora. Received: method=probe"),
        ({"soup": "onion"}, "`soup` must be one of uniform, greedy"),
        ({"dtype_policy": "half"}, "`dtype_policy` must be one of float32"),
        ({"warmup_share": 1.0}, "`warmup_share`"),
        ({"wise_share": 1.5}, "`wise_share` must lie between 0 and 1"),
        ({"method": "lora", "soup_size": 2}, "must be 1 with method='lora'"),
        ({"strength": 0.5}, "`strength` is for the penalty .*strength=0.5, method=full"),
        ({"method": "l2_sp", "fisher_examples": 3}, "`fisher_examples` is for method ewc"),
        ({"lora_rank": 4}, "`lora_rank` is for method lora"),
        ({"soup": "greedy"}, "`soup` is for a `soup_size` above 1"),
    ],
)
def test_settings_refuse(fields, message):
    with pytest.raises(ValueError, match=message):
        FineTuning(**fields)


def test_a_run_starts_from_a_trained_head(glue_folder, preset):
    task = text_task("SST-2")
    data = task.load(glue_folder)
    probe = dataclasses.replace(SETTINGS, method="linear_probe")
    classifier = run(preset, task, data, probe).model
    head = [keras.ops.convert_to_numpy(one) for one in head_variables(classifier)]
    assert [array.shape for array in head] == [(8, 2), (2,)]
    backbone, encoder = open_bert(preset)
    encoded = encode_task(data, encoder, backbone.max_sequence_length, SETTINGS)
    settings = dataclasses.replace(SETTINGS, wise_share=0.0)
    start = finetune_text(backbone, task, encoded, settings, head=head)
    for mine, probed in zip(start.weights["last"], classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, probed)
    with pytest.raises(ValueError, match="zip"):
        finetune_text(open_bert(preset)[0], task, encoded, settings, head=head[:1])


def test_a_classifier_is_scored_on_another_task(glue_folder, preset):
    task, other = text_task("SST-2"), text_task("RTE")
    result = run(preset, task, task.load(glue_folder))
    _, encoder = open_bert(preset)
    encoded = encode_task(other.load(glue_folder), encoder, 32, SETTINGS)
    arrays, examples = encoded.dev["dev"]
    logits = keras.ops.convert_to_numpy(result.model(arrays, training=False))
    expected = np.mean(logits.argmax(-1) == examples.labels)
    assert score_text(result.model, other, encoded) == pytest.approx(expected)
