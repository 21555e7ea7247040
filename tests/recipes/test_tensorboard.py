"""What a run writes for TensorBoard."""

import dataclasses
import math
import sys
import types

import pytest

from keras_taskrobust.recipes import settings
from keras_taskrobust.recipes.tensorboard import TensorBoardLog
from keras_taskrobust.recipes.text_settings import TINY

pytestmark = pytest.mark.backend_free


class Writer:
    """Remembers what the writer of tensorboardX is told."""

    made = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step
        self.charts, self.scalars, self.is_open = None, {}, True
        Writer.made.append(self)

    def add_custom_scalars(self, charts):
        self.charts = charts

    def add_scalar(self, tag, value, step):
        self.scalars[tag, step] = value

    def flush(self):
        pass

    def close(self):
        self.is_open = False


def test_the_tasks_are_together_and_a_shorter_last_report_has_its_step(monkeypatch, tmp_path):
    monkeypatch.setattr(Writer, "made", [])
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    log = TensorBoardLog(tmp_path, steps_per_report=10, steps=25, done=10)
    log.set_model(types.SimpleNamespace(task_names=("noun", "worst")))
    for epoch in (1, 2):  # the shorter one is a `fit` of its own
        log.on_train_begin()
        log.on_epoch_end(
            epoch,
            {
                "noun_loss": 2.0 - epoch,
                "noun_weight": 0.5,
                "mean_loss": 3.0,
                "worst_loss": math.nan,
            },
        )
        log.on_train_end()
    first, second = Writer.made
    assert (first.folder, first.purge_step, second.purge_step) == (
        str(tmp_path / "tensorboard"),
        11,
        21,
    )
    assert first.scalars == {
        ("task losses/noun", 20): 1.0,
        ("task weights/noun", 20): 0.5,
        ("run/mean_loss", 20): 3.0,
    }
    assert second.scalars["task losses/noun", 25] == 0.0
    (charts,) = first.charts.values()
    assert charts["task losses"] == ["Multiline", ["task losses/noun", "task losses/worst"]]
    assert not first.is_open


def test_events_are_those_that_tensorboardx_reads_back(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path, steps_per_report=10, steps=20)
    log.set_model(types.SimpleNamespace(task_names=("noun",)))
    log.on_train_begin()
    log.on_epoch_end(0, {"noun_loss": 2.0})
    log.on_train_end()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert b"task losses/noun" in path.read_bytes()


def test_the_package_is_asked_for_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboardX"):
        dataclasses.replace(TINY, tensorboard=True)


def test_it_changes_no_number(monkeypatch):
    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: True)
    assert dataclasses.replace(TINY, tensorboard=True).decisive() == TINY.decisive()
