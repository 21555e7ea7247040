"""Downstream tasks over texts or pairs of texts."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_taskrobust.downstream.task import DownstreamTask


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """A split of a text task.

    Args:
        texts: one or two sequences of N strings: the texts, or both sides of the pairs.
        labels: `(N,)` int32 class ids, float32 numbers for a regression, or `None` where the
            split has none.
        source: string. Where the split comes from, for errors.
        ids: `(N,)` strings, the examples' own numbers; by default 0 to N-1.

    Raises:
        ValueError: there is no example, or the lengths differ.
    """

    texts: tuple[Sequence[str], ...]
    labels: Any
    source: str
    ids: Sequence[str] = ()

    def __post_init__(self):
        number = len(self.texts[0])
        if not number:
            raise ValueError(f"A split must have at least one example. Received: {self.source}")
        if not self.ids:
            object.__setattr__(self, "ids", [str(index) for index in range(number)])
        lengths = {len(column) for column in (*self.texts, self.ids)}
        if self.labels is not None:
            lengths.add(len(self.labels))
        if lengths != {number}:
            raise ValueError(
                "The texts, labels and ids of a split must be as many. "
                f"Received: lengths {sorted(lengths)} in {self.source}"
            )

    def __len__(self) -> int:
        return len(self.texts[0])


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """The splits of a text task.

    Args:
        train: `Examples` with labels.
        dev: names to `Examples` with labels. Models are selected on the first; scores are those
            of all.
        test: names of prediction files to `Examples`, with labels or without.
    """

    train: Examples
    dev: Mapping[str, Examples]
    test: Mapping[str, Examples] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TextTask(DownstreamTask):
    """A downstream task over texts or pairs of texts. Subclasses say where the data are.

    Args:
        name: as in `DownstreamTask`.
        metrics: as in `DownstreamTask`.
        label_names: as in `DownstreamTask`.
    """

    def load(self, data_dir: str | os.PathLike | None = None) -> TaskData:
        """Reads the splits.

        Args:
            data_dir: path of a folder with the data of several tasks, or `None` for the task's
                own source.

        Returns:
            `TaskData`.

        Raises:
            ValueError: the data are not there or not as expected; the text names the path.
        """
        raise NotImplementedError

    def prediction_lines(self, file: str, predictions: np.ndarray) -> list[str]:
        """Writes predictions as the task's labels.

        Args:
            file: string. A name of `TaskData.test`.
            predictions: `(N,)` class ids or numbers.

        Returns:
            list of N strings.
        """
        if self.is_regression:
            return [f"{value:.3f}" for value in predictions]
        return [self.label_names[index] for index in predictions]


def class_ids(values: Sequence[str], label_names: Sequence[str], source: str | Path) -> np.ndarray:
    """Turns labels into class ids.

    Args:
        values: sequence of N strings.
        label_names: the classes in the order of their ids.
        source: where the labels come from, for errors.

    Returns:
        int32 array of shape `(N,)`.

    Raises:
        ValueError: a label is not among the classes.

    Example:

    >>> class_ids(["no", "yes"], ("yes", "no"), "example").tolist()
    [1, 0]
    """
    ids = {name: index for index, name in enumerate(label_names)}
    for number, value in enumerate(values, start=1):
        if value not in ids:
            raise ValueError(
                f"{source}: a label must be one of {', '.join(map(repr, label_names))}. "
                f"Received: {value!r} in example {number}"
            )
    return np.array([ids[value] for value in values], "int32")
