"""A progress bar for a run of many short epochs."""

import keras
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar over all steps, with the worst and the mean task loss of the last report.

    Args:
        label: what the bar calls the run.
        steps: int. Steps of the whole run.
        done: int. Steps done before.
    """

    def __init__(self, label: str, steps: int, done: int = 0):
        super().__init__()
        self._label = label
        self._progress = Progress(
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
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
