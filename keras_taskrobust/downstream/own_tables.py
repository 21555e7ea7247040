"""Text tasks of one's own: classes of texts, or of pairs of texts, in a table."""

import csv
import dataclasses
import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.downstream.glue import GLUE_TASKS
from keras_taskrobust.downstream.nltk_tasks import NLTK_TASKS
from keras_taskrobust.downstream.tables import decode_table, find_table, read_table
from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask, class_ids
from keras_taskrobust.files import nearest_path

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_SPLITS = {name: (f"{name}.csv", f"{name}.tsv") for name in ("train", "dev")}
_TEXTS = (("text",), ("sentence",), ("sentence1", "sentence2"))
_COLUMNS = "'label' and 'text' (or 'sentence', or 'sentence1' and 'sentence2')"
_FOLDS = 10
_KNOWN = {task.name for task in (*GLUE_TASKS, *NLTK_TASKS)}


@dataclasses.dataclass(frozen=True)
class OwnTask(TextTask):
    """A classification task from a table of one's own.

    Args:
        name: as in `DownstreamTask`.
        metrics: as in `DownstreamTask`.
        label_names: the labels of the training split, sorted.
        data: `TaskData`.
        digest: string. Tells its examples from others.
    """

    data: TaskData = dataclasses.field(kw_only=True, compare=False)
    digest: str = dataclasses.field(kw_only=True)

    def load(self, data_dir: str | os.PathLike | None = None) -> TaskData:
        """Returns the splits. `data_dir` has no say."""
        return self.data


def is_own_table(task: str) -> bool:
    """Whether a task is the path of a table or folder, or NAME=PATH, and none that has a name.

    Example:

    >>> is_own_table("reviews.csv"), is_own_table("mood=reviews.csv"), is_own_table("RTE")
    (True, True, False)
    """
    if not task or task in _KNOWN:
        return False
    return "=" in task or task.lower().endswith(SUFFIXES) or Path(task).is_dir()


def named_tasks(entries: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names of tasks, and those of one's own to the paths of their tables.

    Example:

    >>> named_tasks(["RTE", "data/mood.csv", "film=reviews.tsv.gz"])
    (('RTE', 'mood', 'film'), {'mood': 'data/mood.csv', 'film': 'reviews.tsv.gz'})
    """
    names, tables = [], {}
    for entry in entries:
        name = entry
        if is_own_table(entry):
            name, sign, path = entry.partition("=")
            if not sign:
                name, path = _stem(entry), entry
            tables[name] = path
        names.append(name)
    return tuple(names), tables


def open_table(name: str, path: str | os.PathLike) -> OwnTask:
    """Opens a table, of which every tenth example of each class is held out, or a folder with a
    table for each of `train` and `dev`.

    The columns are `label` and `text`; or `sentence`, or `sentence1` and `sentence2`, in place of
    `text`. Others are not read. A `.csv` is quoted as spreadsheets do; in a `.tsv` a tab always
    ends a cell, as in GLUE's tables. Both may be compressed, with `.gz` after their name.

    Args:
        name: string. What reports and files call the task.
        path: path.

    Returns:
        `OwnTask`, whose score is the accuracy.

    Raises:
        ValueError: there is no such table, it is damaged, or lacks columns or labels.
    """
    path = Path(path)
    if path.is_dir():
        train, dev = (_read(_split_of(path, split)) for split in _SPLITS)
    else:
        train, dev = _halves(path, *_read(path))
    names = tuple(sorted(set(train[1])))
    if not 2 <= len(names) <= max(2, len(train[1]) // 2):
        raise ValueError(
            f"{path}: the labels must be classes, two or more, each of several examples. "
            f"Received: {len(names)} different labels in {len(train[1])} training examples"
        )
    splits = {
        split: Examples(texts, class_ids(labels, names, path), f"{path}, {split}")
        for split, (texts, labels) in {"train": train, "dev": dev}.items()
    }
    digest = hashlib.sha256(repr((train, dev)).encode()).hexdigest()[:16]
    data = TaskData(splits["train"], {"dev": splits["dev"]})
    return OwnTask(name, ("accuracy",), names, data=data, digest=digest)


def _stem(path: str) -> str:
    name = Path(path).resolve().name
    suffix = next((one for one in SUFFIXES if name.lower().endswith(one)), "")
    return name[: len(name) - len(suffix)]


def _split_of(folder: Path, split: str) -> Path:
    path = find_table(folder, _SPLITS[split])
    if path is None:
        found = sorted(entry.name for entry in folder.iterdir())
        raise ValueError(
            f"{folder} must hold {' or '.join(_SPLITS[split])}. Received: {found or 'nothing'}"
        )
    return path


def _read(path: Path) -> tuple[tuple[Sequence[str], ...], Sequence[str]]:
    """The texts and the labels of a table."""
    if not path.is_file():
        nearest = nearest_path(path)
        hint = "" if nearest is None else f". Did you mean {str(nearest)!r}?"
        raise ValueError(f"{path} must be a table. Received: no such file{hint}")
    is_csv = ".csv" in path.suffixes
    table = _read_csv(path) if is_csv else read_table(path, every_row=True)
    columns = next((names for names in _TEXTS if set(names) <= table.keys()), None)
    if columns is None or "label" not in table:
        raise ValueError(
            f"{path} must have the columns {_COLUMNS} in its first row. "
            f"Received: {', '.join(map(repr, table))}"
        )
    labels = [label.strip() for label in table["label"]]
    if not all(labels):
        raise ValueError(
            f"{path} must have a label in every row. Received: none in row {labels.index('') + 2}"
        )
    return tuple(table[name] for name in columns), labels


def _read_csv(path: Path) -> dict[str, list[str]]:
    lines = csv.reader(io.StringIO(decode_table(path), newline=""), strict=True)
    try:
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise ValueError(
            f"{path} must be comma-separated, with quotes as spreadsheets set them. "
            f"Received: line {lines.line_num}: {error}"
        ) from None
    header, *rows = rows or [[]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path} must have {len(header)} comma-separated cells in every row. "
                f"Received: {len(row)} in row {number}"
            )
    checks.distinct(f"{path}: columns", header, least=0)
    return {name.strip(): [row[index] for row in rows] for index, name in enumerate(header)}


def _halves(path, texts, labels):
    """Every tenth example of each class is held out."""
    seen: Counter[str] = Counter()
    held_out = []
    for label in labels:
        seen[label] += 1
        held_out.append(seen[label] % _FOLDS == 0)
    if not any(held_out):
        raise ValueError(
            f"{path} must have ten examples of a class, of which one is held out. "
            f"Received: {max(seen.values(), default=0)} of the largest"
        )
    return tuple(
        (tuple([one[k] for k in chosen] for one in texts), [labels[k] for k in chosen])
        for chosen in (np.flatnonzero(np.equal(held_out, wanted)) for wanted in (False, True))
    )
