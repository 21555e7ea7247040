"""A new kind of downstream task is one class: a stub of one goes through all that there is."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from keras_taskrobust import cli
from keras_taskrobust.downstream import text
from keras_taskrobust.downstream.finetuning_run import FineTuned
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.tasks import TaskFamily
from keras_taskrobust.recipes.finetuning import finetune
from keras_taskrobust.recipes.inheritance import inherit

pytestmark = pytest.mark.backend_free

PRESETS = {"mine": "preset"}
BOTH = ("last", "best")


class Model:
    """All of it is its head."""

    backbone = SimpleNamespace(weights=())

    def set_weights(self, weights):
        self.weights = weights


@dataclasses.dataclass(frozen=True)
class StubTasks(TaskFamily):
    """Tasks without data, whose figures need no training."""

    calls: Counter = dataclasses.field(default_factory=Counter)
    errors: Mapping[str, BaseException] = dataclasses.field(default_factory=dict)

    def identity(self, task):
        return {"letters": task}

    def open(self, preset, from_scratch=False):
        return preset

    def finetune(self, opened, task, settings, seed, head=None):
        name = "head" if settings.method == "linear_probe" else task
        self.calls[name] += 1
        if name in self.errors:
            raise self.errors[name]
        scores = {epoch: {"accuracy": 0.75 + seed / 8} for epoch in BOTH}
        further = {"letters": {epoch: {"vowels": 1.0} for epoch in BOTH}}
        trained = np.arange(3.0) if head is None else head[0] + len(opened) + seed
        weights = {epoch: [trained] for epoch in BOTH}
        return FineTuned(Model(), [], scores, further, {"accuracy": 0.5}, {}, {}, weights, 1.0)

    def score(self, model, opened, task):
        return float(model.weights[0].sum()) / 10

    def describe(self):
        return {"letters": ", ".join(self.tasks)}

    def files(self, result, opened, task):
        return {f"{epoch}/{task}.tsv": f"{epoch} of {task}" for epoch in BOTH}


@pytest.fixture
def stub():
    return StubTasks(("a", "b"), FineTuning())


@pytest.fixture
def killed(stub):
    """The same tasks, at the second of which the process is stopped."""
    return dataclasses.replace(stub, calls=Counter(), errors={"b": KeyboardInterrupt()})


def read_cells(folder):
    """Those of a folder, by task and seed, without their times."""
    cells = [json.loads(path.read_text()) for path in folder.glob("cells/*.json")]
    return {
        (cell["task"], cell["seed"]): {k: v for k, v in cell.items() if "seconds" not in k}
        for cell in cells
    }


def test_a_new_kind_of_task_is_fine_tuned_and_reported(stub, tmp_path):
    drawn = finetune(PRESETS, (0,), stub, tmp_path, select="best")
    assert stub.calls == {"a": 2, "b": 2}  # from scratch, too
    assert {one.scores["accuracy"] for one in drawn.results} == {0.75}
    assert read_cells(tmp_path)["a", 0]["letters"]["last"] == {"vowels": 1.0}
    report = (tmp_path / "report.md").read_text()
    assert "# Fine-tuning on downstream tasks" in report
    assert "| letters | a, b |" in report
    assert "| scores | of the best epoch |" in report
    published = tmp_path / "predictions" / "mine" / "seed-0" / "a.tsv"
    assert published.read_text() == "best of a"
    finetune(PRESETS, (0,), stub, tmp_path, select="best")
    assert stub.calls.total() == 4


def test_a_killed_grid_goes_on_to_the_same_cells(stub, killed, tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    finetune(PRESETS, (0, 1), stub, whole, from_scratch=False)
    with pytest.raises(KeyboardInterrupt):
        finetune(PRESETS, (0, 1), killed, folder, from_scratch=False)
    stub.calls.clear()
    finetune(PRESETS, (0, 1), stub, folder, from_scratch=False)
    assert stub.calls == {"b": 2}
    assert read_cells(folder) == read_cells(whole)


def test_a_missing_package_leaves_the_other_cells(stub, tmp_path):
    error = ModuleNotFoundError("No module named 'missing'")
    broken = dataclasses.replace(stub, errors={"b": error})
    drawn = finetune(PRESETS, (0,), broken, tmp_path, from_scratch=False)
    assert [one.failure for one in drawn.results] == ["", str(error)]


def test_a_new_kind_of_task_inherits(stub, tmp_path):
    found = inherit(PRESETS, (0, 1), stub, tmp_path)
    assert stub.calls == {"head": 2, "a": 2, "b": 2}
    np.testing.assert_allclose(found.results["mine"][1].before, 0.3)
    np.testing.assert_allclose(found.results["mine"][1].after, 0.3 + 3 * (len("preset") + 1) / 10)
    assert "trained beforehand on a, 1 epochs" in (tmp_path / "report.md").read_text()
    with pytest.raises(ValueError, match="`tasks` must be two or more different values"):
        inherit(PRESETS, (0,), dataclasses.replace(stub, tasks=("a",)), tmp_path)


def test_a_damaged_head_is_trained_again(stub, tmp_path):
    inherit(PRESETS, (0,), stub, tmp_path)
    (path,) = (tmp_path / "heads").iterdir()
    for damage in (path.read_bytes()[:50], b""):
        stub.calls.clear()
        path.write_bytes(damage)
        found = inherit(PRESETS, (0,), stub, tmp_path)
        assert (stub.calls, found.failures) == ({"head": 1}, [])


def test_a_head_that_is_gone_is_trained_again(stub, tmp_path):
    whole = inherit(PRESETS, (0,), stub, tmp_path)
    (head,) = (tmp_path / "heads").iterdir()
    head.unlink()
    (cell,) = (tmp_path / "cells").glob("mine-0-b-*.json")
    cell.unlink()
    stub.calls.clear()
    again = inherit(PRESETS, (0,), stub, tmp_path)
    assert stub.calls == {"head": 1, "b": 1}
    assert not again.failures
    np.testing.assert_array_equal(again.results["mine"][0].after, whole.results["mine"][0].after)


def test_a_killed_inheritance_goes_on(stub, killed, tmp_path):
    whole = inherit(PRESETS, (0,), stub, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        inherit(PRESETS, (0,), killed, tmp_path / "killed")
    assert killed.calls == {"head": 1, "a": 1, "b": 1}
    stub.calls.clear()
    again = inherit(PRESETS, (0,), stub, tmp_path / "killed")
    assert stub.calls == {"b": 1}
    np.testing.assert_array_equal(again.results["mine"][0].after, whole.results["mine"][0].after)


def test_a_start_with_a_failed_cell_has_no_figures(stub, tmp_path):
    broken = dataclasses.replace(stub, errors={"b": KeyError("it broke")})
    with pytest.raises(ValueError, match="Nothing is finished .* Received: KeyError: 'it broke'"):
        inherit(PRESETS, (0,), broken, tmp_path)
    assert broken.calls == {"head": 1, "a": 1, "b": 1}


@pytest.mark.parametrize(
    ("command", "name"), [("finetune", "TextTasks"), ("inherit", "RelatedTexts")]
)
def test_commands_exit_with_the_status_of_failed_parts(
    command, name, stub, tmp_path, monkeypatch, capsys
):
    def open_preset(family, preset, from_scratch=False):
        if preset == "none":
            raise ValueError("It is no preset.")
        return preset

    monkeypatch.setattr(StubTasks, "open", open_preset)
    monkeypatch.setattr(text, name, lambda *arguments, **options: stub)
    words = [command, "text", "small", "--preset", "whole", "none", "--output", str(tmp_path)]
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert error.value.code == 3
    captured = capsys.readouterr()
    assert "It is no preset." in captured.out
    assert "runs or cells failed" in captured.err
    assert "3, done and reported" in cli.HELP


def test_data_are_prepared_once_and_kept_while_they_are_needed(stub):
    made = []

    def prepared(family, task, form):
        return family.once(task, form, lambda: made.append((task, form)) or len(made))

    calls = [("a", 1), ("a", 2), ("a", 1), ("b", 1), ("b", 1), ("a", 1)]
    assert [prepared(stub, *call) for call in calls] == [1, 2, 1, 3, 3, 4]

    class All(StubTasks):
        keeps_all = True

    made.clear()
    family = All(("a", "b"), FineTuning())
    assert [prepared(family, *call) for call in calls] == [1, 2, 1, 3, 3, 1]


def test_predictions_are_on_the_disk_once(stub, tmp_path):
    class Same(StubTasks):
        def files(self, result, opened, task):
            return {f"{epoch}/{task}.tsv": "the same" for epoch in BOTH}

    finetune(PRESETS, (0,), Same(("a", "b"), FineTuning()), tmp_path, from_scratch=False)
    paths = list(tmp_path.rglob("a.tsv"))
    assert {path.read_text() for path in paths} == {"the same"}
    assert len(paths) == 3  # of the last and the best epoch, and as the report shows it
    assert len({path.stat().st_ino for path in paths}) == 1


def test_the_guide_is_of_what_is_there(stub, tmp_path):
    finetune(PRESETS, (0,), stub, tmp_path / "tuned")
    inherit(PRESETS, (0,), stub, tmp_path / "inherited")
    tuned, inherited = (
        (tmp_path / name / "README.txt").read_text() for name in ("tuned", "inherited")
    )
    assert tuned.startswith("Read first:\n  report.html ")
    assert inherited.startswith("Read first:\n  report.html ")
    assert "predictions" in tuned
    assert "inheritance.csv" not in tuned
    assert "heads" in inherited
    assert "checkpoint" not in inherited
    known = {line.split()[0] for line in tuned.splitlines() if line.startswith("  ")}
    present = {path for path in (tmp_path / "tuned").iterdir() if not path.name.startswith(".")}
    assert all(any(path.match(name) for name in known | {"README.txt"}) for path in present)
