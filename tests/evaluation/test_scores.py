import dataclasses

import numpy as np
import pytest

from keras_taskrobust.evaluation import TaskScores

pytestmark = pytest.mark.backend_free

NAMES = ("noun", "verb", "interjection", "unseen")
_ONES = TaskScores(("a", "b"), [[1.0, 1.0]], [[1, 1]])


@pytest.fixture
def by_hand():
    """noun 12/4 = 3, verb 10/2 = 5, interjection 9/1 = 9, unseen 0/0."""
    return TaskScores(
        NAMES,
        totals=[[5.0, 4.0, 0.0, 0.0], [7.0, 6.0, 9.0, 0.0]],
        counts=[[1, 1, 0, 0], [3, 1, 1, 0]],
        correct=[[1, 0, 0, 0], [2, 1, 0, 0]],
    )


@pytest.fixture
def with_parts(by_hand):
    trivial = [[9.0, 3.0, 0.0, 0.0], [15.0, 5.0, 10.0, 0.0]]
    within = TaskScores(
        NAMES, 0.5 * by_hand.totals, by_hand.counts, trivial_totals=by_hand.totals * [0.5, 1, 1, 1]
    )
    prior = TaskScores(NAMES, 0.5 * by_hand.totals, by_hand.counts)
    return dataclasses.replace(
        by_hand, trivial_totals=trivial, parts={"within": within, "prior": prior}
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

    def test_saves_and_loads_trivial_totals_and_parts(self, with_parts, tmp_path):
        with_parts.save(tmp_path / "scores.npz")
        loaded = TaskScores.load(tmp_path / "scores.npz")
        np.testing.assert_array_equal(loaded.trivial_totals, with_parts.trivial_totals)
        assert tuple(loaded.parts) == ("within", "prior")
        for name, part in with_parts.parts.items():
            found = loaded.parts[name]
            assert found.task_names == NAMES
            np.testing.assert_array_equal(found.totals, part.totals)
            np.testing.assert_array_equal(found.counts, part.counts)
            assert (found.trivial_totals is None) == (part.trivial_totals is None)
            assert found.correct is None
        with np.load(tmp_path / "scores.npz") as archive:
            assert {"trivial_totals", "within/totals", "prior/totals"} <= set(archive.files)

    def test_opens_an_archive_from_before_there_were_trivial_totals(self, by_hand, tmp_path):
        arrays = {"task_names": np.array(NAMES), "totals": by_hand.totals, "counts": by_hand.counts}
        np.savez_compressed(tmp_path / "old.npz", **arrays)
        scores = TaskScores.load(tmp_path / "old.npz")
        assert scores.trivial_totals is None
        assert not scores.parts
        np.testing.assert_array_equal(scores.losses, by_hand.losses)

    def test_refuses_a_part_that_is_not_whole(self, with_parts, tmp_path):
        arrays = with_parts._arrays()
        del arrays["within/totals"]
        np.savez(tmp_path / "scores.npz", **arrays)
        with pytest.raises(ValueError, match=r"\['totals'\] not found"):
            TaskScores.load(tmp_path / "scores.npz")

    def test_shares_by_hand(self, with_parts):
        """Noun 3 of 6, verb 5 of 4, interjection 9 of 10."""
        np.testing.assert_array_equal(with_parts.trivial_losses, [6.0, 4.0, 10.0, np.nan])
        np.testing.assert_allclose(with_parts.shares, [0.5, -0.25, 0.1, np.nan])
        assert with_parts.worst_share() == ("verb", -0.25)
        assert with_parts.worst_share(minimum_targets=3) == ("noun", 0.5)
        assert with_parts.mean_share(2) == pytest.approx(0.125)
        within = with_parts.parts["within"]
        assert within.worst_share(2) == ("noun", 0.0)

    def test_tasks_with_enough_targets_are_the_same_in_the_parts(self, with_parts):
        chosen = with_parts.with_targets(2)
        np.testing.assert_array_equal(chosen.trivial_totals, with_parts.trivial_totals[:, :2])
        assert chosen.trivial_losses.tolist() == [6.0, 4.0]
        assert [part.task_names for part in chosen.parts.values()] == [("noun", "verb")] * 2
        assert chosen.parts["within"].shares.tolist() == [0.0, 0.5]

    def test_a_share_is_missing_where_there_is_no_trivial_loss(self, by_hand):
        assert np.isnan(by_hand.shares).all()
        assert np.isnan(by_hand.trivial_losses).all()
        scores = TaskScores(("a", "b"), [[1.0, 1.0]], [[1, 1]], trivial_totals=[[2.0, 0.0]])
        np.testing.assert_array_equal(scores.shares, [0.5, np.nan])
        name, share = scores.worst_share()
        assert name == "b"
        assert np.isnan(share)

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
            ({"trivial_totals": [[1.0]]}, r"`trivial_totals` must have the shape of `totals`"),
            ({"trivial_totals": [[1.0, np.inf]]}, "`trivial_totals` must be finite. Received: 1"),
            ({"parts": {"a/b": _ONES}}, "`parts` must have names without a slash.*'a/b'"),
            ({"parts": {"": _ONES}}, "`parts` must have names without a slash"),
            (
                {"parts": {"p": dataclasses.replace(_ONES, parts={"q": _ONES})}},
                r"no parts of their own. Received: 'p' with the parts \('q',\)",
            ),
            (
                {"parts": {"p": TaskScores(("a", "c"), [[1.0, 1.0]], [[1, 1]])}},
                r"`parts` must be scores of the same records, tasks .*under 'p'.*\('a', 'c'\)",
            ),
            (
                {"parts": {"p": TaskScores(("a", "b"), [[1.0, 1.0]], [[1, 2]])}},
                r"\[1, 1\] targets. Received: under 'p', .*\[1, 2\]",
            ),
        ],
    )
    def test_refuses(self, changes, message):
        arguments = {"task_names": ("a", "b"), "totals": [[1.0, 2.0]], "counts": [[1, 1]]}
        with pytest.raises(ValueError, match=message):
            TaskScores(**{**arguments, **changes})
