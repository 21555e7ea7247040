"""Progress bars, of runs and of grids."""

import keras
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bars() -> Progress:
    """Bars whose tasks have `figures`, a text at their end."""
    return Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar over all steps of a run of many short epochs.

    It has the worst and the mean task loss of the last report.

    Args:
        label: what the bar calls the run.
        steps: int. Steps of the whole run.
        done: int. Steps done before.
    """

    def __init__(self, label: str, steps: int, done: int = 0):
        super().__init__()
        self._label = label
        self._progress = progress_bars()
        self._bar = self._progress.add_task(label, total=steps, completed=done, figures="")

    def on_train_begin(self, logs=None):
        self._progress.start()

    def on_train_batch_end(self, batch, logs=None):
        self._progress.advance(self._bar)

    def on_epoch_end(self, epoch, logs=None):
        figures = f"worst {logs['worst_loss']:.3f}  mean {logs['mean_loss']:.3f}"
        self._progress.update(self._bar, figures=figures)

    def on_train_end(self, logs=None):
        self._progress.stop()

    def __del__(self):
        self._progress.stop()
