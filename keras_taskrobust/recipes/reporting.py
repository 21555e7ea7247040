"""What a folder of runs and cells holds, and its report, drawn from that alone."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust import distribution
from keras_taskrobust.evaluation import write_downstream_report, write_report
from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.evaluation.reconstructions import (
    Reconstructions,
    plot_reconstructions_of_runs,
)
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.files import path_inside, write_atomically
from keras_taskrobust.locks import locked
from keras_taskrobust.recipes.cells import cell_path, load_results
from keras_taskrobust.recipes.guide import write_guide
from keras_taskrobust.recipes.predictions import publish_predictions
from keras_taskrobust.recipes.stored import (
    COUNT,
    NAME,
    TEXT,
    damaged,
    list_of,
    mapping_to,
    one_of,
    read_object,
)
from keras_taskrobust.recipes.training_run import RECONSTRUCTIONS, load_run

_MANIFEST = "comparison.json"
_STAGES = {"half_way": "half-way through pre-training", "at_end": "after pre-training"}
_FIELDS = {
    "title": TEXT,
    "settings": mapping_to(TEXT),
    "introduction": TEXT,
    "runs": mapping_to(NAME, keys=TEXT),
    "cells": list_of(TEXT),
    "failures": mapping_to(TEXT, keys=TEXT),
    "minimum_targets": COUNT,
    "select": one_of("last", "best"),
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a report is drawn from.

    Args:
        title: string.
        settings: names to values, shown as a table.
        introduction: string.
        runs: folder of each pre-training run, relative to the report's, to its row.
        cells: keys of the downstream cells.
        failures: row and seed to why the pre-training failed.
        minimum_targets: as in `write_report`.
        select: "last" or "best", the epoch of fine-tuning whose scores are shown.
    """

    title: str
    settings: Mapping[str, str]
    introduction: str = ""
    runs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cells: Sequence[str] = ()
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    minimum_targets: int = 1000
    select: str = "last"


_REQUIRED = ("title", "settings")
_DEFAULTS = {
    name: value
    for name, value in dataclasses.asdict(Manifest("", {})).items()
    if name not in _REQUIRED
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The figures behind a report.

    Attributes:
        manifest: `Manifest`.
        runs: the pre-training runs.
        results: the downstream results.
    """

    manifest: Manifest
    runs: list[Run]
    results: list[DownstreamResult]


def save_and_draw(manifest: Manifest, directory: Path) -> Drawn:
    """Writes `comparison.json` and the report.

    Args:
        manifest: `Manifest`.
        directory: the folder of the runs and cells.

    Returns:
        `Drawn`.
    """
    with distribution.main_first():
        if not distribution.is_main():
            return _read(directory)
        content = json.dumps(dataclasses.asdict(manifest), indent=1)
        write_atomically(directory / _MANIFEST, content.encode())
        return draw(directory)


def draw(directory: Path) -> Drawn:
    """Draws the report of a folder again, with its predictions, computing nothing.

    Args:
        directory: a folder that `taskrobust compare` or `finetune` wrote.

    Returns:
        `Drawn`.

    Raises:
        ValueError: the folder holds no comparison, nothing in it is finished, or another process
            is in it.
    """
    drawn = _read(directory)
    with locked(directory):
        _write(drawn, directory)
    return drawn


def _write(drawn, directory):
    manifest = drawn.manifest
    if drawn.runs:
        write_report(
            drawn.runs,
            directory,
            manifest.title,
            manifest.settings,
            introduction=manifest.introduction,
            minimum_targets=manifest.minimum_targets,
            pictures=_pictures(drawn, directory),
            downstream=drawn.results,
            failures=manifest.failures,
        )
    else:
        write_downstream_report(
            drawn.results, directory, manifest.title, manifest.settings, manifest.introduction
        )
    publish_predictions(directory, manifest.cells, drawn.results, manifest.select)
    write_guide(directory)


def _read(directory):
    path = directory / _MANIFEST
    try:
        content = read_object(path, _FIELDS, _DEFAULTS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"`directory` must be a folder that `taskrobust compare` or `taskrobust finetune` "
            f"wrote, with {_MANIFEST}. Received: {directory}"
        ) from error
    manifest = Manifest(**content)
    runs = [load_run(path_inside(directory, name), row) for name, row in manifest.runs.items()]
    results = load_results(directory, manifest.cells, manifest.select)
    _check_metrics(directory, manifest.cells, results)
    if not runs and not any(one.scores for one in results):
        reasons = [*manifest.failures.values(), *(one.failure for one in results), "no cell"]
        raise ValueError(f"Nothing is finished in {directory}. Received: {reasons[0]}")
    return Drawn(manifest, runs, results)


def _check_metrics(directory, keys, results):
    """All cells of a task must have the same metrics, also those of the trivial baseline."""
    of_task: dict[str, set[str]] = {}
    for key, one in zip(keys, results, strict=True):
        if one.failure:
            continue
        metrics = of_task.setdefault(one.task, set(one.scores))
        for name, found in (("scores", one.scores), ("trivial", one.trivial)):
            if set(found) != metrics:
                expected = f"`{name}` of {', '.join(sorted(metrics))}"
                raise damaged(cell_path(directory, key), expected, ", ".join(found) or "none")


def _pictures(drawn, directory):
    """The reconstructions of all runs of the first seed, side by side."""
    seed = drawn.runs[0].seed
    folders = {
        run.row: directory / folder
        for folder, run in zip(drawn.manifest.runs, drawn.runs, strict=True)
        if run.seed == seed
    }
    pictures = {}
    for stage, text in _STAGES.items():
        name = RECONSTRUCTIONS[stage]
        paths = {row: folder / name for row, folder in folders.items() if (folder / name).exists()}
        if paths:
            picture = directory / name.replace(".npz", ".png")
            painted = {row: Reconstructions.load(path) for row, path in paths.items()}
            plot_reconstructions_of_runs(painted, picture)
            pictures[picture.name] = f"The same held-out images {text}, seed {seed}."
    return pictures
