"""Fine-tuning pre-trained BERTs on text tasks: a grid of cells, each computed once."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keras_taskrobust.downstream import text_task
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text_finetuning import (
    EncodedTask,
    FineTuned,
    encode_task,
    finetune_text,
    open_bert,
)
from keras_taskrobust.downstream.text_task import TextTask
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.files import write_atomically
from keras_taskrobust.recipes.comparison import FAILURES, file_name, reason

GLUE = FineTuning()
SMALL = FineTuning(learning_rate=5e-4, weight_decay=0.01, warmup_share=0.1, epochs=5, max_steps=500)
FINETUNING_RECIPES = {
    "glue": (
        "Wang et al. 2023: AdamW 2e-5, batch 32, weight decay 0.1, linear decay, 6 % warm-up. The "
        "number of epochs is not given there and is ours.",
        GLUE,
    ),
    "small": ("For models of a few layers: 5e-4, at most 500 steps.", SMALL),
}


@dataclasses.dataclass(frozen=True)
class Start:
    """Where fine-tuning starts.

    Args:
        row: string. The row of the report.
        seed: int.
        preset: string. Folder, name or URI of a KerasHub BERT preset.
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
    """One start, fine-tuned on one task."""

    start: Start
    task: str
    settings: FineTuning
    data_dir: str | None

    @property
    def key(self) -> str:
        """Row, seed, task and the hash of everything that decides the figures."""
        content = {
            "start": self.start.identity,
            "seed": self.start.seed,
            "from_scratch": self.start.from_scratch,
            "task": self.task,
            "settings": dataclasses.asdict(self.settings),
            "data_dir": self.data_dir,
            "backend": keras.backend.backend(),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{file_name(self.start.row)}-{self.start.seed}-{self.task}-{digest}"


def start_from_preset(row: str, seed: int, preset: str) -> Start:
    """The start from a finished preset, known by the content of its files.

    Args:
        row: string. The row of the report.
        seed: int.
        preset: string. Folder, name or URI of a KerasHub BERT preset.

    Returns:
        `Start`.
    """
    folder = Path(preset)
    digest = hashlib.sha256(str(preset).encode())
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return Start(row, seed, preset, digest.hexdigest())


def finetune_cells(
    starts: Sequence[Start],
    tasks: Sequence[str],
    settings: FineTuning,
    directory: Path,
    data_dir: str | None = None,
) -> list[str]:
    """Fine-tunes every start on every task. Finished cells are kept; failed ones tried again.

    A cell is `cells/<key>.json` in the folder, written when it is finished; predictions lie in
    `predictions/<row>/seed-<seed>/`, those for test sets in the format that GLUE's site takes.

    Args:
        starts: the starts.
        tasks: names of text tasks.
        settings: `FineTuning`.
        directory: the folder.
        data_dir: folder of GLUE's tables, or `None` for TFDS.

    Returns:
        list of strings, the keys of the cells.
    """
    cells = [Cell(start, task, settings, data_dir) for task in tasks for start in starts]
    to_do = [cell for cell in cells if not _is_finished(directory, cell)]
    with _progress() as progress:
        bar = progress.add_task("fine-tuning", total=len(cells), figures="")
        progress.advance(bar, len(cells) - len(to_do))
        encoded = _EncodedTasks(settings, data_dir)
        for cell in to_do:
            label = f"{cell.task}, {cell.start.row}, seed {cell.start.seed}"
            progress.update(bar, figures=label)
            _compute(cell, directory, encoded)
            progress.advance(bar)
    return [cell.key for cell in cells]


def load_results(
    directory: Path, keys: Iterable[str], select: str = "last"
) -> list[DownstreamResult]:
    """Reads cells.

    Args:
        directory: the folder that `finetune_cells` wrote to.
        keys: the keys of the cells.
        select: "last" or "best": the epoch whose scores are taken.

    Returns:
        list of `DownstreamResult`.
    """
    results = []
    for key in keys:
        content = json.loads(_cell_path(directory, key).read_text())
        results.append(
            DownstreamResult(
                content["row"],
                content["seed"],
                content["task"],
                content.get("scores", {}).get(select, {}),
                content.get("trivial", {}),
                seconds=content["seconds"],
                pretraining_seconds=content["pretraining_seconds"],
                failure=content.get("failure", ""),
            )
        )
    return results


class _EncodedTasks:
    """The data of the task at hand, tokenized once a vocabulary."""

    def __init__(self, settings: FineTuning, data_dir: str | None):
        self._settings = settings
        self._data_dir = data_dir
        self._task = ""
        self._data: Any = None
        self._encoded: dict[tuple, EncodedTask] = {}

    def get(self, task: TextTask, encoder, positions: int) -> EncodedTask:
        if task.name != self._task:
            self._encoded.clear()
            self._data = task.load(self._data_dir)
            self._task = task.name
        key = (encoder.hash, positions)
        if key not in self._encoded:
            self._encoded[key] = encode_task(self._data, encoder, positions, self._settings)
        return self._encoded[key]


def _compute(cell: Cell, directory: Path, encoded: _EncodedTasks) -> None:
    began = time.perf_counter()
    task = text_task(cell.task)
    try:
        if cell.start.failure:
            raise ValueError(cell.start.failure)
        keras.utils.set_random_seed(cell.start.seed)
        backbone, encoder = open_bert(
            cell.start.preset, cell.settings.dtype_policy, cell.start.from_scratch
        )
        data = encoded.get(task, encoder, backbone.max_sequence_length)
        result = finetune_text(backbone, task, data, cell.settings, cell.start.seed)
        _write_predictions(cell, task, data, result, directory)
        content: dict[str, Any] = {
            "scores": result.scores,
            "test_scores": result.test_scores,
            "trivial": result.trivial_scores,
            "history": result.history,
            "seconds": result.seconds,
        }
    except FAILURES as error:
        content = {"failure": reason(error)}
        content["seconds"] = time.perf_counter() - began
    content |= {
        "row": cell.start.row,
        "seed": cell.start.seed,
        "task": cell.task,
        "pretraining_seconds": cell.start.pretraining_seconds,
        "settings": dataclasses.asdict(cell.settings),
    }
    text = json.dumps(content, indent=1)
    write_atomically(_cell_path(directory, cell.key), text.encode())


def _write_predictions(
    cell: Cell, task: TextTask, data: EncodedTask, result: FineTuned, directory: Path
) -> None:
    folder = directory / "predictions" / file_name(cell.start.row) / f"seed-{cell.start.seed}"
    splits: Mapping[str, tuple] = {
        **{
            f"{task.name}-{split}": (data.dev[split], predictions)
            for split, predictions in result.dev_predictions.items()
        },
        **{
            file: (data.test[file], predictions)
            for file, predictions in result.test_predictions.items()
        },
    }
    for name, ((_, examples), predictions) in splits.items():
        lines = task.prediction_lines(name, predictions)
        rows = [f"{index}\t{line}" for index, line in zip(examples.ids, lines, strict=True)]
        text = "".join(f"{row}\n" for row in ["index\tprediction", *rows])
        write_atomically(folder / f"{name}.tsv", text.encode())


def _is_finished(directory: Path, cell: Cell) -> bool:
    path = _cell_path(directory, cell.key)
    return path.exists() and "failure" not in json.loads(path.read_text())


def _cell_path(directory: Path, key: str) -> Path:
    return directory / "cells" / f"{key}.json"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
