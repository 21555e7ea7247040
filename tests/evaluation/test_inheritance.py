import csv

import numpy as np
import pytest

from keras_taskrobust.evaluation.inheritance import Inheritance, measure_inheritance

pytestmark = pytest.mark.backend_free

BEFORE = {"sketch": 0.4, "art": 0.6, "photo": 0.8}
AFTER = {
    "sketch": {"sketch": 0.7, "art": 0.5, "photo": 0.6},
    "art": {"sketch": 0.5, "art": 0.8, "photo": 0.9},
    "photo": {"sketch": 0.1, "art": 0.6, "photo": 0.95},
}


@pytest.fixture
def result():
    return measure_inheritance(
        tuple(BEFORE), BEFORE.__getitem__, lambda task: AFTER[task].__getitem__
    )


def test_the_figures_are_those_computed_by_hand(result):
    by_hand = [(-0.1 - 0.2) / 2, (0.1 + 0.1) / 2, (-0.3 + 0.0) / 2]
    np.testing.assert_allclose(result.robustness_improvement, by_hand)
    assert result.mean_robustness_improvement == pytest.approx(np.mean(by_hand))
    assert result.worst("sketch") == ("photo", pytest.approx(-0.2))
    assert result.worst("photo") == ("sketch", pytest.approx(-0.3))


def test_the_figures_agree_with_a_loop():
    rng = np.random.default_rng(0)
    before, after = rng.random(5), rng.random((5, 5))
    result = Inheritance(tuple("abcde"), before, after)
    for i in range(5):
        changes = [after[i, j] - before[j] for j in range(5) if j != i]
        assert result.robustness_improvement[i] == pytest.approx(np.mean(changes))
        assert result.worst("abcde"[i])[1] == pytest.approx(min(changes))


def test_the_table_holds_all_figures(result):
    header, start, *rows = list(csv.reader(result.to_csv().splitlines()))
    assert header == ["fine-tuned on", "sketch", "art", "photo", "RI"]
    assert [float(value) for value in start[1:4]] == list(BEFORE.values())
    assert [float(value) for value in rows[0][1:4]] == list(AFTER["sketch"].values())
    assert float(rows[1][4]) == pytest.approx(0.1)


def test_refuses(result):
    with pytest.raises(ValueError, match=r"K >= 2 names.* Received: 1 tasks"):
        Inheritance(("a",), [0.5], [[0.5]])
    with pytest.raises(ValueError, match=r"\['art'\] are not, before fine-tuning"):
        measure_inheritance(
            tuple(BEFORE), {**BEFORE, "art": float("nan")}.__getitem__, lambda task: None
        )
