"""What figures are computed with stays beside them, whatever draws the report later."""

import json

import keras
import numpy as np

from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.evaluation import TaskScores, drawing
from keras_taskrobust.recipes import cells, environment, training_run
from keras_taskrobust.recipes.reporting import Manifest, draw, save_and_draw

FIGURES = {
    "scores": {name: {"accuracy": 0.75} for name in ("last", "best")},
    "trivial": {"accuracy": 0.5},
    "seconds": 1.0,
}


def compute(directory, task, monkeypatch, version):
    monkeypatch.setattr(keras, "__version__", version)
    start = cells.Start("mine", 0, "preset", "identity")
    cell = cells.Cell(start, task, FineTuning(), {})
    return cells.compute_cells([cell], directory, lambda one: dict(FIGURES))


def test_it_names_backend_device_and_versions():
    found = environment.environment()
    assert set(found) == {"backend", "device", "versions"}
    assert found["backend"].split()[0] == keras.backend.backend()
    assert f"Keras {keras.__version__}" in found["versions"]


def test_a_report_shows_the_versions_of_each_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "DOTS_PER_INCH", 40)
    keys = compute(tmp_path, "RTE", monkeypatch, "8.8.8")
    save_and_draw(Manifest("Title", {"a": "b"}, cells=keys), tmp_path)
    monkeypatch.setattr(keras, "__version__", "9.9.9")
    draw(tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "Keras 8.8.8" in report
    assert "9.9.9" not in report
    assert "not all computed with the same" not in report

    keys += compute(tmp_path, "CoLA", monkeypatch, "9.9.9")
    save_and_draw(Manifest("Title", {"a": "b"}, cells=keys), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "not all computed with the same backend, device and versions" in report
    table = report.split("Computed with")[-1]
    for task, version in (("RTE", "8.8.8"), ("CoLA", "9.9.9")):
        (line,) = (line for line in table.splitlines() if f"{task}, mine, seed 0" in line)
        assert f"Keras {version}" in line

    path = tmp_path / "cells" / f"{keys[0]}.json"
    content = json.loads(path.read_text())
    del content["environment"]  # a cell from before it was recorded
    path.write_text(json.dumps(content))
    draw(tmp_path)
    table = (tmp_path / "report.md").read_text().split("Computed with")[-1]
    (line,) = (line for line in table.splitlines() if "RTE, mine, seed 0" in line)
    assert "not recorded" in line


def test_a_run_records_what_it_was_computed_with(tmp_path, monkeypatch):
    (tmp_path / "recipe.json").write_text('{"seed": 0, "steps": 2, "steps_per_report": 2}')
    (tmp_path / "history.csv").write_text("epoch,worst_loss\n0,1.0\n")
    scores = TaskScores(("a", "b"), np.ones((2, 2)), np.ones((2, 2)))
    monkeypatch.setattr(keras, "__version__", "8.8.8")
    training_run.finish_run(tmp_path, scores, 1.0)
    monkeypatch.setattr(keras, "__version__", "9.9.9")
    assert "Keras 8.8.8" in training_run.load_run(tmp_path, "mine").environment["versions"]
    (tmp_path / "finished.json").write_text('{"seconds": 1.0}')
    assert training_run.load_run(tmp_path, "mine").environment == {}
