"""Runs and settings of former versions are found again."""

import dataclasses
import json

import keras
import pytest

from keras_taskrobust.recipes import image_settings, text_settings
from keras_taskrobust.recipes.comparison import grid

pytestmark = pytest.mark.backend_free

ROWS = {
    "minimax": {"weighting": "minimax"},
    "sharp": {"weighting": "minimax", "alpha": 3.0, "loss_momentum": 0.5},
    "group_dro step_size=0.1": {
        "weighting": "group_dro",
        "weighting_options": {"step_size": 0.1},
    },
}
#: As the first version of the folders was called, on PyTorch.
TEXT_FOLDERS = [
    "runs/minimax-0-96d75894",
    "runs/sharp-0-d91cc031",
    "runs/group_dro-step_size=0.1-0-a7a6913f",
    "runs/minimax-1-3619b073",
    "runs/sharp-1-3f396eae",
    "runs/group_dro-step_size=0.1-1-7515b382",
]
IMAGE_FOLDERS = [
    "runs/minimax-0-4ca27eb8",
    "runs/sharp-0-c9068720",
    "runs/group_dro-step_size=0.1-0-c5c66ba6",
    "runs/minimax-1-58a71e2c",
    "runs/sharp-1-da8f3a0a",
    "runs/group_dro-step_size=0.1-1-279bd29c",
]
SPECIAL_IMAGE_FOLDERS = [
    "runs/minimax-0-b5dbef4c",
    "runs/sharp-0-f2ab5ea4",
    "runs/group_dro-step_size=0.1-0-ea311c5e",
    "runs/minimax-1-183f78bc",
    "runs/sharp-1-fa09f7cc",
    "runs/group_dro-step_size=0.1-1-dfbdfc28",
]
SPECIAL_IMAGES = dataclasses.replace(
    image_settings.TINY,
    data="tfds:nyu_depth_v2",
    tfds_dir="/data/tfds",
    modalities=("rgb", "depth"),
    epochs=3,
    num_classes=13,
)


@pytest.fixture(autouse=True)
def on_pytorch(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")


@pytest.mark.parametrize(
    ("recipe", "folders"),
    [
        (text_settings.TINY, TEXT_FOLDERS),
        (image_settings.TINY, IMAGE_FOLDERS),
        (SPECIAL_IMAGES, SPECIAL_IMAGE_FOLDERS),
    ],
)
def test_the_folders_of_runs_keep_their_names(recipe, folders):
    assert [cell.folder for cell in grid(recipe, ROWS, (0, 1))] == folders


def test_settings_of_another_name_are_those_of_now():
    former = json.loads(json.dumps(dataclasses.asdict(SPECIAL_IMAGES)))
    former["data_dir"] = former.pop("tfds_dir")
    assert SPECIAL_IMAGES.changes(former, 0) == []
    other = dataclasses.replace(SPECIAL_IMAGES, tfds_dir="/elsewhere")
    assert other.changes(former, 0) == ["tfds_dir"]


def test_a_run_from_before_a_setting_has_its_default():
    former = json.loads(json.dumps(dataclasses.asdict(text_settings.TINY)))
    for name in text_settings.TextPretraining.ADDED:
        del former[name]
    assert text_settings.TINY.changes(former, 0) == []
    within = dataclasses.replace(text_settings.TINY, task_loss="within")
    assert within.changes(former, 0) == ["task_loss"]
    assert within.decisive().items() - text_settings.TINY.decisive().items() == {
        ("task_loss", "within")
    }
