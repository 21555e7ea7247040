"""The tasks of GLUE, from a folder of its tables or from TensorFlow Datasets."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_taskrobust.downstream.tables import find_table, read_table, take_columns
from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask, class_ids

_COLA_HEADER = ("source", "label", "original_label", "sentence")
_MRPC_IDS = "dev_ids.tsv"


@dataclasses.dataclass(frozen=True)
class GlueTask(TextTask):
    """A task of GLUE (Wang et al. 2019).

    The data come from a folder of GLUE's own tables (`<data_dir>/<name>/train.tsv`, or
    `train.tsv.gz`, and so on), or from TFDS (`glue/...`). MRPC is also read from Microsoft's
    `msr_paraphrase_train.txt` and `msr_paraphrase_test.txt` with GLUE's `dev_ids.tsv`.

    Args:
        name: as in `DownstreamTask`; the name of the folder, too.
        metrics: as in `DownstreamTask`.
        label_names: the labels as they stand in the tables.
        columns: the columns of the texts.
        label_column: the column of the labels.
        tfds_name: the configuration of TFDS's `glue`.
        tfds_columns: the features of the texts there, where they differ.
        dev_files: names of the splits to score on, to their tables.
        test_files: names of the prediction files GLUE's site takes, to the tables.
        header: the columns of tables that have no header line.

    Reference:
        [GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding]
        (https://arxiv.org/abs/1804.07461).
    """

    columns: tuple[str, ...] = ("sentence1", "sentence2")
    label_column: str = "label"
    tfds_name: str = ""
    tfds_columns: tuple[str, ...] = ()
    dev_files: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: {"dev": ("dev.tsv",)}, hash=False
    )
    test_files: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, hash=False)
    header: tuple[str, ...] = ()

    def load(self, data_dir: str | os.PathLike | None = None) -> TaskData:
        if data_dir is None:
            return self._load_tfds()
        folder = Path(data_dir) / self.name
        if not folder.is_dir():
            received = "a folder without it" if Path(data_dir).is_dir() else "no such folder"
            raise ValueError(
                f"{data_dir} must be a folder of GLUE's tables with a folder {self.name!r}. "
                f"Received: {received}"
            )
        if self.name == "MRPC" and find_table(folder, ("train.tsv",)) is None:
            return self._load_msr(folder)
        train = self._read_split(folder, ("train.tsv",))
        dev = {
            name: self._read_split(folder, files)
            for index, (name, files) in enumerate(self.dev_files.items())
            if index == 0 or find_table(folder, files)
        }
        test = {
            name: self._read_examples(path, is_test=True)
            for name, files in self.test_files.items()
            if (path := find_table(folder, files))
        }
        return TaskData(train, dev, test)

    def prediction_lines(self, file: str, predictions: np.ndarray) -> list[str]:
        if self.is_regression:
            predictions = np.clip(predictions, 0.0, 5.0)
        return super().prediction_lines(file, predictions)

    def _read_split(self, folder: Path, files: tuple[str, ...]) -> Examples:
        path = find_table(folder, files)
        if path is None:
            found = sorted(entry.name for entry in folder.iterdir())
            raise ValueError(
                f"{folder} must hold {files[0]} or {files[0]}.gz. Received: {found or 'nothing'}"
            )
        return self._read_examples(path)

    def _read_examples(self, path: Path, is_test: bool = False) -> Examples:
        """Test sets may lack labels, and GLUE's site wants a prediction for every row of them."""
        table = read_table(path, () if is_test else self.header, every_row=is_test)
        texts = take_columns(table, self.columns, path)
        has_labels = not is_test or self.label_column in table
        labels = self._labels(table, path) if has_labels else None
        return Examples(texts, labels, str(path), table.get("index", table.get("id", ())))

    def _labels(self, table: dict[str, list[str]], path: Path) -> np.ndarray:
        (values,) = take_columns(table, (self.label_column,), path)
        if not self.is_regression:
            return class_ids(values, self.label_names, path)
        try:
            numbers = np.array([float(value) for value in values], "float32")
        except ValueError as error:
            raise ValueError(f"{path}: a score must be a number from 0 to 5. {error}") from None
        if not ((numbers >= 0) & (numbers <= 5)).all():
            raise ValueError(
                f"{path}: a score must be a number from 0 to 5. "
                f"Received: scores from {numbers.min()} to {numbers.max()}"
            )
        return numbers

    def _load_msr(self, folder: Path) -> TaskData:
        train = self._read_split(folder, ("msr_paraphrase_train.txt",))
        path = find_table(folder, (_MRPC_IDS, f"mrpc_{_MRPC_IDS}"))
        if path is None:
            raise ValueError(
                f"{folder} must hold train.tsv, or msr_paraphrase_train.txt with {_MRPC_IDS}. "
                f"Received: msr_paraphrase_train.txt without {_MRPC_IDS}"
            )
        pairs = read_table(path, ("#1 ID", "#2 ID"))
        held_out = set(zip(*take_columns(pairs, ("#1 ID", "#2 ID"), path), strict=True))
        table = read_table(Path(train.source))
        keys = zip(*take_columns(table, ("#1 ID", "#2 ID"), Path(train.source)), strict=True)
        is_dev = np.array([key in held_out for key in keys])
        test = {
            name: self._read_examples(found, is_test=True)
            for name, files in self.test_files.items()
            if (found := find_table(folder, files))
        }
        return TaskData(_subset(train, ~is_dev), {"dev": _subset(train, is_dev)}, test)

    def _load_tfds(self) -> TaskData:
        train = self._read_tfds(self.tfds_name, "train")
        dev = {
            name: self._read_tfds(self.tfds_name, name.replace("dev", "validation"))
            for name in self.dev_files
        }
        test = {}
        for name in self.test_files:
            if name == "AX":
                test[name] = self._read_tfds("ax", "test", labelled=False)
            else:
                split = {"MNLI-m": "test_matched", "MNLI-mm": "test_mismatched"}.get(name, "test")
                test[name] = self._read_tfds(self.tfds_name, split, labelled=False)
        return TaskData(train, dev, test)

    def _read_tfds(self, config: str, split: str, labelled: bool = True) -> Examples:
        import tensorflow_datasets as tfds

        name = f"glue/{config}"
        try:
            examples = list(tfds.data_source(name, split=split))
        except NotImplementedError:  # prepared in a format which only TensorFlow reads
            examples = list(tfds.as_numpy(tfds.load(name, split=split)))
        texts = tuple(
            [_string(example[column]) for example in examples]
            for column in self.tfds_columns or self.columns
        )
        labels = None
        if labelled:
            values = np.array([example["label"] for example in examples])
            labels = values.astype("float32" if self.is_regression else "int32")
            if (
                not self.is_regression
                and not ((labels >= 0) & (labels < len(self.label_names))).all()
            ):
                raise ValueError(
                    f"tfds:{name}, split {split!r}: a label must be from 0 to "
                    f"{len(self.label_names) - 1}. Received: labels from {labels.min()} to "
                    f"{labels.max()}"
                )
        ids = [str(int(example["idx"])) for example in examples]
        return Examples(texts, labels, f"tfds:{name}, split {split!r}", ids)


def _string(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _subset(examples, chosen):
    indices = np.flatnonzero(chosen)
    texts = tuple([column[index] for index in indices] for column in examples.texts)
    return Examples(texts, examples.labels[indices], examples.source)


_TEST = ("test.tsv",)
_ENTAILMENT = ("entailment", "not_entailment")
_YES_NO = ("0", "1")

GLUE_TASKS = (
    GlueTask(
        "MNLI",
        ("accuracy",),
        ("entailment", "neutral", "contradiction"),
        label_column="gold_label",
        tfds_name="mnli",
        tfds_columns=("premise", "hypothesis"),
        dev_files={
            "dev_matched": ("dev_matched.tsv",),
            "dev_mismatched": ("dev_mismatched.tsv",),
        },
        test_files={
            "MNLI-m": ("test_matched.tsv",),
            "MNLI-mm": ("test_mismatched.tsv",),
            "AX": ("diagnostic.tsv", "../diagnostic/diagnostic.tsv", "../AX/AX.tsv"),
        },
    ),
    GlueTask(
        "QQP",
        ("f1", "accuracy"),
        _YES_NO,
        columns=("question1", "question2"),
        label_column="is_duplicate",
        tfds_name="qqp",
        test_files={"QQP": _TEST},
    ),
    GlueTask(
        "QNLI",
        ("accuracy",),
        _ENTAILMENT,
        columns=("question", "sentence"),
        tfds_name="qnli",
        test_files={"QNLI": _TEST},
    ),
    GlueTask(
        "SST-2",
        ("accuracy",),
        _YES_NO,
        columns=("sentence",),
        tfds_name="sst2",
        test_files={"SST-2": _TEST},
    ),
    GlueTask(
        "CoLA",
        ("matthews",),
        _YES_NO,
        columns=("sentence",),
        tfds_name="cola",
        test_files={"CoLA": _TEST},
        header=_COLA_HEADER,
    ),
    GlueTask(
        "STS-B",
        ("pearson", "spearman"),
        label_column="score",
        tfds_name="stsb",
        test_files={"STS-B": _TEST},
    ),
    GlueTask(
        "MRPC",
        ("f1", "accuracy"),
        _YES_NO,
        columns=("#1 String", "#2 String"),
        label_column="Quality",
        tfds_name="mrpc",
        tfds_columns=("sentence1", "sentence2"),
        test_files={"MRPC": ("test.tsv", "msr_test.tsv", "msr_paraphrase_test.txt")},
    ),
    GlueTask("RTE", ("accuracy",), _ENTAILMENT, tfds_name="rte", test_files={"RTE": _TEST}),
    GlueTask("WNLI", ("accuracy",), _YES_NO, tfds_name="wnli", test_files={"WNLI": _TEST}),
)
