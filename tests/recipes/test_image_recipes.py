"""From images to a report; the flags of every source; the paper's recipe at full size."""

import dataclasses
import re
import resource
import shutil
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
from matplotlib.image import imread
from official_files import write_folder, write_nyu
from PIL import Image

from keras_taskrobust import cli
from keras_taskrobust.cli_options import Run
from keras_taskrobust.cli_parsing import parse_with_recipe
from keras_taskrobust.evaluation.held_out import score_reconstructions
from keras_taskrobust.recipes import comparison, pretraining, training_run
from keras_taskrobust.recipes.image_settings import PAPER, RECIPES, TINY
from keras_taskrobust.recipes.images import (
    IMAGES,
    OpenedImages,
    build_mm_mae,
    compare_images,
    open_images,
    pretrain_images,
    reconstruct_held_out,
)
from keras_taskrobust.vision import image_batches

MINIATURE = dataclasses.replace(
    TINY,
    image_size=(16, 24),
    scenes=20,
    visible_tokens=4,
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    mlp_dim=16,
    decoder_dim=8,
    decoder_heads=2,
    class_embedding_dim=4,
    batch_size=4,
    steps=6,
    warmup_steps=2,
    steps_per_report=2,
    reports_per_checkpoint=1,
    pictures=2,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, and the run."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, pretrain_images(MINIATURE, folder, label="mine")


def test_a_run_writes_its_results(finished):
    folder, run = finished
    assert (run.row, run.history["step"]) == ("mine", [2, 4, 6])
    assert run.scores.task_names == ("rgb", "depth", "semseg")
    assert run.scores.totals.shape == (2, 3)
    assert set(training_run.results_of(folder)) == {
        *training_run.RESULTS,
        *training_run.PICTURES,
    }
    before, half_way, after = (imread(folder / name) for name in training_run.PICTURES)
    assert before.shape == half_way.shape == after.shape
    assert not np.array_equal(before, half_way)
    assert not np.array_equal(half_way, after)
    classifier = keras_hub.models.ViTImageClassifier.from_preset(
        str(folder / "preset"), num_classes=2
    )
    assert tuple(classifier.backbone.image_shape) == (16, 24, 3)
    model = keras.saving.load_model(folder / "model.keras")
    held_out = open_images(MINIATURE).held_out
    batches = image_batches(
        held_out, 4, (16, 24), epochs=1, augment=False, shuffle=False, strides={"semseg": 2},
        drop_remainder=False,
    )  # fmt: skip
    scores = score_reconstructions(model, batches, seed=0)
    np.testing.assert_allclose(scores.totals, run.scores.totals, rtol=1e-5)


def test_a_batch_may_have_fewer_images_than_are_drawn(finished):
    model = keras.saving.load_model(finished[0] / "model.keras")
    images = open_images(MINIATURE)
    one, four = (
        reconstruct_held_out(model, dataclasses.replace(MINIATURE, batch_size=size), images).images
        for size in (1, 4)
    )
    for name, painted in one.items():
        assert painted.shape[1] == MINIATURE.pictures
        np.testing.assert_array_equal(painted, four[name])


@pytest.mark.slow
def test_the_whole_model_loads_as_the_words_of_a_run_say(finished):
    """In a process of its own: here all classes are registered already."""
    words = training_run.results_of(finished[0])["model.keras"]
    (statement,) = re.findall(r"import [\w.]+", words)
    (call,) = re.findall(r"keras\.saving\.load_model", words)
    code = f"import keras\n{statement}\nprint({call}({str(finished[0] / 'model.keras')!r}).name)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip()


def test_no_picture_of_a_failed_start_is_kept(finished, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "train", stop)
    for seed in (1, 0):
        with pytest.raises(KeyboardInterrupt):
            pretrain_images(dataclasses.replace(MINIATURE, seed=seed), tmp_path)
    name = "reconstructions_at_start.png"
    np.testing.assert_array_equal(imread(tmp_path / name), imread(finished[0] / name))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    recipe = dataclasses.replace(MINIATURE, weighting="uncertainty", modalities=("rgb", "depth"))
    whole = pretrain_images(recipe, tmp_path / "whole")

    class Killed(training_run.ProgressBar):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "ProgressBar", Killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain_images(recipe, tmp_path / "killed")
    continued = pretrain_images(recipe, tmp_path / "killed")
    np.testing.assert_array_equal(continued.scores.totals, whole.scores.totals)
    for name, series in whole.history.items():
        np.testing.assert_array_equal(continued.history[name], series)


def test_a_comparison_shares_images_and_reports_pictures(finished, tmp_path, monkeypatch):
    tried = []

    def trained(family, cell, folder, *others):
        """The finished run in place of training; the first of `pooled` fails."""
        tried.append(cell.weighting)
        if tried == ["uniform", "pooled"]:
            raise FloatingPointError("The loss must be finite.")
        if not folder.exists():
            shutil.copytree(finished[0], folder)
            (folder / "recipe.json").unlink()
        return pretraining.pretrain(family, cell, folder, *others)

    monkeypatch.setattr(comparison, "pretrain", trained)
    cases = {name: {"weighting": name} for name in ("uniform", "pooled")}
    drawn = compare_images(MINIATURE, tmp_path, cases, minimum_targets=1)
    assert [run.row for run in drawn.runs] == ["uniform"]
    assert "pooled, seed 0: The loss must be finite." in (tmp_path / "report.md").read_text()
    (kept,) = tmp_path.glob("runs/*/scores.npz")
    written = kept.stat().st_mtime_ns
    runs = compare_images(MINIATURE, tmp_path, cases, minimum_targets=1).runs
    assert kept.stat().st_mtime_ns == written
    assert [run.row for run in runs] == ["uniform", "pooled"]
    assert np.array_equal(runs[0].scores.counts, runs[1].scores.counts)
    report = (tmp_path / "report.md").read_text()
    for name in ("reconstructions_half_way.png", "reconstructions.png"):
        assert name in report
        assert (tmp_path / name).exists()
    assert "20 to train on and 2 held out" in report
    assert "Failed" not in report
    (tmp_path / "report.md").unlink()
    cli.main(["report", str(tmp_path)])
    assert (tmp_path / "report.md").read_text() == report


def test_workers_make_the_same_batches():
    recipe = dataclasses.replace(MINIATURE, workers=1)
    images = open_images(recipe)
    alone = IMAGES.batches(MINIATURE, images)(3)
    for number, batch in zip(range(2), IMAGES.batches(recipe, images)(3), strict=False):
        assert batch["visible_ids"].shape == (MINIATURE.batch_size, MINIATURE.visible_tokens)
        for name, array in batch.items():
            np.testing.assert_array_equal(array, alone[number][name])


def test_epochs_set_the_steps():
    imagenet_s50, imagenet = 64_431, 1_281_167
    assert dataclasses.replace(PAPER, epochs=800).with_steps(imagenet_s50) == PAPER
    assert (PAPER.steps, PAPER.warmup_steps) == (25_200, 1_258)
    recipe = dataclasses.replace(PAPER, epochs=1600).with_steps(imagenet)
    assert 0 <= recipe.steps - 1600 * imagenet / 2048 < recipe.steps_per_report
    assert TINY.with_steps(7) is TINY


def test_the_rate_rises_then_falls_to_the_least():
    recipe = dataclasses.replace(MINIATURE, steps=10, warmup_steps=4)
    rate = build_mm_mae(recipe, ("wall", "floor")).optimizer._learning_rate
    rates = [float(rate(step)) for step in (0, 2, 4, 7, 10)]
    peak, least = recipe.peak_learning_rate, recipe.least_learning_rate
    np.testing.assert_allclose(
        rates, [0, peak / 2, peak, (peak + least) / 2, least], rtol=1e-4, atol=1e-9
    )


# The flags of the sources


def opened(*flags):
    words = ["mm-mae-tiny", *map(str, flags)]
    arguments = parse_with_recipe(words, "taskrobust", Run, RECIPES)
    images = open_images(arguments.recipe)
    return images.train, images.held_out


def test_flags_of_scenes():
    train, held_out = opened("--scenes", 30, "--image-size", 8, 16)
    assert (len(train), len(held_out), train[0]["rgb"].shape) == (30, 3, (8, 16, 3))
    assert not np.array_equal(train[0]["rgb"], held_out[0]["rgb"])


def test_flags_of_nyu_depth(tmp_path):
    write_nyu(tmp_path)
    (tmp_path / "splits.mat").rename(tmp_path / "other.mat")
    flags = ("--data", tmp_path / "nyu_depth_v2_labeled.mat", "--splits", tmp_path / "other.mat")
    train, held_out = opened(*flags, "--num-classes", 13)
    assert (len(train), len(held_out), len(train.class_names)) == (3, 2, 13)


def test_flags_of_an_npz(tmp_path):
    maps = {
        "rgb": np.zeros((5, 8, 8, 3), "uint8"),
        "depth": np.ones((5, 8, 8), "float16"),
        "semseg": np.zeros((5, 8, 8), "uint8"),
    }
    arrays = {f"{split}_{name}": a for split in ("train", "val") for name, a in maps.items()}
    np.savez(tmp_path / "images.npz", class_names=np.array(["a", "b"]), **arrays)
    flags = ("--data", tmp_path / "images.npz", "--held-out-split", "val")
    train, held_out = opened(*flags)
    assert (len(train), len(held_out), train.class_names) == (5, 5, ("a", "b"))
    with pytest.raises(ValueError, match=r"must be among .*num_classes.* depth_scale=2\.0"):
        opened(*flags, "--depth-scale", 2.0)


def write_names(path):
    path.write_text("wall\nfloor\nbed\nchair\n")
    return path


def test_flags_of_a_folder_of_aligned_files(tmp_path):
    stems = [f"room/{number}" for number in range(10)]
    write_folder(tmp_path, stems)
    flags = ("--class-names", write_names(tmp_path / "names.txt"), "--depth-scale", 0.01)
    train, held_out = opened("--data", tmp_path, "--held-out-share", 0.2, *flags)
    assert train.class_names == ("wall", "floor", "bed", "chair")
    found = [source.stem(index) for source in (train, held_out) for index in range(len(source))]
    assert (len(held_out), sorted(found)) == (2, sorted(stems))
    assert np.nanmax(train[1]["depth"]) > 4


def test_flags_of_class_folders_with_maps_as_in_imagenet_s(tmp_path):
    stems = ("n01/x", "n01/y", "n02/x")
    for stem in stems:
        path = tmp_path / "train" / f"{stem}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    write_folder(tmp_path / "maps", stems)
    for path in (tmp_path / "maps/semseg").rglob("*.*"):
        path.unlink()
    for stem in stems:
        label = np.full((6, 8), 1000)
        label[:2] = 3
        np.save(tmp_path / f"maps/semseg/{stem}.npy", label)
    flags = ("--maps", tmp_path / "maps", "--class-names", write_names(tmp_path / "names.txt"))
    train, held_out = opened("--data", tmp_path / "train", *flags, "--ignore-label", 1000)
    assert (len(train), len(held_out)) == (2, 1)
    assert np.unique(train[0]["semseg"]).tolist() == [3, 255]


def test_flags_of_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=4):
        train, held_out = opened("--data", "tfds:cifar10", "--modalities", "rgb")
        assert (len(train), len(held_out), train[0]["rgb"].shape) == (4, 4, (32, 32, 3))
        with pytest.raises(ValueError, match=r"given as `maps`.*'tfds:cifar10', which has rgb"):
            opened("--data", "tfds:cifar10")


def test_maps_that_images_lack_are_left_out(tmp_path):
    stems = [str(number) for number in range(10)]
    write_folder(tmp_path, stems)
    shutil.rmtree(tmp_path / "semseg")
    with pytest.warns(UserWarning, match="The images have no semseg: trained on rgb and depth"):
        train, held_out = opened("--data", tmp_path)
    recipe = dataclasses.replace(MINIATURE, data=str(tmp_path))
    settled = IMAGES.settled(recipe, OpenedImages(train, held_out))
    assert (settled.modalities, len(train)) == (("rgb", "depth"), 8)
    IMAGES.build(settled, OpenedImages(train, held_out))
    shutil.rmtree(tmp_path / "depth")
    with pytest.raises(ValueError, match=r"two or more that .*rgb/, depth/, semseg/; those"):
        opened("--data", tmp_path)
    assert opened("--data", tmp_path, "--modalities", "rgb")[0].modalities == ("rgb",)


def test_flags_of_a_folder_with_splits(tmp_path):
    write_folder(tmp_path / "train", ["a", "b"])
    write_folder(tmp_path / "val", ["c"], classes=3)
    with pytest.warns(UserWarning, match="called by their numbers: 0 to 3"):
        train, held_out = opened("--data", tmp_path, "--held-out-split", "val")
    assert [source.stem(0) for source in (train, held_out)] == ["a", "c"]
    assert train.class_names == held_out.class_names
    with pytest.raises(ValueError, match="'test' of .* which has train, val"):
        opened("--data", tmp_path, "--class-names", write_names(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], r"`--data` must be 'scenes'.*Received: 'nowhere'"),
        (["--modalities", "rgb", "sound"], r"`--modalities` must be some of rgb, depth, semseg"),
        (["--patch-size", "7"], r"multiples of `--patch-size`.*patch_size=7"),
        (["--visible-tokens", "500"], r"`--visible-tokens` must be an integer from 1 to 192"),
        (["--held-out-share", "2"], r"between 0 and 1. Received: held_out_share=2"),
        (["--depth-scale", "2"], r"options of the images 'scenes'.*depth_scale=2.0"),
        (["--warmup-steps", "600"], r"`--warmup-steps` must be .* less than `--steps`"),
    ],
)
def test_bad_input_is_one_sentence(flags, message, tmp_path, capsys):
    few = [] if "--data" in flags else ["--scenes", "4"]
    arguments = ["mm-mae-tiny", "--output", str(tmp_path / "run"), *few, *flags]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["pretrain", "images", *arguments])
    printed = capsys.readouterr()
    text = " ".join(f"{stopped.value.code} {printed.out} {printed.err}".replace("│", "").split())
    assert re.search(message, text), text


@pytest.mark.slow
def test_the_paper_recipe_at_full_size_takes_two_steps():
    classes = tuple(str(number) for number in range(133))
    model = build_mm_mae(PAPER, classes)
    rng = np.random.default_rng(0)
    x = {
        "rgb": rng.normal(size=(4, 224, 224, 3)).astype("float32"),
        "depth": rng.normal(size=(4, 224, 224, 1)).astype("float32"),
        "semseg": rng.integers(0, 133, (4, 56, 56), dtype="int32"),
    }
    history = model.fit(x, batch_size=2, verbose=0).history
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 2
    assert np.isfinite(history["loss"][0])
    # ViT-B/16 has 86,567,656 parameters with a head for 1,000 classes.
    assert model.backbone.count_params() == 86_567_656 - 769 * 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{model.count_params():,} parameters, peak memory {peak:.1f} GiB")
