import dataclasses

import numpy as np
import pytest

from keras_taskrobust.evaluation import Measure, TaskScores
from keras_taskrobust.evaluation.measures import LOSS, common_measure

pytestmark = pytest.mark.backend_free

PLAIN = TaskScores(("a", "b", "unseen"), [[2.0, 3.0, 0.0]], [[1, 2, 0]])
TRIVIAL = dataclasses.replace(PLAIN, trivial_totals=[[4.0, 2.0, 0.0]])
WITHIN = dataclasses.replace(TRIVIAL, parts={"within": TRIVIAL, "prior": PLAIN})
SHARE, WITHIN_SHARE = Measure("share"), Measure("share", "within")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([PLAIN], LOSS),
        ([TRIVIAL, TRIVIAL], SHARE),
        ([TRIVIAL, PLAIN], LOSS),
        ([WITHIN, WITHIN], WITHIN_SHARE),
        ([TRIVIAL, WITHIN], SHARE),
        ([WITHIN, PLAIN], LOSS),
        ([dataclasses.replace(PLAIN, parts={"within": TRIVIAL})], WITHIN_SHARE),
        ([dataclasses.replace(TRIVIAL, parts={"within": PLAIN})], SHARE),
        ([dataclasses.replace(PLAIN, trivial_totals=[[4.0, 0.0, 0.0]])], LOSS),
    ],
)
def test_scores_are_compared_by_what_they_all_have(scores, expected):
    assert common_measure(scores) == expected


def test_the_worst_loss_is_the_largest_and_the_worst_share_the_smallest():
    np.testing.assert_array_equal(LOSS.of(TRIVIAL), [2.0, 1.5, np.nan])
    np.testing.assert_array_equal(SHARE.of(TRIVIAL), [0.5, -0.5, np.nan])
    assert LOSS.worst(TRIVIAL) == ("a", 2.0)
    assert SHARE.worst(TRIVIAL) == WITHIN_SHARE.worst(WITHIN) == ("b", -0.5)
    assert SHARE.worst(TRIVIAL, minimum_targets=2) == ("b", -0.5)
    assert (LOSS.best, SHARE.best) == ("lowest", "highest")


def test_is_named_in_words():
    assert [one.words for one in (LOSS, SHARE, WITHIN_SHARE, Measure("loss", "prior"))] == [
        "loss",
        "share",
        "within-task share",
        "prior loss",
    ]
    assert Measure("loss", "other").words == "other loss"
