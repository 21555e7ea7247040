"""ImageNet-RIB's protocol on pre-trained models: how much robustness fine-tuning leaves."""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.downstream.finetuning_run import head_variables
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.evaluation.arrays import read_arrays
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.environments import environments
from keras_taskrobust.evaluation.inheritance import Inheritance, measure_inheritance
from keras_taskrobust.evaluation.inheritance_report import Failure, write_inheritance_report
from keras_taskrobust.files import path_to_write, write_atomically
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.cells import Cell, compute_cells, load_results
from keras_taskrobust.recipes.guide import write_guide
from keras_taskrobust.recipes.starts import starts_from_presets

BEFORE = "before"


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
    family: TaskFamily,
    directory: Path,
    select: str = "last",
) -> Inherited:
    """Runs the protocol and writes a report.

    For each preset and seed a head is trained beforehand on the frozen encoder; then the model is
    fine-tuned on each task from this start, and scored on all. Finished cells are kept, and failed
    ones tried again.

    Args:
        presets: rows of the report to presets.
        seeds: each fixes the head's initial weights, the order, augmentation and dropout.
        family: `TaskFamily` whose tasks share a label space, such as `RelatedTexts` or
            `RelatedImages`.
        directory: the folder for the report, the cells and the heads.
        select: "last" or "best": the weights of a run that are scored.

    Returns:
        `Inherited`.

    Raises:
        ValueError: there are fewer than two tasks, of no preset and seed all cells are finished,
            or another process is in the folder.
    """
    checks.distinct("tasks", family.tasks, least=2)
    starts = starts_from_presets(presets, seeds, family, from_scratch=False)
    probe = family.settings.probe
    among = {"head_task": family.head_task, "tasks": sorted(family.tasks)}
    of_head = {**family.identity(family.head_task), **among}
    heads = [Cell(start, BEFORE, probe, of_head) for start in starts]
    cells = [
        Cell(head.start, task, family.settings, {**data, **among, "head": head.key})
        for task, data in ((task, family.identity(task)) for task in family.tasks)
        for head in heads
    ]
    keys = compute_cells(
        [*heads, *cells],
        directory,
        lambda cell: _compute(cell, family, directory),
        lambda cell: cell.task != BEFORE or _read_head(directory, cell.key) is not None,
        lambda tasks: family.check([*family.tasks, family.head_task] if tasks else []),
    )
    results = load_results(directory, keys, select)
    inherited = _gather(results, family.tasks)
    if not inherited.results:
        raise ValueError(
            f"Nothing is finished in {directory}. Received: {inherited.failures[0][3]}"
        )
    lines = {
        "presets": ", ".join(f"{row}: {preset}" for row, preset in presets.items()),
        **family.describe(),
        "head": f"trained beforehand on {family.head_task}, {probe.epochs} epochs at "
        f"{probe.learning_rate:g}, the encoder frozen",
        "method of fine-tuning": family.settings.method_in_words(),
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
    write_guide(directory)
    return inherited


def _compute(cell: Cell, family: TaskFamily, directory: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(cell.start.seed)
    is_head = cell.task == BEFORE
    head = None if is_head else _load_head(directory, cell.data["head"])
    task = family.head_task if is_head else cell.task
    opened = family.open(cell.start.preset)
    result = family.finetune(opened, task, cell.settings, cell.start.seed, head)
    model = result.model
    chosen = {"last": result.weights["last"]} if is_head else result.weights
    scores = {}
    for name, weights in chosen.items():
        model.set_weights(weights)
        scores[name] = {task: family.score(model, opened, task) for task in family.tasks}
    if is_head:
        scores["best"] = scores["last"]
        _save_head(directory, cell.key, model)
    return {"scores": scores, "history": result.history, "seconds": result.seconds}


def _save_head(directory, key, model):
    file = io.BytesIO()
    np.savez(file, *(keras.ops.convert_to_numpy(one) for one in head_variables(model)))
    write_atomically(_head_path(directory, key), file.getvalue())


def _load_head(directory: Path, key: str) -> list[np.ndarray]:
    head = _read_head(directory, key)
    if head is None:
        raise ValueError(
            "The head must be trained before a task is fine-tuned on. "
            f"Received: no whole {key}.npz; its cell failed"
        )
    return head


def _read_head(directory: Path, key: str) -> list[np.ndarray] | None:
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
        of_start.setdefault((one.row, one.seed), {})[one.task] = one.scores
    found: dict[str, dict[int, Inheritance]] = {}
    for (row, seed), scores in of_start.items():
        if all(scores.values()):
            found.setdefault(row, {})[seed] = measure_inheritance(
                tasks, scores[BEFORE].__getitem__, functools.partial(_scores_after, scores)
            )
    failures = [(one.row, one.seed, one.task, one.failure) for one in results if one.failure]
    return Inherited(found, failures)


def _scores_after(scores, task):
    return scores[task].__getitem__
