import keras
import pytest

from keras_taskrobust.vision import Modality
from keras_taskrobust.vision.modalities import tasks_of

pytestmark = pytest.mark.backend_free


def test_losses_follow_from_the_kind():
    assert Modality("rgb", channels=3).loss == "mse"
    assert Modality("depth", channels=1).loss == "mae"
    assert Modality("semseg", num_classes=13).loss == "cross_entropy"
    assert Modality("thermal", channels=1, loss="mean_squared_error").loss == "mse"


def test_tasks_are_the_targets_and_then_the_twins():
    modalities = [
        Modality("rgb", channels=3, normalized_twin=True),
        Modality("edges", channels=1, is_target=False),
        Modality("normals", channels=3, is_input=False),
    ]
    tasks = tasks_of(modalities)
    assert [task.name for task in tasks] == ["rgb", "normals", "norm_rgb"]
    assert tasks[2].normalized
    assert tasks[2].loss == "mse"


def test_config_round_trip():
    modality = Modality("semseg", num_classes=13, stride=4, ignore_label=13)
    config = keras.saving.serialize_keras_object(modality)
    assert keras.saving.deserialize_keras_object(config) == modality


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "`name` must be"),
        ({"name": "rgb"}, "either `channels` or `num_classes`"),
        ({"name": "rgb", "channels": 3, "num_classes": 3}, "either `channels` or `num_classes`"),
        ({"name": "rgb", "channels": 0}, "`channels` must be an integer >= 1. Received"),
        ({"name": "rgb", "channels": 3, "stride": 1.5}, "`stride` must be an integer >= 1"),
        ({"name": "rgb", "channels": 3, "loss": "cross_entropy"}, "`loss` .* must be one of"),
        ({"name": "semseg", "num_classes": 3, "loss": "mse"}, "`loss` .* must be one of"),
        ({"name": "semseg", "num_classes": 3, "normalized_twin": True}, "labels have no mean"),
        ({"name": "a", "channels": 1, "is_input": False, "is_target": False}, "an input, a target"),
        (
            {"name": "a", "channels": 1, "normalized_twin": True, "is_target": False},
            "needs a target",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Modality(**arguments)
