"""The cells of a grid: what fails or is damaged keeps nothing from the others."""

import json
import re
import zipfile
from collections import Counter

import numpy as np
import pytest

from keras_taskrobust import cli
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.recipes import failures
from keras_taskrobust.recipes.cells import Cell, Start, compute_cells, load_results
from keras_taskrobust.recipes.comparison import PlannedRun, pretrain_all
from keras_taskrobust.recipes.failures import is_out_of_memory, reason
from keras_taskrobust.recipes.text_settings import TINY

pytestmark = pytest.mark.backend_free

FIGURES = {
    "scores": {"last": {"accuracy": 0.75}, "best": {"accuracy": 0.75}},
    "trivial": {"accuracy": 0.5},
    "seconds": 1.0,
}


class OpError(Exception):
    """TensorFlow's, which is of no kind but `Exception`."""


class OutOfMemoryError(RuntimeError):
    """PyTorch's, by its name."""


ERRORS = {
    "zip": (zipfile.BadZipFile("File is not a zip file"), "BadZipFile: File is not a zip file"),
    "op": (OpError("it\nbroke"), "OpError: it broke"),
    "key": (KeyError("x"), "KeyError: 'x'"),
    "none": (StopIteration(), "StopIteration"),
    "value": (ValueError("`a` must be 1."), "`a` must be 1."),
    "numpy": (np.linalg.LinAlgError("singular"), "singular"),
}
MEMORY = [
    MemoryError(),
    OutOfMemoryError("CUDA"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000000 bytes."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
    OSError(12, "Cannot allocate memory"),
]


def cells(*tasks, row="uniform"):
    return [Cell(Start(row, 0, "preset", "identity"), task, FineTuning(), {}) for task in tasks]


def failing(errors, calls=None):
    def compute(cell):
        if calls is not None:
            calls[cell.task] += 1
        if cell.task in errors:
            raise errors[cell.task]
        return dict(FIGURES)

    return compute


def test_whatever_fails_is_marked_and_the_rest_goes_on(tmp_path):
    grid = cells(*ERRORS, "sound")
    keys = compute_cells(
        grid, tmp_path, failing({name: error for name, (error, _) in ERRORS.items()})
    )
    results = {one.task: one.failure for one in load_results(tmp_path, keys)}
    assert results == {**{name: text for name, (_, text) in ERRORS.items()}, "sound": ""}
    traces = {path.name: path.read_text() for path in (tmp_path / "cells").glob("*.traceback.txt")}
    assert len(traces) == len(ERRORS)
    assert all("in compute\n    raise errors[cell.task]" in trace for trace in traces.values())
    calls = Counter()
    compute_cells(grid, tmp_path, failing({}, calls))
    assert calls == Counter(list(ERRORS))
    assert not list((tmp_path / "cells").glob("*.traceback.txt"))


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_names_the_flag_to_lower(error, tmp_path, monkeypatch):
    collected = []
    monkeypatch.setattr(failures.gc, "collect", lambda: collected.append(1))
    (result,) = load_results(tmp_path, compute_cells(cells("a"), tmp_path, failing({"a": error})))
    assert re.match(
        r"Out of memory: lower --batch-size of .*which is 32 here\. Rec", result.failure
    )
    planned = PlannedRun("uniform", "runs/a", TINY)
    (trained,) = pretrain_all([planned], tmp_path, lambda *_: failing({"a": error})(cells("a")[0]))
    assert trained.failure.startswith("Out of memory: lower --batch-size, which is 32. Received: ")
    assert len(collected) == 2


def test_what_memory_ended_in_another_error_is_out_of_memory():
    error = ValueError("the layer failed")
    error.__cause__ = MEMORY[2]
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("out of memory is what this text is about"))
    assert len(reason(RuntimeError("x" * 10_000))) < 1100


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interruption_stops_at_once(stop, tmp_path):
    calls = Counter()
    with pytest.raises(stop):
        compute_cells(cells("a", "b"), tmp_path, failing({"a": stop()}, calls))
    assert calls == {"a": 1}


CONTENT = {**FIGURES, "row": "uniform", "seed": 0, "task": "a", "pretraining_seconds": 0.0}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        '{"row": "unif',
        "[]",
        "{}",
        "[" * 100_000,
        *(json.dumps({**CONTENT, name: []}) for name in CONTENT),
        json.dumps({**CONTENT, "scores": {}}),
        json.dumps({**CONTENT, "scores": {"last": {"accuracy": "high"}, "best": {}}}),
    ],
    ids=lambda damage: damage[:60],
)
def test_a_damaged_cell_is_computed_again_and_blocks_no_other(damage, tmp_path):
    first, second = compute_cells(cells("a", "b"), tmp_path, failing({}))
    path = tmp_path / "cells" / f"{first}.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=f"{path} must hold .* Received: .* run it again"):
        load_results(tmp_path, [first, second])
    calls = Counter()
    with pytest.warns(UserWarning, match=f"A cell is computed again. {path} must hold"):
        keys = compute_cells(cells("a", "b"), tmp_path, failing({}, calls))
    assert calls == {"a": 1}
    assert [one.failure for one in load_results(tmp_path, keys)] == ["", ""]


def test_a_run_that_fails_keeps_its_traceback_and_the_others(tmp_path):
    labels = []

    def pretrain(recipe, folder, label):
        labels.append(label)
        if "broken" in label:
            raise OpError("it broke")
        return "a run"

    grid = [PlannedRun(name, f"runs/{name}-0", TINY) for name in ("broken", "sound")]
    broken, sound = pretrain_all(grid, tmp_path, pretrain)
    assert (broken.failure, broken.run) == ("OpError: it broke", None)
    assert (sound.failure, sound.run) == ("", "a run")
    assert labels == ["1/2 broken", "2/2 sound, 1 failed"]
    assert "OpError: it broke" in (tmp_path / "runs" / "broken-0.traceback.txt").read_text()


def test_names_that_no_file_could_give_back_are_refused_first(tmp_path):
    for grid in (cells("a", row=""), cells("a\nb"), cells("a", row="x" * 201)):
        with pytest.raises(ValueError, match="must each be a name"):
            compute_cells(grid, tmp_path / "out", failing({}))
    assert not (tmp_path / "out").exists()


def test_long_and_odd_names_make_files(tmp_path):
    odd = ["..", ".", "a/../../b", "名" * 200, "é" * 200, "é" * 199 + "e", "[red]", "[/x]"]
    keys = [compute_cells(cells(name, row=name), tmp_path, failing({}))[0] for name in odd]
    assert len(set(keys)) == len(odd)
    assert [one.task for one in load_results(tmp_path, keys)] == odd
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]


def test_debug_shows_tracebacks(tmp_path, monkeypatch, capsys, caplog):
    def fail(words, program):
        raise OpError("it broke")

    monkeypatch.setitem(cli.COMMANDS, "report", cli.Command("", fail, (None, None)))
    with pytest.raises(
        SystemExit, match=r"^taskrobust report: OpError: it broke \(--debug shows w"
    ):
        cli.main(["report", "x"])
    with pytest.raises(OpError):
        cli.main(["report", "x", "--debug"])
    with caplog.at_level("DEBUG", "keras_taskrobust"):
        compute_cells(cells("a"), tmp_path, failing({"a": OpError("it broke")}))
    assert "raise errors[cell.task]" in caplog.text
