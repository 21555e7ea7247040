"""Held-out figures of one trained model, by task and record."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from keras_taskrobust.evaluation.arrays import read_arrays, write_arrays


@dataclass(frozen=True, eq=False)
class TaskScores:
    """What one trained model scores on every task, record by record.

    A record is what is drawn as one from the held-out data: a sequence, an image. Records, not
    targets, are what the bootstrap resamples, because the targets of one record go together.

    Args:
        task_names: the K task names.
        totals: `(N, K)`. Loss of each record, summed over its targets of each task.
        counts: `(N, K)`. Number of those targets, whole numbers.
        correct: `(N, K)` or `None`. Number of those targets predicted correctly.
        trivial_totals: `(N, K)` or `None`. Loss of the same targets, summed likewise, under the
            best constant prediction, one that does not look at the input. It is fitted on the
            training data.
        parts: names to `TaskScores` of the same targets under another loss, such as the word
            within its task. A name has no slash.

    Example:

    >>> scores = TaskScores(("noun", "verb"), [[2.0, 0.0], [4.0, 5.0]], [[1, 0], [1, 1]])
    >>> scores.losses.tolist(), scores.targets.tolist()
    ([3.0, 5.0], [2, 1])
    >>> scores.worst(), scores.worst(minimum_targets=2), round(scores.pooled, 3)
    (('verb', 5.0), ('noun', 3.0), 3.667)

    With trivial losses, the share of them that was learnt:

    >>> scores = TaskScores(("a", "b"), [[2.0, 1.0]], [[1, 1]], trivial_totals=[[8.0, 2.0]])
    >>> scores.shares.tolist(), scores.worst_share(), scores.mean_share()
    ([0.75, 0.5], ('b', 0.5), 0.625)
    """

    task_names: tuple[str, ...]
    totals: np.ndarray
    counts: np.ndarray
    correct: np.ndarray | None = None
    trivial_totals: np.ndarray | None = None
    parts: Mapping[str, "TaskScores"] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "task_names", tuple(str(name) for name in self.task_names))
        object.__setattr__(self, "totals", np.asarray(self.totals, dtype="float64"))
        object.__setattr__(self, "counts", _whole_numbers("counts", self.counts))
        if self.correct is not None:
            object.__setattr__(self, "correct", _whole_numbers("correct", self.correct))
        if self.trivial_totals is not None:
            trivial_totals = np.asarray(self.trivial_totals, dtype="float64")
            object.__setattr__(self, "trivial_totals", trivial_totals)
        _check_names(self.task_names)
        _check_shapes(self)
        _check_parts(self)

    @property
    def losses(self) -> np.ndarray:
        """`(K,)` float64. Mean loss of each task's targets; NaN for a task without targets."""
        return ratio(self.totals.sum(axis=0), self.targets)

    @property
    def accuracies(self) -> np.ndarray:
        """`(K,)` float64. Share of correct predictions; NaN where there is nothing to count."""
        if self.correct is None:
            return np.full(len(self.task_names), np.nan)
        return ratio(self.correct.sum(axis=0), self.targets)

    @property
    def trivial_losses(self) -> np.ndarray:
        """`(K,)` float64. Mean loss T of each task's targets under the best constant prediction."""
        if self.trivial_totals is None:
            return np.full(len(self.task_names), np.nan)
        return ratio(self.trivial_totals.sum(axis=0), self.targets)

    @property
    def shares(self) -> np.ndarray:
        """`(K,)` float64. `1 - L / T`: 0 is no better than a constant, 1 a loss of 0.

        NaN for a task without targets, or whose T is not above 0.
        """
        return share(self.losses, self.trivial_losses)

    @property
    def targets(self) -> np.ndarray:
        """`(K,)` int64. Number of targets of each task."""
        return self.counts.sum(axis=0)

    @property
    def pooled(self) -> float:
        """Mean loss over all targets, whatever their task."""
        return float(ratio(self.totals.sum(), self.counts.sum()))

    @property
    def pooled_accuracy(self) -> float:
        """Share of correct predictions over all targets, whatever their task."""
        if self.correct is None:
            return float("nan")
        return float(ratio(self.correct.sum(), self.counts.sum()))

    @property
    def spread(self) -> float:
        """Largest minus smallest task loss, over the tasks that have targets."""
        losses = self.with_targets().losses
        return float(losses.max() - losses.min())

    def worst(self, minimum_targets: int = 0) -> tuple[str, float]:
        """The task with the largest loss, and that loss.

        Args:
            minimum_targets: tasks with fewer targets, and those with none, are left out.

        Returns:
            The name and the loss. A loss that is not a number counts as the largest.
        """
        scores = self.with_targets(minimum_targets)
        index = int(np.argmax(scores.losses))
        return scores.task_names[index], float(scores.losses[index])

    def mean(self, minimum_targets: int = 0) -> float:
        """The mean of the task losses, each task counting the same.

        Args:
            minimum_targets: tasks with fewer targets, and those with none, are left out.
        """
        return float(self.with_targets(minimum_targets).losses.mean())

    def worst_share(self, minimum_targets: int = 0) -> tuple[str, float]:
        """The task with the smallest share, and that share.

        Args:
            minimum_targets: tasks with fewer targets, and those with none, are left out.

        Returns:
            The name and the share. A share that is not a number counts as the smallest.
        """
        scores = self.with_targets(minimum_targets)
        index = int(np.argmin(scores.shares))
        return scores.task_names[index], float(scores.shares[index])

    def mean_share(self, minimum_targets: int = 0) -> float:
        """The mean of the tasks' shares, each task counting the same.

        Args:
            minimum_targets: tasks with fewer targets, and those with none, are left out.
        """
        return float(self.with_targets(minimum_targets).shares.mean())

    def with_targets(self, minimum_targets: int = 0) -> "TaskScores":
        """The scores of the tasks that have at least one target, and `minimum_targets` of them."""
        chosen = np.flatnonzero(self.targets >= max(minimum_targets, 1))
        if not chosen.size:
            raise ValueError(
                "`minimum_targets` must leave at least one task; the largest has "
                f"{self.targets.max()} targets. Received: minimum_targets={minimum_targets}"
            )
        return TaskScores(
            tuple(self.task_names[index] for index in chosen),
            self.totals[:, chosen],
            self.counts[:, chosen],
            None if self.correct is None else self.correct[:, chosen],
            None if self.trivial_totals is None else self.trivial_totals[:, chosen],
            {name: part.with_targets(minimum_targets) for name, part in self.parts.items()},
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes the scores as an `.npz` archive, whole or not at all."""
        write_arrays(path, self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "TaskScores":
        """Reads what `save` has written."""
        return _of_arrays(read_arrays(path), path)

    def _arrays(self):
        """What `_of_arrays` makes the scores of; a slash ends the name of a part."""
        arrays = {"task_names": np.array(self.task_names)}
        for name in ("totals", "counts", "correct", "trivial_totals"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        for name, part in self.parts.items():
            arrays |= {f"{name}/{key}": array for key, array in part._arrays().items()}
        return arrays


def _of_arrays(arrays, path):
    missing = {"task_names", "totals", "counts"} - set(arrays)
    if missing:
        raise ValueError(
            f"`path` must be an archive that `TaskScores.save` wrote; {sorted(missing)} not "
            f"found. Received: {path}, which holds {sorted(arrays)}"
        )
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        name, slash, of_part = key.rpartition("/")
        if slash:
            parts.setdefault(name, {})[of_part] = array
    return TaskScores(
        tuple(arrays["task_names"].tolist()),
        arrays["totals"],
        arrays["counts"],
        arrays.get("correct"),
        arrays.get("trivial_totals"),
        {name: _of_arrays(of_part, path) for name, of_part in parts.items()},
    )


def ratio(totals: ArrayLike, counts: ArrayLike) -> np.ndarray:
    """`totals / counts` in float64, NaN where the count is 0."""
    totals = np.asarray(totals, dtype="float64")
    result = np.full(totals.shape, np.nan)
    return np.divide(totals, counts, out=result, where=np.asarray(counts) > 0)


def share(losses: ArrayLike, trivial: ArrayLike) -> np.ndarray:
    """`1 - losses / trivial` in float64, NaN where the trivial loss is not above 0."""
    return 1 - ratio(losses, trivial)


def _whole_numbers(name, values):
    """The array as int64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"`{name}` must hold whole numbers. Received: {values!r}")
    whole = array.astype("int64")
    if (whole != array).any() or (whole < 0).any():
        raise ValueError(
            f"`{name}` must hold whole numbers that are not negative. "
            f"Received: values from {array.min()} to {array.max()}"
        )
    return whole


def _check_names(names):
    if not names or len(set(names)) != len(names):
        raise ValueError(
            f"`task_names` must be at least one name, all distinct. Received: task_names={names}"
        )


def _check_shapes(scores):
    shape = scores.totals.shape
    tasks = len(scores.task_names)
    if len(shape) != 2 or shape[0] == 0 or shape[1] != tasks:
        raise ValueError(
            f"`totals` must have the shape (records, {tasks}) for the tasks {scores.task_names}, "
            f"and at least one record. Received: shape {shape}"
        )
    for name in ("counts", "correct", "trivial_totals"):
        array = getattr(scores, name)
        if array is not None and array.shape != shape:
            raise ValueError(
                f"`{name}` must have the shape of `totals`, {shape}. Received: shape {array.shape}"
            )
    if not scores.counts.any():
        raise ValueError("`counts` must hold at least one target. Received: zeros only")
    if scores.correct is not None and (scores.correct > scores.counts).any():
        raise ValueError(
            "`correct` must not be above `counts` anywhere. Received: "
            f"{int((scores.correct > scores.counts).sum())} elements above"
        )
    if scores.trivial_totals is not None and not np.isfinite(scores.trivial_totals).all():
        raise ValueError(
            "`trivial_totals` must be finite. Received: "
            f"{int((~np.isfinite(scores.trivial_totals)).sum())} elements that are not"
        )


def _check_parts(scores):
    for name, part in scores.parts.items():
        if not name or "/" in name or part.parts:
            raise ValueError(
                "`parts` must have names without a slash, and no parts of their own. "
                f"Received: {name!r} with the parts {tuple(part.parts)}"
            )
        if part.task_names != scores.task_names or not np.array_equal(part.counts, scores.counts):
            raise ValueError(
                "`parts` must be scores of the same records, tasks and targets, "
                f"{scores.totals.shape[0]} records of {scores.task_names} with "
                f"{scores.targets.tolist()} targets. Received: under {name!r}, "
                f"{part.totals.shape[0]} records of {part.task_names} with "
                f"{part.targets.tolist()}"
            )
