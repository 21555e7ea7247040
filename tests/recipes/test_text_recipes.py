"""From raw text to a report, on a text of some sentences; and the paper's recipe at full size."""

import dataclasses
import json
import re
import resource

import keras
import numpy as np
import pytest

import keras_taskrobust as ktr
from keras_taskrobust import cli, files
from keras_taskrobust.evaluation.scores import TaskScores
from keras_taskrobust.recipes.text import (
    TEXTS,
    build_pos_bert,
    compare_text,
    prepare_text,
    pretrain_text,
)
from keras_taskrobust.recipes.text_settings import PAPER, TINY
from keras_taskrobust.recipes.training_run import (
    claim_folder,
    finish_run,
    finished_run,
    load_run,
)
from keras_taskrobust.text import (
    PENN_TASKS,
    POS_TASKS,
    SPECIAL_TOKENS,
    PosMasking,
    TargetCounts,
    WordPieceEncoder,
    load_corpus,
    save_vocabulary,
)
from keras_taskrobust.text.annotated_text import read_json, write_json
from keras_taskrobust.text.shards import corpus_fingerprint


@pytest.fixture
def recipe(write_text_recipe, tmp_path):
    return write_text_recipe(tmp_path / "texts")


def test_a_comparison_writes_a_report_and_computes_no_run_twice(recipe, tmp_path):
    sharp = {"weighting": "minimax", "alpha": 5.0, "gradient_diagnostics": True}
    sharp["task_loss"] = "within"
    cases = {"uniform": {"weighting": "uniform"}, "sharp": sharp}
    output = tmp_path / "comparison"
    runs = compare_text(recipe, output, cases, seeds=(0,), minimum_targets=1).runs
    assert [run.row for run in runs] == ["uniform", "sharp"]
    assert all(run.history["step"] == [2, 4, 6] for run in runs)
    assert np.array_equal(runs[0].scores.counts, runs[1].scores.counts)
    assert not np.array_equal(runs[0].scores.totals, runs[1].scores.totals)
    assert all(set(run.scores.parts) == {"within", "prior"} for run in runs)
    within = [run.history["noun_loss"][0] for run in runs]
    assert within[1] < within[0], "a word is easier to tell where its task is known"
    assert "gradient_cosine" in runs[1].history
    assert "gradient_cosine" not in runs[0].history
    pictures = ("final_losses.png", "gradient_norms.png", "gradient_conflicts.png")
    for name in ("report.md", "report.html", "metrics.csv", *pictures):
        assert (output / name).stat().st_size > 100, name
    written = {path: path.stat().st_mtime_ns for path in output.glob("runs/*/scores.npz")}
    assert len(written) == 2
    compare_text(recipe, output, cases, seeds=(0,), minimum_targets=1)
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.mark.slow
def test_penn_tags_in_adaptive_groups(recipe, tmp_path):
    recipe = dataclasses.replace(
        recipe, tag_set="penn", maskable="all", weighting="adaptive_groups", alpha=2.0
    )
    run = pretrain_text(recipe, tmp_path / "run")
    assert run.scores.task_names == (*PENN_TASKS, "other")
    assert recipe.make_weighting().weighting.alpha == 2.0
    assert {f"{tag}_weight" for tag in PENN_TASKS} <= run.history.keys()


def test_targets_are_counted_once_a_text(recipe, tmp_path):
    text = prepare_text(recipe, tmp_path / "run")
    masking, others = (PosMasking(text.encoder, maskable=name) for name in ("tasks", "all"))
    counts = text.target_counts(masking)
    assert text.target_counts(masking) is counts
    assert text.target_counts(others).counts.shape[0] == len(POS_TASKS) + 1
    assert counts.counts.sum() < text.target_counts(others).counts.sum()


@pytest.mark.parametrize("task_loss", ["full", "within"])
def test_trivial_losses_are_those_of_the_whole_training_text(recipe, tmp_path, task_loss):
    recipe = dataclasses.replace(recipe, task_loss=task_loss, next_sentence="task")
    text = prepare_text(recipe, tmp_path / "run")
    model = TEXTS.build(recipe, text)
    counts = text.target_counts(PosMasking(text.encoder))
    expected = dict(zip(POS_TASKS, counts.trivial_losses(task_loss), strict=True))
    found = model.trivial_losses
    assert np.isnan(found.pop("next_sentence")), "it is measured in training"
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_settings_say_the_task_loss_that_is_not_the_paper_s(recipe, tmp_path):
    text = prepare_text(recipe, tmp_path / "run")
    within = dataclasses.replace(recipe, task_loss="within")
    assert "task loss" not in TEXTS.describe(recipe, text)
    assert "within its task" in TEXTS.describe(within, text)["task loss"]


def test_a_vocabulary_is_that_of_the_text_and_the_size(recipe, tmp_path):
    small = dataclasses.replace(recipe, vocabulary_size=80)
    encoders = [prepare_text(settings, tmp_path / "run").encoder for settings in (recipe, small)]
    for path in (tmp_path / "texts").iterdir():
        path.write_text(path.read_text().replace("house", "zoo"))
    encoders += [prepare_text(small, tmp_path / name).encoder for name in ("run", "other")]
    assert encoders[1].vocabulary_size == 80 < encoders[0].vocabulary_size
    assert encoders[1].hash != encoders[2].hash == encoders[3].hash


def test_a_text_of_a_former_version_stays_as_it_is(recipe, tmp_path):
    """Its vocabulary lay beside it, under the hash of what it came from."""
    text = prepare_text(recipe, tmp_path / "run")
    annotated = tmp_path / "run" / "text" / "annotated"
    corpus, settings = load_corpus(recipe.corpus), text.train.manifest["settings"]
    fingerprint = corpus_fingerprint(corpus, settings)
    for name in ("tokens.json", "manifest.json"):
        content = read_json(annotated / name) | {"fingerprint": fingerprint}
        new = ("tagging", "vocabulary", "vocabulary_size")
        write_json(annotated / name, {k: v for k, v in content.items() if k not in new})
    settings = {name: settings[name] for name in ("sentences", "shard_characters")}
    settings["vocabulary_size"] = recipe.vocabulary_size
    name = f"vocabulary-{corpus_fingerprint(corpus, settings)[:8]}.txt"
    save_vocabulary(text.encoder.vocabulary, annotated.parent / name)
    again = prepare_text(recipe, tmp_path / "run")
    assert again.fingerprints() == text.fingerprints() | {"corpus": fingerprint}


def test_parts_are_joined_to_the_text_of_one_process(recipe, tmp_path, capsys):
    whole = prepare_text(recipe, tmp_path / "whole")
    flags = ("--corpus", recipe.corpus, "--tagger", "textblob", "--output", str(tmp_path / "run"))
    for part in ("2/2", "1/2"):
        cli.main(["prepare", "text", "pos-bert-tiny", *flags, "--part", part])
        assert re.search(rf"Part {part}: [567] documents", capsys.readouterr().out)
    with pytest.raises(SystemExit, match=r"`--part` must be I/N"):
        cli.main(["prepare", "text", "pos-bert-tiny", *flags, "--part", "3/2"])
    text = prepare_text(recipe, tmp_path / "run")
    assert text.fingerprints() == whole.fingerprints()
    assert text.train.manifest == whole.train.manifest


def test_what_is_no_setting_of_the_text_is_not_read_to_prepare_it(recipe, tmp_path):
    class Read:
        def __init__(self):
            self.names = set()

        def __getattr__(self, name):
            self.names.add(name)
            return getattr(recipe, name)

    read = Read()
    prepare_text(read, tmp_path / "run")
    names = {field.name for field in dataclasses.fields(recipe)}
    assert read.names == names - recipe.unused_to_prepare().keys()


def test_a_failed_start_leaves_the_folder_free(recipe, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        pretrain_text(dataclasses.replace(recipe, corpus="nowhere"), tmp_path / "run")
    claim_folder(tmp_path / "run", recipe)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["corpus"] == recipe.corpus


@pytest.mark.parametrize("name", ["history.csv", "checkpoint-00000001.weights.h5"])
def test_a_folder_with_other_settings_is_refused(recipe, tmp_path, name):
    claim_folder(tmp_path / "run", recipe)
    (tmp_path / "run" / name).write_text("epoch,loss")
    with pytest.raises(ValueError, match="other settings.*alpha, seed"):
        pretrain_text(dataclasses.replace(recipe, alpha=2.0, seed=1), tmp_path / "run")


def test_settings_are_written_whole_and_once(recipe, tmp_path, monkeypatch):
    path = tmp_path / "run" / "recipe.json"
    claim_folder(path.parent, recipe)
    written = path.stat().st_mtime_ns, path.read_bytes()
    claim_folder(path.parent, recipe)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == written

    def fail(source, target):
        if target.suffix == ".json":
            raise OSError("disk")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        claim_folder(path.parent, dataclasses.replace(recipe, seed=1))
    with pytest.raises(OSError, match="disk"):
        finish_run(path.parent, TaskScores(("a",), np.ones((1, 1)), np.ones((1, 1))), 1.0)
    assert path.read_bytes() == written[1]
    assert finished_run(path.parent, "uniform") is None


@pytest.mark.parametrize("content", ["", '{"seed": 0', "[]", '{"alpha": 1.0}'])
def test_damaged_settings_are_one_sentence(recipe, tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    (tmp_path / "history.csv").write_text("epoch,loss")
    for read in (lambda: claim_folder(tmp_path, recipe), lambda: load_run(tmp_path, "uniform")):
        with pytest.raises(ValueError, match=r"recipe\.json must be JSON with.* Received") as error:
            read()
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_recipe_refuses_an_unknown_weighting():
    with pytest.raises(ValueError, match="must be one of .*minimax.* Received: weighting=nope"):
        dataclasses.replace(TINY, weighting="nope")


@pytest.mark.slow
def test_the_paper_recipe_at_full_size_takes_two_steps():
    words = [f"word{number}" for number in range(PAPER.vocabulary_size - len(SPECIAL_TOKENS))]
    counts = TargetCounts(np.ones((len(POS_TASKS), PAPER.vocabulary_size), int))
    model = build_pos_bert(PAPER, WordPieceEncoder([*SPECIAL_TOKENS, *words]), counts)
    rng = np.random.default_rng(0)
    length, slots = PAPER.sequence_length, PAPER.max_predictions
    x = {
        "token_ids": rng.integers(5, PAPER.vocabulary_size, (4, length), dtype="int32"),
        "segment_ids": np.zeros((4, length), "int32"),
        "padding_mask": np.ones((4, length), "int32"),
        "mask_positions": rng.integers(1, length, (4, slots), dtype="int32"),
    }
    labels = rng.integers(5, PAPER.vocabulary_size, (4, slots), dtype="int32")
    groups = rng.integers(0, len(POS_TASKS), (4, slots), dtype="int32")
    y = {
        "masked_lm": {"labels": labels, "groups": groups},
        "next_sentence": np.array([0, 1, 0, 1], "int32"),
    }
    history = model.fit(x, y, batch_size=2, verbose=0).history
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 2
    assert np.isfinite(history["loss"][0])
    # BERT base has 109,482,240 parameters with a position table of 512 rows.
    assert model.backbone.count_params() == 109_482_240 - (512 - length) * 768
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{model.count_params():,} parameters, peak memory {peak:.1f} GiB")
    assert isinstance(model.weighting, ktr.weighting.SoftmaxWeightedLoss)
