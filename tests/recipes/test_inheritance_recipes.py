"""ImageNet-RIB's protocol as commands run it: cells kept, the figures, labels, refusals."""

import dataclasses
import json
import types
import zlib
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from downstream_data import save_tiny_preset, write_glue_folder

from keras_taskrobust import cli
from keras_taskrobust.downstream import text, text_task
from keras_taskrobust.downstream.image_encoder import open_image_model
from keras_taskrobust.downstream.image_examples import open_image_task
from keras_taskrobust.downstream.image_finetuning import finetune_images
from keras_taskrobust.downstream.images import RelatedImages, all_tasks
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text import LABEL_SPACES, RelatedTexts
from keras_taskrobust.recipes.finetuning_settings import (
    SMALL_IMAGES,
    named_sets,
    related_images,
)
from keras_taskrobust.recipes.image_settings import ImageData
from keras_taskrobust.recipes.inheritance import inherit
from keras_taskrobust.vision import CORRUPTIONS
from keras_taskrobust.vision.corruptions import corrupt

TEXT = FineTuning(learning_rate=1e-2, batch_size=4, epochs=1, max_steps=2, sequence_length=16)
IMAGE = dataclasses.replace(
    SMALL_IMAGES, batch_size=4, epochs=1, warmup_epochs=0, max_steps=2, reports=1, least_crop=0.9
)
NAMES = ("red", "green", "blue")
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_tiny_preset(tmp_path_factory.mktemp("presets") / "bert")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "vit"
    keras.utils.set_random_seed(0)
    keras_hub.models.ViTBackbone((16, 16, 3), 8, 1, 2, 12, 16).save_to_preset(folder)
    return str(folder)


@pytest.fixture
def glue(tmp_path):
    return str(write_glue_folder(tmp_path / "glue"))


def save_colours(path, names=NAMES, splits=("train", "test"), number=12, strength=120):
    """An .npz of images whose class is their colour."""
    generator = np.random.default_rng(0)
    arrays = {"label_names": np.array(names)}
    for split in splits:
        labels = np.arange(number) % len(names)
        rgb = generator.integers(0, 120, (number, 16, 16, 3))
        for index, label in enumerate(labels):
            rgb[index, ..., NAMES.index(names[label])] += strength
        arrays |= {f"{split}_rgb": rgb.astype("uint8"), f"{split}_label": labels}
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def colours(tmp_path):
    return save_colours(tmp_path / "colours.npz")


@pytest.fixture
def untrained(monkeypatch):
    """Weights that jump in place of training: what the protocol does with them is tested."""

    def fit(model, *arguments, **options):
        generator = np.random.default_rng(0)
        for variable in model.trainable_variables:
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(value + generator.normal(0, 0.3, value.shape))
        return types.SimpleNamespace(history={"loss": [1.0]})

    monkeypatch.setattr(keras.Model, "fit", fit)


@pytest.fixture
def counted(monkeypatch):
    """The runs of texts that are computed, as (task, method)."""
    computed = []
    finetune = text.finetune_text

    def count(backbone, task, data, settings, *others):
        computed.append((task.name, settings.method))
        return finetune(backbone, task, data, settings, *others)

    monkeypatch.setattr(text, "finetune_text", count)
    return computed


def test_cells_are_computed_once(bert, glue, tmp_path, counted, untrained):
    output = tmp_path / "out"
    related = RelatedTexts(("RTE", "QNLI"), TEXT, glue, head_task="QNLI")
    first = inherit({"mine": bert}, (0,), related, output)
    assert counted == [("QNLI", "linear_probe"), ("RTE", "full"), ("QNLI", "full")]
    assert all((output / name).stat().st_size for name in ("report.md", "report.html"))
    lines = (output / "inheritance.csv").read_text().splitlines()
    assert lines[0] == "start,seed,fine-tuned on,RTE,QNLI,RI"
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["mine", "0", name] for name in ("nothing", "RTE", "QNLI")
    ]
    again = inherit({"mine": bert}, (0, 1), related, output)
    assert len(counted) == 6
    np.testing.assert_array_equal(again.results["mine"][0].after, first.results["mine"][0].after)
    assert set(again.results["mine"]) == {0, 1}
    report = (output / "report.md").read_text()
    assert "mRI" in report
    assert "trained beforehand on QNLI" in report


def test_a_head_does_not_depend_on_what_was_prepared_before(bert, glue, tmp_path, untrained):
    heads = []
    for seeds in ((0, 1), (1,)):
        related = RelatedTexts(("RTE", "QNLI"), TEXT, glue)
        inherit({"mine": bert}, seeds, related, tmp_path / str(len(seeds)))
        (path,) = (tmp_path / str(len(seeds)) / "heads").glob("mine-1-*.npz")
        with np.load(path) as arrays:
            heads.append([arrays[name] for name in arrays.files])
    for one, other in zip(*heads, strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_follow_the_protocol(vit, tmp_path):
    """The same figures from plain fine-tunings, predictions on arrays, and sums by hand."""
    colours = save_colours(tmp_path / "faint.npz", number=24, strength=40)
    settings = dataclasses.replace(IMAGE, epochs=3, max_steps=15, probe_epochs=2)
    tasks = ("clean", "contrast", "gaussian_noise")
    related = RelatedImages(tasks, settings, ImageData(colours), severity=5)
    found = inherit({"mine": vit}, (0,), related, tmp_path / "out").results["mine"][0]

    with np.load(colours) as arrays:
        sources = {"train": arrays["train_rgb"], "test": arrays["test_rgb"]}
        labels = arrays["test_label"]
    sets = {
        task: {split: _corrupted(images, task) for split, images in sources.items()}
        for task in tasks
    }

    def finetuned(task, settings, head=None):
        path = tmp_path / f"{task}.npz"
        arrays = {f"{split}_rgb": images for split, images in sets[task].items()}
        arrays |= {f"{split}_label": labels for split in sources}
        np.savez(path, label_names=np.array(NAMES), **arrays)
        train_and_test = ImageData(str(path)).open(("rgb",), (16, 16))
        data = open_image_task("classification", *train_and_test, (16, 16))
        keras.utils.set_random_seed(0)
        result = finetune_images(open_image_model(vit), data, settings, 0, head)
        result.model.set_weights(result.weights["last"])
        return result.model

    def accuracies(model):
        shown = [(sets[task]["test"] / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION for task in tasks]
        logits = [model.predict({"rgb": rgb.astype("float32")}, verbose=0) for rgb in shown]
        return np.array([np.mean(one.argmax(axis=-1) == labels) for one in logits])

    frozen = {"method": "linear_probe", "epochs": 2, "learning_rate": settings.probe_learning_rate}
    probe = finetuned("clean", dataclasses.replace(settings, **frozen, warmup_epochs=0))
    head = [variable.numpy() for variable in probe.head.weights]
    before = accuracies(probe)
    after = np.array([accuracies(finetuned(task, settings, head)) for task in tasks])
    np.testing.assert_allclose(found.before, before, rtol=1e-6)
    np.testing.assert_allclose(found.after, after, rtol=1e-6)
    others = after - before
    np.fill_diagonal(others, 0)
    np.testing.assert_allclose(found.robustness_improvement, others.sum(axis=1) / 2, atol=1e-6)
    assert len(np.unique(after)) > 1


def _corrupted(images, task):
    if task == "clean":
        return images
    crc = zlib.crc32(task.encode())
    noise = [np.random.default_rng([index, crc]) for index in range(len(images))]
    return np.stack([corrupt(one, task, 5, rng) for one, rng in zip(images, noise, strict=True)])


def test_a_failed_cell_leaves_the_other_starts(bert, glue, tmp_path, untrained):
    related = RelatedTexts(("RTE", "QNLI"), TEXT, glue, head_task="RTE")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    presets = {"mine": bert, "none": str(tmp_path / "damaged")}
    found = inherit(presets, (0,), related, tmp_path / "out")
    assert list(found.results) == ["mine"]
    reasons = {task: reason for _, _, task, reason in found.failures}
    assert "damaged" in reasons["before"]
    assert "The head must be trained before" in reasons["RTE"]
    assert "damaged" in (tmp_path / "out" / "report.md").read_text()


def test_robust_methods_and_weights_of_the_start(bert, glue, tmp_path, untrained):
    settings = dataclasses.replace(TEXT, wise_share=0.0)
    related = RelatedTexts(("RTE", "QNLI"), settings, glue, head_task="RTE")
    result = inherit({"mine": bert}, (0,), related, tmp_path).results["mine"][0]
    np.testing.assert_array_equal(result.changes, 0)


@pytest.mark.parametrize("names", LABEL_SPACES)
def test_tasks_of_a_label_space_have_as_many_classes_and_the_same_meaning(names):
    labels = {name: text_task(name).label_names for name in names}
    meanings = {("0", "1"): 0, ("neg", "pos"): 0, ("entailment", "not_entailment"): 1}
    assert len({meanings[label] for label in labels.values()}) == 1


def test_tables_of_ones_own_share_their_classes_if_their_labels_are_the_same(tmp_path):
    rows = {"RTE": "yes no", "b": "no yes", "c": "no maybe"}
    tables = {name: str(tmp_path / f"{name}.csv") for name in rows}
    for name, labels in rows.items():
        lines = "".join(f"{label},word\n" for label in labels.split())
        (tmp_path / f"{name}.csv").write_text("label,text\n" + 10 * lines)
    assert RelatedTexts(("RTE", "b"), TEXT, tables=tables).head_task == "RTE"
    for names in (("RTE", "c"), ("b", "SST-2")):
        with pytest.raises(ValueError, match="or tables of your own with the same labels"):
            RelatedTexts(names, TEXT, tables=tables)
    with pytest.raises(ValueError, match="or tables of your own with the same labels"):
        RelatedTexts(("RTE", "QNLI"), TEXT, tables=tables)


def test_sentiment_has_the_same_order_of_labels_in_all_domains(glue):
    words = {"sentence_polarity": ("bad", "fine"), "movie_reviews": ("bad", "fine")}
    assert all(text_task(name).label_names == ("neg", "pos") for name in words)
    data = text_task("SST-2").load(glue)
    assert text_task("SST-2").label_names[data.train.labels[1]] == "1"


def test_sets_with_some_of_the_classes(vit, colours, tmp_path, untrained):
    other = save_colours(tmp_path / "others.npz", ("blue", "green"), ("test",), number=10)
    images = ImageData(colours)
    sets = {"few": related_images(images, other)}
    related = RelatedImages(("clean", "few"), IMAGE, images, sets)
    train, held_out = related.sources("few", (16, 16))
    assert (len(train), len(held_out)) == (8, 2)
    labels = {int(train[index]["label"]) for index in range(8)}
    assert labels == {1, 2}
    assert all(one["rgb"][..., int(one["label"])].mean() > 150 for one in train)
    found = inherit({"mine": vit}, (0,), related, tmp_path / "out")
    assert found.results["mine"][0].tasks == ("clean", "few")
    turned = RelatedImages(("clean", "few"), IMAGE, images, sets, head_task="few")
    with pytest.raises(ValueError, match=r"clean, with the head of few: .*Received: also red"):
        turned.sources("clean", (16, 16))


BENCHMARK = (
    "imagenet_v2",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    "imagenet2012_corrupted/contrast_3",
)


def test_the_sets_of_the_benchmark_open_from_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    images = ImageData("tfds:imagenet2012", held_out_split="validation")
    named = named_sets([f"tfds:{name}" for name in BENCHMARK])
    sets = {name: related_images(images, source) for name, source in named.items()}
    related = RelatedImages(("clean", *sets), IMAGE, images, sets)
    with tfds.testing.mock_data(num_examples=10):
        names = related.sources("clean", (16, 16))[0].label_names
        assert len(names) == 1000
        assert names[0] == "n01440764"
        for task in sets:
            train, held_out = related.sources(task, (16, 16))
            assert (len(train), len(held_out)) == (8, 2)
            assert train.label_names == held_out.label_names == names
            assert train[0]["rgb"].ndim == 3
            assert 0 <= train[0]["label"] < 1000


def test_the_splits_are_those_that_tfds_has():
    pytest.importorskip("tensorflow_datasets")
    module = "tensorflow_datasets.datasets.{0}.{0}_dataset_builder"
    for name in BENCHMARK:
        # The corrupted set has the splits of imagenet2012 but for "train".
        short = name.split("/")[0].replace("_corrupted", "")
        source = __import__(module.format(short), fromlist=["Builder"])
        text = Path(source.__file__).read_text()
        split = "VALIDATION" if short == "imagenet2012" else "TEST"
        assert f"Split.{split}" in text, name


def test_the_command_for_texts(bert, glue, tmp_path, capsys):
    words = f"inherit text small --preset mine={bert} --tasks RTE QNLI --data-dir {glue}"
    output = ["--output", str(tmp_path / "out"), "--max-steps", "1", "--epochs", "1"]
    cli.main([*words.split(), *output])
    printed = capsys.readouterr().out
    for word in ("mine: change of each task", "RTE", "mRI", "Report and cells"):
        assert word in printed
    cells = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("cells/*.json")]
    assert {cell["task"] for cell in cells} == {"before", "RTE", "QNLI"}
    assert all(set(cell["scores"]) == {"last", "best"} for cell in cells)


@pytest.mark.slow
def test_the_command_for_images(vit, colours, tmp_path, capsys):
    words = f"inherit images small --preset {vit} --data {colours} --tasks clean pixelate"
    few = f"--max-steps 1 --batch-size 4 --severity 5 --output {tmp_path / 'out'}"
    cli.main([*words.split(), *few.split()])
    assert "pixelate" in capsys.readouterr().out


def test_names():
    assert all_tasks({"sketch": "tfds:imagenet_sketch"}) == ("clean", *CORRUPTIONS, "sketch")
    assert named_sets(["/data/set.npz"]) == {"set": "/data/set.npz"}
    with pytest.raises(ValueError, match="Received: a/set.npz and b/set.npz, both 'set'"):
        named_sets(["a/set.npz", "b/set.npz"])


def test_bad_input_is_one_sentence(bert, vit, colours, glue, tmp_path):
    def message(*arguments):
        with pytest.raises(SystemExit) as error:
            cli.main(["inherit", *arguments, "--output", str(tmp_path / "out")])
        assert "\n" not in str(error.value)
        return str(error.value)

    text = ("text", "small", "--preset", bert, "--data-dir", glue, "--tasks")
    assert "two or more different values. Received: RTE" in message(*text, "RTE")
    assert "two or more different values. Received: none" in message(*text)
    assert "`--seeds` must be one or more" in message(*text, "RTE", "QNLI", "--seeds", "0", "0")
    assert "must share their classes: SST-2" in message(*text, "RTE", "SST-2")
    assert "must share their classes" in message(*text, "RTE", "QNLI", "--head-task", "CoLA")
    assert "must be one of MNLI" in message(*text, "RTE", "X")
    image = ("images", "small", "--preset", vit, "--data", colours, "--tasks")
    said = message(*image, "clean", "fog")
    assert "different ones of clean, gaussian_noise" in said
    assert said.endswith("Received: fog")
    assert "from 1 to 5. Received: severity=7" in message(
        *image, "clean", "contrast", "--severity", "7"
    )
    said = message(*image, "clean", "s", "--sets", f"s={tmp_path}/nowhere.npz", "--max-steps", "1")
    assert "nowhere.npz" in said
