import numpy as np
import pytest

from keras_taskrobust.evaluation import TaskScores

pytestmark = pytest.mark.backend_free

NAMES = ("noun", "verb", "interjection", "unseen")


@pytest.fixture
def by_hand():
    """noun 12/4 = 3, verb 10/2 = 5, interjection 9/1 = 9, unseen 0/0."""
    return TaskScores(
        NAMES,
        totals=[[5.0, 4.0, 0.0, 0.0], [7.0, 6.0, 9.0, 0.0]],
        counts=[[1, 1, 0, 0], [3, 1, 1, 0]],
        correct=[[1, 0, 0, 0], [2, 1, 0, 0]],
    )


class TestTaskScores:
    def test_figures_by_hand(self, by_hand):
        np.testing.assert_array_equal(by_hand.losses, [3.0, 5.0, 9.0, np.nan])
        np.testing.assert_array_equal(by_hand.accuracies, [0.75, 0.5, 0.0, np.nan])
        np.testing.assert_array_equal(by_hand.targets, [4, 2, 1, 0])
        assert by_hand.losses.dtype == "float64"
        assert by_hand.targets.dtype.kind == "i"
        assert by_hand.pooled == pytest.approx(31 / 7)
        assert by_hand.pooled_accuracy == pytest.approx(4 / 7)
        assert by_hand.spread == 6.0

    def test_worst_and_mean_over_tasks_with_enough_targets(self, by_hand):
        assert by_hand.worst() == ("interjection", 9.0)
        assert by_hand.worst(2) == ("verb", 5.0)
        assert by_hand.worst(minimum_targets=3) == ("noun", 3.0)
        assert by_hand.mean() == pytest.approx(17 / 3)
        assert by_hand.mean(2) == 4.0
        assert by_hand.with_targets(2).task_names == ("noun", "verb")
        assert by_hand.with_targets(2).spread == 2.0

    def test_no_task_with_enough_targets(self, by_hand):
        with pytest.raises(ValueError, match=r"the largest has 4 targets. Received: .*=5"):
            by_hand.worst(5)

    def test_a_loss_that_is_no_number_is_the_worst(self):
        scores = TaskScores(("a", "b"), [[1.0, float("nan")]], [[1, 1]])
        assert scores.worst()[0] == "b"
        assert np.isnan(scores.mean())

    def test_without_correct_predictions(self):
        scores = TaskScores(("a",), [[1.0]], [[1]])
        assert np.isnan(scores.accuracies).all()
        assert np.isnan(scores.pooled_accuracy)

    def test_sums_in_float64(self):
        totals = np.full((100_000, 1), 0.1, dtype="float32")
        scores = TaskScores(("a",), totals, np.ones((100_000, 1), dtype="float32"))
        assert scores.losses[0] == pytest.approx(np.float64(np.float32(0.1)), rel=1e-12)

    @pytest.mark.parametrize("with_correct", [True, False])
    def test_saves_and_loads(self, by_hand, tmp_path, with_correct):
        correct = by_hand.correct if with_correct else None
        scores = TaskScores(NAMES, by_hand.totals, by_hand.counts, correct)
        path = tmp_path / "deep" / "scores.npz"
        scores.save(path)
        loaded = TaskScores.load(path)
        assert loaded.task_names == NAMES
        np.testing.assert_array_equal(loaded.totals, scores.totals)
        np.testing.assert_array_equal(loaded.counts, scores.counts)
        assert (loaded.correct is None) == (not with_correct)
        assert [file.name for file in path.parent.iterdir()] == ["scores.npz"]

    def test_refuses_another_file(self, tmp_path):
        text = tmp_path / "notes.txt"
        text.write_text("no archive")
        with pytest.raises(ValueError, match=r"must be an .npz archive .*notes.txt: no archive"):
            TaskScores.load(text)
        np.savez(tmp_path / "other.npz", totals=np.zeros(3))
        with pytest.raises(ValueError, match=r"\['counts', 'task_names'\] not found"):
            TaskScores.load(tmp_path / "other.npz")
        with pytest.raises(FileNotFoundError):
            TaskScores.load(tmp_path / "none.npz")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"task_names": ("a", "a")}, "`task_names` must be at least one name, all distinct"),
            ({"task_names": ()}, "`task_names` must be at least one name"),
            ({"totals": [[1.0, 2.0, 3.0]]}, r"`totals` must have the shape \(records, 2\)"),
            ({"totals": np.zeros((0, 2))}, "at least one record"),
            ({"counts": [[1, 1], [1, 1]]}, r"`counts` must have the shape of `totals`, \(1, 2\)"),
            ({"counts": [[0.5, 1.0]]}, "`counts` must hold whole numbers"),
            ({"counts": [[-1, 1]]}, "not negative. Received: values from -1 to 1"),
            ({"counts": [[float("nan"), 1.0]]}, "`counts` must hold whole numbers"),
            ({"counts": [[0, 0]]}, "`counts` must hold at least one target"),
            ({"correct": [[2, 0]]}, "`correct` must not be above `counts` anywhere"),
        ],
    )
    def test_refuses(self, changes, message):
        arguments = {"task_names": ("a", "b"), "totals": [[1.0, 2.0]], "counts": [[1, 1]]}
        with pytest.raises(ValueError, match=message):
            TaskScores(**{**arguments, **changes})
