"""Progress bars, of runs, of grids and of their cells."""

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from keras_taskrobust import distribution

#: Seconds whose speed foretells the rest: cells take minutes.
_PERIOD = 3600
#: Without a width, `rich` cuts all others where there are no figures yet.
_FIGURES = Column(no_wrap=True, min_width=1)


def progress_bars() -> Progress:
    """Bars whose tasks have `figures`, a text at their end. The main process alone shows them.

    What is left of a line goes to descriptions and bars: counts, times and figures are never cut.
    """
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=_flexible(3)),
        BarColumn(bar_width=None, table_column=_flexible(2)),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}", markup=False, table_column=_FIGURES),
        speed_estimate_period=_PERIOD,
        expand=True,
        disable=not distribution.is_main(),
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
        if self._progress.finished:  # a shorter last report is another `fit`
            self._progress.stop()

    def __del__(self):
        self._progress.stop()


def _flexible(ratio: int) -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=ratio)
