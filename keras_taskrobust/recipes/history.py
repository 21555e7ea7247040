"""The history of a run, `history.csv`: a line a report, from its step to the figures there."""

import csv
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras

from keras_taskrobust.files import write_atomically

NAME = "history.csv"


class HistoryLog(keras.callbacks.Callback):
    """Writes a line at the end of every epoch. It is on the disk before what callbacks do next.

    Args:
        directory: the folder of the run. `cut_history` comes first.
        steps_per_report: int. The steps of an epoch.
        steps: int. Those of the run, whose last epoch may be shorter.
    """

    def __init__(self, directory: Path, steps_per_report: int, steps: int):
        super().__init__()
        self._steps = steps
        self._path = directory / NAME
        self._steps_per_report = steps_per_report
        self._names: Sequence[str] | None = None

    def on_epoch_end(self, epoch, logs=None):
        step = min((epoch + 1) * self._steps_per_report, self._steps)
        figures = {"step": step, **(logs or {})}
        with self._path.open("r+", newline="") as file:
            if self._names is None:
                self._names = next(csv.reader(file), None)
            file.seek(0, os.SEEK_END)
            lines = csv.writer(file, lineterminator="\n")
            if self._names is None:
                self._names = ("step", *sorted(figures.keys() - {"step"}))
                lines.writerow(self._names)
            lines.writerow([figures.get(name, "nan") for name in self._names])
            file.flush()
            os.fsync(file.fileno())


def cut_history(directory: Path, epochs: int, steps_per_report: int) -> None:
    """Drops what a killed run logged after its last checkpoint.

    A history that counts epochs, as those of former versions, becomes one of steps.

    Args:
        directory: the folder of the run.
        epochs: int. Those before the checkpoint.
        steps_per_report: int. The steps of an epoch.
    """
    path = directory / NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() and epochs else []
    whole = [line for line in lines[1:] if _is_whole(line, lines[0])]
    text = b"".join([*lines[:1], *whole]).decode(errors="replace")
    header, *rows = _of_steps(text, steps_per_report).splitlines(keepends=True) or [""]
    kept = [row for row in rows if int(row.split(",")[0]) <= epochs * steps_per_report]
    if len(kept) < epochs:
        warnings.warn(
            f"{path} lacks {epochs - len(kept)} of the {epochs} lines before the checkpoint: it "
            "was changed. The run goes on without them.",
            stacklevel=2,
        )
    write_atomically(path, "".join([header, *kept]).encode())


def read_history(
    path: Path, steps_per_report: int, steps: int | None = None
) -> dict[str, list[float]]:
    """Reads a history.

    Args:
        path: the file.
        steps_per_report: int. The steps of an epoch, where it counts those.
        steps: int. Those of the run, whose last epoch may be shorter.

    Returns:
        dict of "step" and the names of the figures to their values, one a line.

    Raises:
        ValueError: it is damaged.
    """
    text = _of_steps(path.read_text(), steps_per_report, steps)
    names, *rows = csv.reader(text.splitlines())
    if not rows:
        raise ValueError("it has no line")
    history = {
        name: [float(value) for value in column]
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    history["step"] = [int(step) for step in history["step"]]
    return history


def _is_whole(line: bytes, header: bytes) -> bool:
    ends = line.endswith(b"\n") and line.count(b",") == header.count(b",")
    return ends and line.split(b",")[0].isdigit()


def _of_steps(text: str, steps_per_report: int, steps: int | None = None) -> str:
    """A history of epochs as one of steps, without the empty columns that Keras's logger added."""
    if not text.startswith("epoch,"):
        return text
    names, *rows = csv.reader(text.splitlines())
    kept = [index for index, name in enumerate(names) if not name.startswith("val_")][1:]
    table = [["step", *(names[index] for index in kept)]]
    for epoch, *figures in rows:
        step = (int(epoch) + 1) * steps_per_report
        step = step if steps is None else min(step, steps)
        table.append([str(step), *(figures[index - 1] for index in kept)])
    return "".join(f"{','.join(row)}\n" for row in table)
