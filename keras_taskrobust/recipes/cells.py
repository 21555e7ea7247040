"""What is computed once: the cells of a grid, each under the hash of what decides its figures."""

import contextlib
import dataclasses
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_taskrobust import distribution
from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.downstream.watching import watched_by
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.files import file_name, make_folder, path_to_write, write_atomically
from keras_taskrobust.recipes.checks import check_names
from keras_taskrobust.recipes.environment import environment
from keras_taskrobust.recipes.failures import tried
from keras_taskrobust.recipes.progress import progress_bars
from keras_taskrobust.recipes.stored import (
    FIGURE,
    NAME,
    SECONDS,
    SEED,
    TEXT,
    DamagedFileError,
    damaged,
    mapping_to,
    read_object,
)

_FIELDS = {
    "row": NAME,
    "seed": SEED,
    "task": NAME,
    "scores": mapping_to(mapping_to(FIGURE)),
    "trivial": mapping_to(FIGURE),
    "seconds": SECONDS,
    "pretraining_seconds": SECONDS,
    "failure": TEXT,
    "environment": mapping_to(TEXT),
}
_DEFAULTS: dict[str, Any] = {"scores": {}, "trivial": {}, "failure": "", "environment": {}}


@dataclasses.dataclass(frozen=True)
class Start:
    """Where fine-tuning starts.

    Args:
        row: string. The row of the report.
        seed: int.
        preset: string. Folder, file, name or URI of a pre-trained model.
        identity: string. Tells this start from others; a part of the key of its cells.
        pretraining_seconds: float. What the pre-training took.
        from_scratch: bool. Whether only the architecture is taken from the preset.
        failure: string. Why there is no such preset, "" if there is.
    """

    row: str
    seed: int
    preset: str
    identity: str
    pretraining_seconds: float = 0.0
    from_scratch: bool = False
    failure: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One start, fine-tuned on one task.

    Args:
        start: `Start`.
        task: string.
        settings: `Adaptation`.
        data: names to JSON values: what decides which data the task has.
    """

    start: Start
    task: str
    settings: Adaptation
    data: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Row, seed, task and the hash of everything that decides the figures."""
        content = {
            "start": self.start.identity,
            "seed": self.start.seed,
            "from_scratch": self.start.from_scratch,
            "task": self.task,
            "settings": dataclasses.asdict(self.settings),
            **self.data,
        }
        row, task = file_name(self.start.row), file_name(self.task)
        return f"{row}-{self.start.seed}-{task}-{digest(content)}"


def digest(content: Mapping[str, Any]) -> str:
    """Tells what is computed from all else: eight characters of the hash of what decides it.

    Args:
        content: names to JSON values. The backend is added.
    """
    text = json.dumps({**content, "backend": keras.backend.backend()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def compute_cells(
    cells: Sequence[Cell],
    directory: Path,
    compute: Callable[[Cell], dict[str, Any]],
    is_whole: Callable[[Cell], bool] = lambda cell: True,
    check: Callable[[Collection[str]], None] = lambda tasks: None,
) -> list[str]:
    """Computes what is not finished. Failed cells are marked, and tried again the next time.

    A cell may fail with any exception; the others go on. Its traceback is kept in
    `cells/<key>.traceback.txt`. A cell that cannot be read is not finished.

    Args:
        cells: sequence of `Cell`.
        directory: the folder. A cell is `cells/<key>.json` in it, written when it is finished.
        compute: from a cell to its figures: "scores", "trivial", "seconds" and others.
        is_whole: whether the files that a finished cell leaves beside its figures are there.
        check: refuses tasks whose data are not there, before the first cell.

    Returns:
        list of strings, the keys of the cells.

    Raises:
        ValueError: the folder cannot be written to.
    """
    check_names("Rows and tasks", [name for one in cells for name in (one.start.row, one.task)])
    make_folder(directory)
    distribution.check_alike("settings and data", {"cells": [cell.key for cell in cells]})
    with distribution.main_first():  # it alone writes
        to_do = [cell for cell in cells if not (_is_finished(directory, cell) and is_whole(cell))]
    distribution.barrier()
    check(dict.fromkeys(cell.task for cell in to_do))
    done, failed = len(cells) - len(to_do), 0
    with progress_bars() as progress:
        bar = progress.add_task("fine-tuning, cells", total=len(cells), completed=done, figures="")
        for cell in to_do:
            with _bar_of(cell, progress):
                failed += not _compute(cell, directory, compute)
            figures = f"{failed} failed" if failed else ""
            progress.update(bar, advance=1, figures=figures)
    return [cell.key for cell in cells]


def load_results(
    directory: Path, keys: Iterable[str], select: str = "last"
) -> list[DownstreamResult]:
    """Reads cells.

    Args:
        directory: the folder that `compute_cells` wrote to.
        keys: the keys of the cells.
        select: "last" or "best": the epoch whose scores are taken.

    Returns:
        list of `DownstreamResult`.

    Raises:
        DamagedFileError: a cell is not what `compute_cells` writes.
        ValueError: a key leads out of the folder.
    """
    results = []
    for key in keys:
        try:
            content = _read(directory, key)
        except FileNotFoundError as error:
            raise damaged(cell_path(directory, key), "a finished cell", "no file") from error
        results.append(
            DownstreamResult(
                content["row"],
                content["seed"],
                content["task"],
                content["scores"].get(select, {}),
                content["trivial"],
                seconds=content["seconds"],
                pretraining_seconds=content["pretraining_seconds"],
                failure=content["failure"],
                environment=content["environment"],
            )
        )
    return results


def cell_path(directory: Path, key: str) -> Path:
    """Where a cell is."""
    return path_to_write(directory, f"cells/{key}.json")


@contextlib.contextmanager
def _bar_of(cell, progress):
    """Shows the steps of a cell while it is computed."""
    label = f"{cell.task}, {cell.start.row}, seed {cell.start.seed}"
    bar = progress.add_task(label, total=None, figures="")

    def show(done, steps, loss):
        progress.update(bar, completed=done, total=steps, figures=f"loss {loss:.3f}")

    try:
        with watched_by(show):
            yield
    finally:
        progress.remove_task(bar)


def _compute(cell, directory, compute):
    """Whether it did not fail."""
    began = time.perf_counter()
    content: dict[str, Any] = {}
    with tried(directory, f"cells/{cell.key}.traceback.txt", _hint(cell)) as failure:
        if cell.start.failure:
            raise ValueError(cell.start.failure)
        content = compute(cell)
    if failure.reason:
        content = {"failure": failure.reason, "seconds": time.perf_counter() - began}
    content |= {
        "row": cell.start.row,
        "seed": cell.start.seed,
        "task": cell.task,
        "pretraining_seconds": cell.start.pretraining_seconds,
        "settings": dataclasses.asdict(cell.settings),
        "environment": environment(),
    }
    if distribution.is_main():
        text = json.dumps(content, indent=1)
        write_atomically(cell_path(directory, cell.key), text.encode())
    return not failure.reason


def _hint(cell):
    return (
        "--batch-size of `taskrobust finetune` or `inherit`, which is "
        f"{cell.settings.batch_size} here"
    )


def _is_finished(directory: Path, cell: Cell) -> bool:
    try:
        content = _read(directory, cell.key)
    except FileNotFoundError:
        return False
    except DamagedFileError as error:
        warnings.warn(f"A cell is computed again. {error}", stacklevel=4)
        return False
    stored = (content["row"], content["seed"], content["task"])
    return not content["failure"] and stored == (cell.start.row, cell.start.seed, cell.task)


def _read(directory: Path, key: str) -> dict[str, Any]:
    path = cell_path(directory, key)
    content = read_object(path, _FIELDS, _DEFAULTS)
    if not (content["failure"] or all(content["scores"].get(name) for name in ("last", "best"))):
        raise damaged(path, 'a `failure`, or `scores` of "last" and "best"', "neither")
    return content
