"""Fine-tuning pre-trained BERTs on text tasks: a grid of cells, each computed once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

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
from keras_taskrobust.recipes.cells import Cell, Start, compute_cells
from keras_taskrobust.recipes.predictions import write_predictions


def finetune_cells(
    starts: Sequence[Start],
    tasks: Sequence[str],
    settings: FineTuning,
    directory: Path,
    data_dir: str | None = None,
) -> list[str]:
    """Fine-tunes every start on every task. Finished cells are kept; failed ones tried again.

    Predictions of the last and the best epoch lie beside each cell, those for test sets in the
    format that GLUE's site takes; the report's are copied to `predictions/<row>/seed-<seed>/`.

    Args:
        starts: the starts.
        tasks: names of text tasks.
        settings: `FineTuning`.
        directory: the folder.
        data_dir: folder of GLUE's tables, or `None` for TFDS.

    Returns:
        list of strings, the keys of the cells.
    """
    data = {"data_dir": data_dir}
    cells = [Cell(start, task, settings, data) for task in tasks for start in starts]
    encoded = _EncodedTasks(settings, data_dir)
    return compute_cells(cells, directory, lambda cell: _compute(cell, directory, encoded))


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


def _compute(cell: Cell, directory: Path, encoded: _EncodedTasks) -> dict[str, Any]:
    task = text_task(cell.task)
    keras.utils.set_random_seed(cell.start.seed)
    backbone, encoder = open_bert(
        cell.start.preset, cell.settings.dtype_policy, cell.start.from_scratch
    )
    data = encoded.get(task, encoder, backbone.max_sequence_length)
    result = finetune_text(backbone, task, data, cell.settings, cell.start.seed)
    _write_predictions(cell, task, data, result, directory)
    return {
        "scores": result.scores,
        "test_scores": result.test_scores,
        "trivial": result.trivial_scores,
        "history": result.history,
        "seconds": result.seconds,
    }


def _write_predictions(
    cell: Cell, task: TextTask, data: EncodedTask, result: FineTuned, directory: Path
) -> None:
    splits = {f"{task.name}-{split}": examples for split, (_, examples) in data.dev.items()}
    splits |= {file: examples for file, (_, examples) in data.test.items()}
    for epoch, dev in result.dev_predictions.items():
        predictions = {f"{task.name}-{split}": found for split, found in dev.items()}
        predictions |= result.test_predictions[epoch]
        texts = {
            name: _prediction_table(splits[name].ids, task.prediction_lines(name, found))
            for name, found in predictions.items()
        }
        write_predictions(directory, cell.key, epoch, texts)


def _prediction_table(ids: Sequence[str], lines: Sequence[str]) -> str:
    rows = [f"{index}\t{line}" for index, line in zip(ids, lines, strict=True)]
    return "".join(f"{row}\n" for row in ["index\tprediction", *rows])
