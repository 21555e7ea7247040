"""Checkpoints that survive a kill, a power cut and a damaged disk."""

import hashlib
import json
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_taskrobust.files import READING_ERRORS, replacing, write_atomically

_PATTERN = re.compile(r"checkpoint-(\d{8,})\.(?:weights\.h5|json)")


class _Stored(NamedTuple):
    """What lies beside the weights of a checkpoint."""

    epochs: int
    sha256: str
    seconds: float


class Checkpoint(keras.callbacks.Callback):
    """Saves all state at the end of epochs, so that a killed run continues to the same numbers.

    `checkpoint-<epochs>.weights.h5` holds weights, optimizer, weighting and the random state of
    dropout; `checkpoint-<epochs>.json` its SHA-256 and the seconds of training so far. Both are on
    the disk before an older checkpoint goes; the last two stay. One that is damaged is left out,
    with a warning.

    Put it behind the callbacks whose work is to be done once an epoch: who continues from a
    checkpoint does not do it again.

    Args:
        directory: the folder of the checkpoints, that of one run.
        every: int >= 1. Epochs between two checkpoints. There is one at the end, too.

    Attributes:
        seconds: float. What training has taken up to the newest checkpoint, over all starts.

    Raises:
        ValueError: training begins in a folder with checkpoints that were not restored.

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
        self.seconds = 0.0
        self._newest: int | None = None  # the epochs of what was saved or restored
        self._replaceable: set[int] = set()  # the epochs of what cannot be restored
        self._began = 0.0

    def latest(self) -> tuple[Path | None, int]:
        """The newest sound checkpoint, or `None`, and the number of epochs it holds.

        Damaged ones, and others without their digest, are passed over with a warning.
        """
        for epochs in sorted(self.found(), reverse=True):
            path = self._path(epochs)
            if path.exists() and self._is_sound(epochs):
                return path, epochs
        return None, 0

    def restore(self, model: keras.Model) -> int:
        """Loads the newest sound checkpoint into a compiled model, if there is one.

        Returns:
            int. The epochs already done, for `fit(initial_epoch=...)`.
        """
        path, epochs = self.latest()
        self.seconds, self._newest = 0.0, None
        if path is not None:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
            self.seconds, self._newest = self._stored(epochs).seconds, epochs
        self._replaceable = {other for other in self.found() if other > epochs}
        return epochs

    def found(self) -> set[int]:
        """The epochs of all checkpoints in the folder, sound or not."""
        names = (_PATTERN.fullmatch(path.name) for path in self.directory.glob("checkpoint-*"))
        return {int(name[1]) for name in names if name}

    def on_train_begin(self, logs=None):
        unknown = self.found() - self._replaceable
        if unknown and self._newest is None:
            raise ValueError(
                "`directory` must be new, or `restore` must come before `fit`. "
                f"Received: {self.directory} with {self._path(max(unknown)).name}"
            )
        self._began = time.perf_counter() - self.seconds

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self._save(epoch + 1)

    def _save(self, epochs: int) -> None:
        path = self._path(epochs)
        seconds = time.perf_counter() - self._began
        with replacing(path) as partial:
            self.model.save_weights(partial, overwrite=True)
            # The digest comes first: weights without one are none of ours.
            stored = _Stored(epochs, _digest(partial), seconds)
            content = json.dumps(stored._asdict(), indent=1)
            write_atomically(self._description(epochs), content.encode())
        for other in self.found() - {epochs, self._newest}:
            self._path(other).unlink(missing_ok=True)
            self._description(other).unlink(missing_ok=True)
        self.seconds, self._newest = seconds, epochs

    def _path(self, epochs: int) -> Path:
        return self.directory / f"checkpoint-{epochs:08d}.weights.h5"

    def _description(self, epochs: int) -> Path:
        return self.directory / f"checkpoint-{epochs:08d}.json"

    def _stored(self, epochs: int) -> _Stored:
        content: Any = json.loads(self._description(epochs).read_text())
        return _Stored(int(content["epochs"]), content["sha256"], float(content["seconds"]))

    def _is_sound(self, epochs: int) -> bool:
        try:
            stored = self._stored(epochs)
            digest = _digest(self._path(epochs))
        except READING_ERRORS as error:
            fault = f"{self._description(epochs).name} must say its digest: {error!r}"
        else:
            if (stored.epochs, stored.sha256) == (epochs, digest):
                return True
            fault = "its content is not what was saved"
        warnings.warn(
            f"The checkpoint {self._path(epochs)} is damaged: {fault}. "
            "Training goes on from the one before it, or from the start.",
            stacklevel=2,
        )
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
