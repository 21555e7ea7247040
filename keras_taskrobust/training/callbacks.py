"""What a run needs beside Keras's own callbacks."""

import math

import keras

from keras_taskrobust.training.checkpoints import Checkpoint
from keras_taskrobust.training.output_losses import GroupedLoss

__all__ = ["Checkpoint", "StopOnBrokenLoss"]


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
