"""A run in TensorBoard: the losses of all tasks in one chart, their weights in another."""

import math
from pathlib import Path

import keras

FOLDER = "tensorboard"
_CHARTS = {"_loss": "task losses", "_weight": "task weights"}


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the figures of every report, by the package tensorboardX, which needs no TensorFlow.

    "Custom scalars" has the tasks together; "Scalars" has a chart for each figure.

    Args:
        directory: the folder of the run; the events go to `tensorboard/` in it.
        steps_per_report: int. The steps of an epoch.
        steps: int. Those of the run, whose last epoch may be shorter.
        done: int. The steps done before: what was written after them is dropped.
    """

    def __init__(self, directory: Path, steps_per_report: int, steps: int, done: int = 0):
        super().__init__()
        self._folder = directory / FOLDER
        self._steps_per_report = steps_per_report
        self._steps = steps
        self._done = done

    def on_train_begin(self, logs=None):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=self._done + 1)
        charts = {
            chart: ["Multiline", [f"{chart}/{task}" for task in self.model.task_names]]
            for chart in _CHARTS.values()
        }
        self._writer.add_custom_scalars({"tasks": charts})

    def on_epoch_end(self, epoch, logs=None):
        self._done = min((epoch + 1) * self._steps_per_report, self._steps)
        for name, value in (logs or {}).items():
            if math.isfinite(value):  # a task that was not seen has no figure
                self._writer.add_scalar(self._tag(name), value, self._done)
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._writer.close()

    def _tag(self, name):
        for ending, chart in _CHARTS.items():
            task = name.removesuffix(ending)
            if task != name and task in self.model.task_names:
                return f"{chart}/{task}"
        return f"run/{name}"
