"""ImageNet-RIB's protocol on pre-trained models: how much robustness fine-tuning leaves."""

import abc
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.downstream.finetuning_run import head_variables
from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.evaluation.arrays import read_arrays
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.environments import environments
from keras_taskrobust.evaluation.inheritance import Inheritance, measure_inheritance
from keras_taskrobust.evaluation.inheritance_report import Failure, write_inheritance_report
from keras_taskrobust.files import path_to_write, write_atomically
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.cells import (
    Cell,
    Start,
    compute_cells,
    load_results,
    special_settings,
    starts_from_presets,
)

BEFORE = "before"
#: Settings of fine-tuning that are not those of the head.
_OF_A_METHOD = ("strength", "fisher_examples", "lora_rank", "wise_share", "soup_size", "soup")


@dataclasses.dataclass(frozen=True)
class RelatedTasks(abc.ABC):
    """Tasks that share a label space. Subclasses train on them.

    Args:
        tasks: the names of two or more.
        head_task: string, the task that the head is trained on beforehand.
        settings: `Adaptation`. `probe_epochs` and `probe_learning_rate` are those of the head.

    Raises:
        ValueError: there are fewer than two, or a name twice.
    """

    tasks: tuple[str, ...]
    head_task: str
    settings: Any

    def __post_init__(self):
        checks.distinct("tasks", self.tasks, least=2)

    #: Further settings that differ for the head.
    probe_changes: ClassVar[Mapping[str, Any]] = {}

    @property
    def probe(self) -> Adaptation:
        """The settings that the head is trained with, the encoder being frozen."""
        settings = self.settings
        defaults = {field.name: field.default for field in dataclasses.fields(Adaptation)}
        return dataclasses.replace(
            settings,
            method="linear_probe",
            epochs=settings.probe_epochs,
            learning_rate=settings.probe_learning_rate,
            **{name: defaults[name] for name in _OF_A_METHOD},
            **self.probe_changes,
        )

    @property
    @abc.abstractmethod
    def data(self) -> Mapping[str, Any]:
        """Names to JSON values: what decides which data the tasks have."""

    @abc.abstractmethod
    def finetune(
        self, start: Start, task: str, settings: Any, head: Sequence[np.ndarray] | None
    ) -> tuple[Any, Any]:
        """Fine-tunes a start on a task.

        Args:
            start: `Start`.
            task: string.
            settings: `Adaptation`.
            head: as `finetune_text` and `finetune_images` take it.

        Returns:
            What they return, and the trained model.
        """

    @abc.abstractmethod
    def score(self, model: Any, start: Start, task: str) -> float:
        """The metric of a trained model on a task's held-out examples."""


@dataclasses.dataclass(frozen=True)
class Inherited:
    """What fine-tuning left.

    Attributes:
        results: rows of the report to seeds to `Inheritance`.
        failures: `(row, seed, task, reason)` of the cells that failed.
    """

    results: Mapping[str, Mapping[int, Inheritance]]
    failures: Sequence[Failure]


@locks_directory
def inherit(
    presets: Mapping[str, str],
    seeds: Sequence[int],
    related: RelatedTasks,
    directory: Path,
    settings: Mapping[str, str],
    select: str = "last",
) -> Inherited:
    """Runs the protocol and writes a report.

    For each preset and seed a head is trained beforehand on the frozen encoder; then the model is
    fine-tuned on each task from this start, and scored on all. Finished cells are kept, and failed
    ones tried again.

    Args:
        presets: rows of the report to presets.
        seeds: each fixes the head's initial weights, the order and dropout.
        related: `RelatedTasks`.
        directory: the folder for the report, the cells and the heads.
        settings: lines of the report's table of settings.
        select: "last" or "best": the weights of a run that are scored.

    Returns:
        `Inherited`.

    Raises:
        ValueError: of no preset and seed all cells are finished, or another process is in the
            folder.
    """
    starts = starts_from_presets(presets, seeds, from_scratch=False)
    data = {**related.data, "head_task": related.head_task, "tasks": sorted(related.tasks)}
    heads = [Cell(start, BEFORE, related.probe, data) for start in starts]
    cells = [
        Cell(head.start, task, related.settings, {**data, "head": head.key})
        for task in related.tasks
        for head in heads
    ]
    keys = compute_cells(
        [*heads, *cells],
        directory,
        lambda cell: _compute(cell, related, directory),
        lambda cell: cell.task != BEFORE or _read_head(directory, cell.key) is not None,
    )
    results = load_results(directory, keys, select)
    inherited = _gather(results, related.tasks)
    if not inherited.results:
        raise ValueError(
            f"Nothing is finished in {directory}. Received: {inherited.failures[0][3]}"
        )
    lines = {
        "presets": ", ".join(f"{row}: {preset}" for row, preset in presets.items()),
        **settings,
        "head": f"trained beforehand on {related.head_task}, {related.probe.epochs} epochs at "
        f"{related.probe.learning_rate:g}, the encoder frozen",
        "method of fine-tuning": special_settings(related.settings),
        "scores": f"of the {select} weights",
    }
    write_inheritance_report(
        inherited.results,
        directory,
        "What fine-tuning leaves of related tasks",
        lines,
        inherited.failures,
        environments(results=results),
    )
    return inherited


def _compute(cell: Cell, related: RelatedTasks, directory: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(cell.start.seed)
    is_head = cell.task == BEFORE
    head = None if is_head else _load_head(directory, cell.data["head"])
    task = related.head_task if is_head else cell.task
    result, model = related.finetune(cell.start, task, cell.settings, head)
    chosen = {"last": result.weights["last"]} if is_head else result.weights
    scores = {}
    for name, weights in chosen.items():
        model.set_weights(weights)
        scores[name] = {task: related.score(model, cell.start, task) for task in related.tasks}
    if is_head:
        scores["best"] = scores["last"]
        _save_head(directory, cell.key, model)
    return {"scores": scores, "history": result.history, "seconds": result.seconds}


def _save_head(directory, key, model):
    file = io.BytesIO()
    np.savez(file, *(keras.ops.convert_to_numpy(one) for one in head_variables(model)))
    write_atomically(_head_path(directory, key), file.getvalue())


def _load_head(directory, key) -> list[np.ndarray]:
    head = _read_head(directory, key)
    if head is None:
        raise ValueError(
            "The head must be trained before a task is fine-tuned on. "
            f"Received: no whole {key}.npz; its cell failed"
        )
    return head


def _read_head(directory, key) -> list[np.ndarray] | None:
    """The arrays of a head, `None` if there are none that can be read."""
    try:
        arrays = read_arrays(_head_path(directory, key))
        return [arrays[f"arr_{index}"] for index in range(len(arrays))]
    except (FileNotFoundError, ValueError, LookupError):
        return None


def _head_path(directory: Path, key: str) -> Path:
    return path_to_write(directory, f"heads/{key}.npz")


def _gather(results: Sequence[DownstreamResult], tasks: Sequence[str]) -> Inherited:
    of_start: dict[tuple[str, int], dict[str, Mapping[str, float]]] = {}
    for one in results:
        of_start.setdefault((one.weighting, one.seed), {})[one.task] = one.scores
    found: dict[str, dict[int, Inheritance]] = {}
    for (row, seed), scores in of_start.items():
        if all(scores.values()):
            found.setdefault(row, {})[seed] = measure_inheritance(
                tasks, scores[BEFORE].__getitem__, functools.partial(_scores_after, scores)
            )
    failures = [(one.weighting, one.seed, one.task, one.failure) for one in results if one.failure]
    return Inherited(found, failures)


def _scores_after(scores, task):
    return scores[task].__getitem__
