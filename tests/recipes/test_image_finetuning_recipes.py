"""Fine-tuning on images as commands run it: the paper's settings, cells, failures, the report."""

import dataclasses
import json
import shutil

import keras_hub
import numpy as np
import pytest
from marks import slow

from keras_taskrobust import cli
from keras_taskrobust.downstream import images
from keras_taskrobust.downstream.finetuning_run import FineTuned
from keras_taskrobust.downstream.images import ImageTasks
from keras_taskrobust.evaluation import TaskScores
from keras_taskrobust.recipes import comparison
from keras_taskrobust.recipes.finetuning import finetune
from keras_taskrobust.recipes.finetuning_settings import IMAGE_RECIPES, SMALL_IMAGES
from keras_taskrobust.recipes.image_settings import TINY, ImageData
from keras_taskrobust.recipes.images import compare_images
from keras_taskrobust.recipes.reporting import draw
from keras_taskrobust.recipes.starts import start_from_preset
from keras_taskrobust.recipes.training_run import claim_folder, finish_run, load_run
from keras_taskrobust.vision import Modality, MultiModalMAE, ProceduralScenes

SETTINGS = dataclasses.replace(
    SMALL_IMAGES, batch_size=4, epochs=1, warmup_epochs=0, head_width=4, max_steps=2, reports=1
)
IMAGES = ImageData(scenes=20)
REPORT = ("report.md", "report.html", "downstream.csv", "downstream.png")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    classes = len(ProceduralScenes(1, 8, 8).class_names)
    backbone = keras_hub.models.ViTBackbone((16, 16, 3), 8, 1, 2, 12, 16)
    modalities = [Modality("rgb", channels=3), Modality("semseg", num_classes=classes, stride=2)]
    MultiModalMAE(backbone, modalities, 3, decoder_dim=8, decoder_depth=1, decoder_heads=2).save(
        folder / "model.keras"
    )
    return folder


@pytest.fixture
def untrained(monkeypatch):
    """Figures that the seed decides, in place of training. The list of what was computed."""
    computed = []

    def finetune_images(opened, data, settings, seed, head):
        computed.append((data.task.name, seed))
        generator = np.random.default_rng(seed)
        trivial = data.task.evaluate_trivial(data.train_labels, data.labels)
        scores = {name: value + 0.1 * generator.random() for name, value in trivial.items()}
        both = {"last": scores, "best": scores}
        return FineTuned(None, [], both, {}, trivial, {}, {}, {}, 1.0)

    monkeypatch.setattr(images, "finetune_images", finetune_images)
    return computed


def settings_of(name):
    return IMAGE_RECIPES[name][1]


PAPER = {
    # epochs, warm-up, batch, rate, least rate, weight decay, layer decay, drop path, pixels
    "imagenet-classification": (100, 5, 1024, 4e-3, 1e-6, 0.05, 0.65, 0.1, 224),
    "imagenet-s50-classification": (100, 5, 1024, 4e-3, 1e-6, 0.05, 0.65, 0.1, 224),
    "imagenet-s50-semseg": (100, 20, 1024, 1e-4, 1e-6, 0.05, 0.75, 0.1, 224),
    "nyuv2-semseg": (100, 20, 1024, 1e-4, 1e-6, 0.05, 0.75, 0.1, 224),
    "nyuv2-depth": (2000, 100, 2048, 1e-4, 0.0, 1e-4, 0.75, 0.0, 256),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_recipes_have_the_settings_of_the_paper(name):
    settings = settings_of(name)
    assert (
        settings.epochs,
        settings.warmup_epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.least_learning_rate,
        settings.weight_decay,
        settings.layer_decay,
        settings.drop_path,
    ) == PAPER[name][:-1]
    assert settings.image_size == (PAPER[name][-1],) * 2
    assert (settings.beta_1, settings.beta_2) == (0.9, 0.999)
    assert settings.rand_augment == (9 if "classification" in name else 0)
    assert settings.jitter == (0.1, 2.0)
    assert settings.max_steps is None


def test_an_mm_mae_is_fine_tuned_and_reported(preset, tmp_path):
    family = ImageTasks(("depth",), SETTINGS, IMAGES)
    drawn = finetune({"tiny": str(preset)}, (0,), family, tmp_path, from_scratch=False)
    (result,) = drawn.results
    assert result.failure == ""
    assert set(result.scores) == set(result.trivial) == {"delta_1"}
    assert all((tmp_path / name).stat().st_size for name in REPORT)
    (path,) = (tmp_path / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    assert set(cell["errors"]["last"]) == {"rmse", "rel"}
    assert cell["settings"]["layer_decay"] == 0.75


def test_finished_cells_are_kept_and_the_report_redrawn(preset, tmp_path, untrained):
    family = ImageTasks(("semseg", "depth"), SETTINGS, IMAGES)
    first = finetune({"tiny": str(preset)}, (0,), family, tmp_path)
    assert len(untrained) == len(first.results) == 4  # two tasks, scratch as well
    again = finetune({"tiny": str(preset)}, (0, 1), family, tmp_path)
    assert untrained[4:] == [("semseg", 1), ("semseg", 1), ("depth", 1), ("depth", 1)]
    assert {one.row for one in again.results} == {"tiny", "scratch"}
    assert "mean_iou" in (tmp_path / "report.md").read_text()
    assert draw(tmp_path).results == again.results


def test_a_run_is_known_by_its_model(preset, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(preset, folder)
    before = start_from_preset("tiny", 0, str(folder)).identity
    (folder / "report.md").write_text("a report")
    (folder / "recipe.json").write_text("{}")
    (folder / "checkpoint-00000001.weights.h5").write_text("a checkpoint")
    assert start_from_preset("tiny", 0, str(folder)).identity == before
    with (folder / "model.keras").open("ab") as file:
        file.write(b" ")
    assert start_from_preset("tiny", 0, str(folder)).identity != before


def test_a_failed_cell_is_marked_and_the_rest_goes_on(preset, tmp_path, untrained):
    family = ImageTasks(("depth",), SETTINGS, IMAGES)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.keras").write_bytes(b"no model")
    presets = {"tiny": str(preset), "none": str(tmp_path / "damaged")}
    drawn = finetune(presets, (0,), family, tmp_path / "out", from_scratch=False)
    failures = {(one.row, one.task): one.failure for one in drawn.results if one.failure}
    assert set(failures) == {("none", "depth")}
    assert "damaged" in failures["none", "depth"]
    assert "damaged" in (tmp_path / "out" / "report.md").read_text()


def test_data_that_are_not_there_are_refused_before_the_first_cell(preset, tmp_path, untrained):
    family = ImageTasks(("depth", "classification"), SETTINGS, IMAGES)
    said = "procedural scenes and folders of maps have no classes. Received: 'scenes'"
    with pytest.raises(ValueError, match=said):
        finetune({"tiny": str(preset)}, (0,), family, tmp_path / "out")
    recipe = dataclasses.replace(TINY, scenes=20)
    with pytest.raises(ValueError, match=said):
        compare_images(recipe, tmp_path / "compared", downstream=family)
    assert not untrained
    assert not (tmp_path / "compared" / "runs").exists()


def test_a_split_can_be_split(tmp_path):
    path = tmp_path / "test.npz"
    rgb = np.zeros((10, 8, 8, 3), "uint8")
    scenes = {"test_scene": np.arange(10) % 2, "scene_names": np.array(["office", "kitchen"])}
    np.savez(path, test_rgb=rgb, **scenes)
    split = ImageData(str(path), split="test", held_out_split="test", held_out_share=0.3)
    train, held_out = split.open(("rgb", "label"), (8, 8))
    assert (len(train), len(held_out)) == (7, 3)
    assert train.label_names == ("office", "kitchen")


def test_the_command_fine_tunes(preset, tmp_path, untrained, capsys):
    words = f"finetune images small --preset {preset} --tasks depth --scenes 20 --batch-size 4"
    cli.main([*words.split(), "--output", str(tmp_path)])
    assert untrained == [("depth", 0)]
    out = capsys.readouterr().out
    assert "Downstream scores" in out
    assert "Report and cells" in out


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"some of classification, semseg, depth.*normals"):
        ImageTasks(("normals",), SETTINGS, IMAGES)


def test_an_output_that_cannot_be_written_to_is_refused_first(tmp_path, monkeypatch):
    output = tmp_path / "file"
    output.write_text("")
    monkeypatch.delattr(comparison, "pretrain")
    with pytest.raises(ValueError, match=f"can be written to. Received: {output}: "):
        compare_images(dataclasses.replace(TINY, scenes=20), output)


def test_doubles_and_no_tasks_are_refused(preset, tmp_path, untrained):
    for tasks, received in (((), "none"), (("depth", "depth"), "depth, depth")):
        with pytest.raises(ValueError, match=f"`tasks` must be one or more.* Received: {received}"):
            ImageTasks(tasks, SETTINGS, IMAGES)
    family = ImageTasks(("depth",), SETTINGS, IMAGES)
    for presets, seeds, message in (
        ({"tiny": str(preset)}, (1, 1), "`seeds` must be .* Received: 1, 1"),
        ({"scratch": str(preset)}, (0,), "`presets` must have other names than 'scratch'"),
        ({}, (0,), "`presets` must be one or more"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(presets, seeds, family, tmp_path)
    assert not untrained


@pytest.fixture
def no_pretraining(preset, monkeypatch):
    """A finished run with the model of `preset` in place of training."""

    def pretrain(family, cell, folder, images, label):
        claim_folder(folder, cell)
        shutil.copy(preset / "model.keras", folder)
        (folder / "history.csv").write_text("epoch,loss,depth_loss,depth_weight\n0,1.0,1.0,1.0\n")
        finish_run(folder, TaskScores(("depth",), np.ones((4, 1)), np.ones((4, 1))), 1.0)
        return load_run(folder, label)

    monkeypatch.setattr(comparison, "pretrain", pretrain)


@pytest.mark.parametrize("pretraining", [slow("real"), "none"])
def test_a_comparison_fine_tunes_what_it_trained(pretraining, tmp_path, untrained, request):
    if pretraining == "none":
        request.getfixturevalue("no_pretraining")
    recipe = dataclasses.replace(
        TINY,
        image_size=(16, 16),
        scenes=20,
        steps=2,
        warmup_steps=0,
        steps_per_report=1,
        batch_size=4,
        visible_tokens=3,
        num_layers=1,
        num_heads=2,
        hidden_dim=12,
        mlp_dim=16,
        decoder_dim=8,
        decoder_heads=2,
        pictures=1,
    )
    family = ImageTasks(("depth",), SETTINGS, IMAGES)
    arguments = (recipe, tmp_path, {"uniform": {"weighting": "uniform"}}, (0,), 1)
    drawn = compare_images(*arguments, downstream=family)
    assert {one.row for one in drawn.results} == {"scratch", "uniform"}
    assert not [one.failure for one in drawn.results if one.failure]
    assert all((tmp_path / name).exists() for name in ("report.md", "downstream.png"))
    compare_images(*arguments, downstream=family)
    assert len(untrained) == 2
