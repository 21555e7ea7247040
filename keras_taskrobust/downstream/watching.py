"""Who watches the steps of fine-tuning, such as a progress bar."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import keras

#: Takes the number of steps done, that of all steps, and the loss.
Watcher = Callable[[int, int, float], None]


def _nobody(done: int, steps: int, loss: float) -> None:
    pass


_watcher: contextvars.ContextVar[Watcher] = contextvars.ContextVar("watcher", default=_nobody)


@contextlib.contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """A body whose fine-tuning is watched.

    Args:
        watcher: is called after every step with the steps done, all steps, and the loss.

    Example:

    ```python
    with watched_by(lambda done, steps, loss: print(f"{done} of {steps}: {loss:.3f}")):
        family.finetune(opened, "RTE", settings, seed=0)
    ```
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class TellWatcher(keras.callbacks.Callback):
    """Tells who watches of every step, over however many `fit`s.

    Args:
        steps: int. Those of all of them.
    """

    def __init__(self, steps: int):
        super().__init__()
        self._done, self._steps = 0, steps

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        _watcher.get()(self._done, self._steps, float((logs or {}).get("loss", "nan")))
