"""Finished runs handed on: what is written opens elsewhere, and what does not fit is refused."""

import dataclasses

import keras_hub
import numpy as np
import pytest

from keras_taskrobust import cli
from keras_taskrobust.evaluation.scores import TaskScores
from keras_taskrobust.hugging_face_files import read_arrays
from keras_taskrobust.recipes import image_settings, text_settings
from keras_taskrobust.recipes.export import export_run
from keras_taskrobust.recipes.images import IMAGES, build_mm_mae
from keras_taskrobust.recipes.text import TEXTS, build_pos_bert
from keras_taskrobust.recipes.training_run import claim_folder, finish_run
from keras_taskrobust.text import (
    POS_TASKS,
    SPECIAL_TOKENS,
    TargetCounts,
    WordPieceEncoder,
    load_hugging_face_bert,
)
from keras_taskrobust.vision import load_multimae_weights

TEXT = dataclasses.replace(
    text_settings.TINY,
    corpus="/home/somebody/letters",
    alpha=3.0,
    sequence_length=12,
    num_layers=1,
    hidden_dim=8,
    intermediate_dim=16,
)
PICTURES = dataclasses.replace(
    image_settings.TINY,
    image_size=(16, 16),
    visible_tokens=2,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    mlp_dim=16,
    decoder_dim=8,
    decoder_heads=2,
    class_embedding_dim=4,
)
ENCODER = WordPieceEncoder([*SPECIAL_TOKENS, "the", "cat", "dog", "sat", "on", "mat", "."])
SCORES = TaskScores(
    ("noun", "verb", "adverb"),
    totals=[[2000.0, 900.0, 5.0], [1000.0, 900.0, 0.0]],
    counts=[[1000, 600, 2], [500, 600, 0]],
    trivial_totals=[[4000.0, 1500.0, 6.0], [2000.0, 1500.0, 0.0]],
)


def finish(folder, recipe, family, model):
    """What a run of these settings leaves, without the training."""
    claim_folder(folder, recipe)
    (folder / "history.csv").write_text("epoch,noun_loss\n0,1.0\n")
    family.export(model, folder)
    finish_run(folder, SCORES, seconds=1.0)
    return folder


def make_bert():
    counts = TargetCounts(np.ones((len(POS_TASKS), len(ENCODER.vocabulary)), int))
    model = build_pos_bert(TEXT, ENCODER, counts)
    generator = np.random.default_rng(0)
    network = model.network
    network.set_weights([generator.normal(size=w.shape) for w in network.get_weights()])
    return model


@pytest.fixture(scope="module")
def bert():
    return make_bert()


@pytest.fixture(scope="module")
def mm_mae():
    return build_mm_mae(PICTURES, ("floor", "wall"))


@pytest.fixture
def text_run(tmp_path, bert):
    return finish(tmp_path / "runs" / "mine", TEXT, TEXTS, bert)


@pytest.fixture
def image_run(tmp_path, mm_mae):
    return finish(tmp_path / "runs" / "images", PICTURES, IMAGES, mm_mae)


def assert_same(arrays, others):
    assert len(arrays) == len(others)
    for one, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_text_run_goes_to_hugging_face_with_its_head(text_run, bert, capsys):
    cli.main(["export", str(text_run / "preset")])
    folder = text_run / "huggingface"
    assert f"BertForMaskedLM and its model card: {folder}" in capsys.readouterr().out
    loaded = load_hugging_face_bert(folder)
    assert_same(loaded.network.get_weights(), bert.network.get_weights())
    assert loaded.preprocessor.tokenizer.get_vocabulary() == list(ENCODER.vocabulary)


def test_a_model_card_lies_beside(text_run):
    exported = export_run(text_run, "huggingface", text_run.parent / "out")
    card = (exported.folder / "README.md").read_text()
    matter, body = card.removeprefix("---\n").split("\n---\n")
    assert matter.splitlines()[0].startswith("# license: ")
    assert {"library_name: transformers", "pipeline_tag: fill-mask"} <= set(matter.splitlines())
    shares = 1 - SCORES.totals.sum(0)[:2] / SCORES.trivial_totals.sum(0)[:2]
    assert (
        f"Worst share: {shares.min():.3f} (verb). Mean over the tasks: {shares.mean():.3f}" in body
    )
    assert f"| noun | 1,500 | 2.000 | 4.000 | {shares[0]:.3f} |" in body
    assert "count: adverb" in body
    assert "| corpus | letters |" in body
    assert "somebody" not in card
    assert "pre-trained under minimax alpha=3.0\n" in body
    assert '("fill-mask", "out")' in body
    assert "- backend: " in body
    assert "exported by keras_taskrobust " in body
    assert "## Licence\n\nNone is stated" in body


def test_a_text_run_goes_to_keras_hub(text_run, bert):
    exported = export_run(text_run, "keras")
    opened = keras_hub.models.BertBackbone.from_preset(str(exported.folder))
    assert_same(opened.get_weights(), bert.backbone.get_weights())
    assert "library_name: keras-hub" in (exported.folder / "README.md").read_text()
    assert "  keras " in (text_run / "README.txt").read_text()


def test_a_run_of_a_former_version_exports_its_encoder_and_says_so(text_run, bert):
    (text_run / "model.keras").unlink()
    exported = export_run(text_run, "huggingface")
    assert exported.what == "BertModel"
    assert "kept only the encoder" in exported.left_out[0]
    assert exported.left_out[0] in (exported.folder / "README.md").read_text()
    with pytest.warns(UserWarning, match="weights of the heads"):
        loaded = load_hugging_face_bert(exported.folder)
    assert_same(loaded.backbone.get_weights(), bert.backbone.get_weights())
    assert loaded.preprocessor.tokenizer.get_vocabulary() == list(ENCODER.vocabulary)


def test_an_image_run_goes_to_hugging_face_and_keras_hub(image_run, mm_mae):
    for to in ("huggingface", "keras"):
        exported = export_run(image_run, to)
        assert "decoders" in exported.left_out[0]
        assert "normalisation" in exported.left_out[1]
        opened = keras_hub.models.ViTBackbone.from_preset(str(exported.folder))
        assert_same(opened.get_weights(), mm_mae.backbone.get_weights())


def test_an_image_run_goes_to_multimae(image_run, mm_mae):
    exported = export_run(image_run, "multimae")
    other = build_mm_mae(dataclasses.replace(PICTURES, seed=1), ("floor", "wall"))
    report = load_multimae_weights(other, read_arrays(exported.folder / "model.safetensors"))
    assert not report.missing
    assert not report.unused
    masks = {name: np.ones((1, 4), "int32") for name in ("rgb", "depth", "semseg")}
    masks["rgb"][0, :2] = 0
    images = {"rgb": np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype("float32")}
    expected = mm_mae.reconstruct(images, masks)
    for name, maps in other.reconstruct(images, masks).items():
        np.testing.assert_allclose(maps, expected[name], atol=1e-5)


def test_what_does_not_fit_is_refused_with_a_way_out(text_run, tmp_path):
    def refused(words, match):
        with pytest.raises(SystemExit, match=match):
            cli.main(["export", *map(str, words)])
        assert not list(tmp_path.rglob(".export-*"))

    refused([text_run, "--to", "multimae"], "on text must go to huggingface or keras")
    refused([text_run.with_name("mein")], "no such folder. Did you mean '.*runs/mine'")
    refused([tmp_path], "a folder without a run. Did you mean '.*runs/mine'")
    (tmp_path / "begun").mkdir()
    refused([tmp_path / "begun"], r"a folder without a run$")
    (text_run / "huggingface").mkdir()
    (text_run / "huggingface" / "mine.txt").write_text("kept")
    refused([text_run], "a new or empty folder.*--output")
    assert [path.name for path in (text_run / "huggingface").iterdir()] == ["mine.txt"]
    (text_run / "finished.json").unlink()
    refused([text_run], "must be finished .*without finished.json")


def test_a_norm_that_multimae_lacks_and_a_vit_that_was_never_made_are_refused(tmp_path):
    recipe = dataclasses.replace(PICTURES, encoder_norm=True, modalities=("depth",))
    folder = finish(tmp_path / "run", recipe, IMAGES, build_mm_mae(recipe, ()))
    with pytest.raises(ValueError, match="--no-encoder-norm, or export to huggingface or keras"):
        export_run(folder, "multimae")
    with pytest.raises(ValueError, match="without RGB has no ViT for KerasHub"):
        export_run(folder, "keras")
    assert not (folder / "multimae").exists()
    assert not (folder / "keras").exists()


@pytest.mark.slow
def test_transformers_fill_the_mask_as_the_run_does(text_run, bert):
    transformers = pytest.importorskip("transformers", reason="the extra dev is not installed")
    folder = str(export_run(text_run, "huggingface").folder)
    fill_mask = transformers.pipeline("fill-mask", folder, device="cpu")
    found = fill_mask("the [MASK] sat on the mat .", top_k=3)
    (expected,) = bert.fill_mask("the [MASK] sat on the mat .", top_k=3, tagger="textblob")
    assert [one["token_str"] for one in found] == [one["token"] for one in expected]
    scores = [one["probability"] for one in expected]
    np.testing.assert_allclose([one["score"] for one in found], scores, atol=1e-4)
