"""Metrics and trivial baselines of image tasks, against scikit-learn and plain NumPy."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from keras_taskrobust.downstream.image_task import image_task
from keras_taskrobust.downstream.metrics import (
    delta_1,
    mean_iou,
    relative_error,
    root_mean_square,
)

pytestmark = pytest.mark.backend_free

NAMES = ("wall", "floor", "chair", "lamp")


@pytest.mark.parametrize("seed", range(4))
def test_mean_iou_is_scikit_learns_over_labelled_pixels(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, (3, 6, 7)).astype("uint8")
    labels[generator.random(labels.shape) < 0.3] = 255
    predictions = generator.integers(0, 3 + seed, labels.shape).astype("uint8")
    known = labels != 255
    expected = jaccard_score(labels[known], predictions[known], average="macro", zero_division=0)
    assert mean_iou(labels, predictions) == pytest.approx(expected, abs=1e-12)


def test_ignored_pixels_have_no_say():
    labels = np.array([[0, 1, 255, 255]])
    assert mean_iou(labels, np.array([[0, 1, 0, 3]])) == 1.0
    assert mean_iou(np.full((1, 4), 255), np.zeros((1, 4), int)) == 0.0


def test_depth_measures_on_numbers_done_by_hand():
    labels = np.array([1.0, 2.0, 4.0, np.nan])
    predictions = np.array([1.2, 2.5, -1.0, 9.0])
    assert delta_1(labels, predictions) == pytest.approx(1 / 3)  # 2.5 / 2 is not below 1.25
    assert root_mean_square(labels, predictions) == pytest.approx(
        np.sqrt((0.2**2 + 0.5**2 + 5**2) / 3)
    )
    assert relative_error(labels, predictions) == pytest.approx((0.2 + 0.25 + 1.25) / 3)


def test_delta_1_is_symmetric():
    generator = np.random.default_rng(0)
    labels, predictions = generator.uniform(1, 3, (2, 50))
    ratio = np.maximum(labels / predictions, predictions / labels)
    assert delta_1(labels, predictions) == np.mean(ratio < 1.25)


def test_trivial_depth_is_the_training_median():
    task = image_task("depth", ())
    train = np.array([[[1.0, 2.0, 50.0, np.nan]]])
    labels = np.array([[[2.1, 2.4, 4.0, np.nan]]])
    assert task.evaluate_trivial(train, labels) == {"delta_1": pytest.approx(2 / 3)}
    assert set(task.errors(labels, labels)) == {"rmse", "rel"}


def test_trivial_depth_knows_where_depths_lie():
    train = np.array([[[1.0, 4.0, np.nan]], [[np.nan, 4.2, np.nan]], [[1.2, 9.0, np.nan]]])
    # By pixel 1.1, 4.2 and the overall 4.0.
    scores = image_task("depth", ()).evaluate_trivial(train, np.array([[[1.2, 4.0, 1.0]]]))
    assert scores == {"delta_1": pytest.approx(2 / 3)}


def test_trivial_segmentation_knows_where_classes_lie():
    task = image_task("semseg", NAMES)
    train = np.array([[[0, 1], [0, 1]], [[0, 1], [255, 1]], [[0, 0], [2, 255]]])
    # By pixel [[0, 1], [0, 1]]: at the third the classes 0 and 2 are tied.
    labels = np.array([[[0, 1], [0, 1]]])
    assert task.evaluate_trivial(train, labels) == {"mean_iou": 1.0}


def test_trivial_classification_is_the_majority_class():
    task = image_task("classification", NAMES)
    assert task.evaluate_trivial(np.array([2, 2, 1]), np.array([2, 1, 0, 2])) == {"accuracy": 0.5}


def test_an_unknown_task_lists_those_there_are():
    with pytest.raises(ValueError, match="classification, semseg, depth.*Received: 'normals'"):
        image_task("normals", NAMES)
    with pytest.raises(ValueError, match="'semseg' must have at least two classes"):
        image_task("semseg", ())
