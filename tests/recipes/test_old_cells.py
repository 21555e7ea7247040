"""Cells of former versions are found again."""

import dataclasses

import keras
import pytest

from keras_taskrobust.downstream.images import ImageTasks, RelatedImages
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text import RelatedTexts, TextTasks
from keras_taskrobust.recipes import finetuning, inheritance
from keras_taskrobust.recipes.cells import Start
from keras_taskrobust.recipes.finetuning import finetune_cells
from keras_taskrobust.recipes.finetuning_settings import (
    RELATED_IMAGE_RECIPES,
    RELATED_TEXT_RECIPES,
    SMALL_IMAGES,
    related_images,
)
from keras_taskrobust.recipes.image_settings import ImageData

pytestmark = pytest.mark.backend_free

START = Start("uniform", 1, "preset", "identity")


@pytest.fixture(autouse=True)
def one_backend(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")


@pytest.fixture
def inherited(monkeypatch, tmp_path):
    """The keys of a family's heads and cells, nothing being computed."""

    def keys(family):
        found = []

        def stop(cells, *arguments):
            found.extend(cell.key for cell in cells)
            raise InterruptedError

        monkeypatch.setattr(inheritance, "compute_cells", stop)
        monkeypatch.setattr(type(family), "find", lambda family, preset: preset)
        with pytest.raises(InterruptedError):
            inheritance.inherit({"uniform": "preset"}, (1,), family, tmp_path)
        return found

    return keys


@pytest.fixture
def finetuned(monkeypatch, tmp_path):
    """The keys of a family's cells, nothing being computed."""
    monkeypatch.setattr(
        finetuning, "compute_cells", lambda cells, *_, check: [cell.key for cell in cells]
    )
    return lambda family, start=START: finetune_cells([start], family, tmp_path)


def test_keys_of_fine_tuning_on_texts(finetuned):
    assert finetuned(TextTasks(("RTE",), FineTuning(), "glue")) == ["uniform-1-RTE-eb9d5ae8"]
    scratch = dataclasses.replace(START, from_scratch=True)
    assert finetuned(TextTasks(("STS-B",), RELATED_TEXT_RECIPES["small"][1]), scratch) == [
        "uniform-1-STS-B-b6a93cc2"
    ]


def test_keys_of_fine_tuning_on_images(finetuned):
    rooms = {"classification": ImageData("rooms.npz", "test", "test")}
    family = ImageTasks(("depth", "classification"), SMALL_IMAGES, ImageData(scenes=20), rooms)
    assert finetuned(family) == ["uniform-1-depth-4149e353", "uniform-1-classification-ea8e3c6a"]


def test_keys_of_inheritance_on_texts(inherited):
    family = RelatedTexts(
        ("RTE", "QNLI"), RELATED_TEXT_RECIPES["small"][1], "glue", head_task="QNLI"
    )
    assert inherited(family) == [
        "uniform-1-before-c02e38bb",
        "uniform-1-RTE-5c031c31",
        "uniform-1-QNLI-f0f066d1",
    ]


def test_keys_of_inheritance_on_images(inherited):
    images = ImageData("images.npz")
    sets = {"few": related_images(images, "few.npz")}
    tasks = ("clean", "contrast", "few")
    family = RelatedImages(tasks, RELATED_IMAGE_RECIPES["small"][1], images, sets, severity=4)
    assert inherited(family) == [
        "uniform-1-before-32982cfc",
        "uniform-1-clean-5afdb7bf",
        "uniform-1-contrast-9984203f",
        "uniform-1-few-6a938304",
    ]
