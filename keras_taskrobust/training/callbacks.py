"""What a run needs beside Keras's own callbacks."""

import math
import os
from pathlib import Path

import keras

from keras_taskrobust.training.output_losses import GroupedLoss


class StopOnBrokenLoss(keras.callbacks.Callback):
    """Ends training with an error at the first non-finite loss, and names the task and the step.

    Keras's `TerminateOnNaN` ends silently, and after it `ModelCheckpoint` may overwrite the last
    good state. This raises before any callback that comes later in the list: put it before
    `ModelCheckpoint` and `BackupAndRestore`.

    Raises:
        FloatingPointError: at the end of the first batch whose logs are not finite.

    Example:

    ```python
    model.fit(data, callbacks=[StopOnBrokenLoss(), keras.callbacks.ModelCheckpoint(path)])
    ```
    """

    def on_train_batch_end(self, batch, logs=None):
        logs = logs or {}
        if math.isfinite(logs.get("loss", 0.0)):
            return
        tasks = [
            name.removesuffix("_loss")
            for name, value in logs.items()
            if name.endswith("_loss")
            and name not in ("worst_loss", "mean_loss")
            and math.isinf(value)
        ]
        cause = f"of task {', '.join(map(repr, tasks))}" if tasks else "outside the task losses"
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        raise FloatingPointError(
            f"The loss must be finite. Received: a non-finite loss {cause} at step {step} "
            f"(batch {batch} of its epoch). {_hint(self.model)}What earlier callbacks saved is "
            "untouched."
        )


def _hint(model):
    losses = getattr(getattr(model, "_task_losses", None), "losses", {})
    if any(isinstance(loss, GroupedLoss) for loss in losses.values()):
        return "Group ids out of range do this too. "
    return ""


class Checkpoint(keras.callbacks.Callback):
    """Saves all state at the end of epochs, so that a killed run continues to the same numbers.

    The file holds weights, optimizer, weighting and the random state of dropout. It is written
    beside the former one and put in its place when complete.

    Args:
        directory: the folder for `checkpoint-<epochs>.weights.h5`.
        every: int >= 1. Epochs between two checkpoints.

    Example:

    ```python
    checkpoint = Checkpoint("runs/mine", every=10)
    start = checkpoint.restore(model)
    model.fit(data, initial_epoch=start, epochs=100, callbacks=[checkpoint])
    ```
    """

    def __init__(self, directory: str | os.PathLike, every: int = 1):
        super().__init__()
        self.directory = Path(directory)
        self.every = every

    def latest(self) -> tuple[Path | None, int]:
        """The newest checkpoint, or `None`, and the number of epochs it holds."""
        found = sorted(self.directory.glob("checkpoint-*.weights.h5"))
        if not found:
            return None, 0
        return found[-1], int(found[-1].name.removeprefix("checkpoint-").split(".")[0])

    def restore(self, model) -> int:
        """Loads the newest checkpoint into a compiled model, if there is one.

        Returns:
            int. The epochs already done, for `fit(initial_epoch=...)`.
        """
        path, epochs = self.latest()
        if path is not None:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
        return epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self._save(epoch + 1)

    def _save(self, epochs: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        former, _ = self.latest()
        path = self.directory / f"checkpoint-{epochs:08d}.weights.h5"
        unfinished = self.directory / "unfinished.weights.h5"
        self.model.save_weights(unfinished, overwrite=True)
        os.replace(unfinished, path)
        if former is not None and former != path:
            former.unlink()
