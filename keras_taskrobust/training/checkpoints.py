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
from keras_taskrobust.interruption import Interrupted
from keras_taskrobust.training.agreed_stop import AgreedStop
from keras_taskrobust.training.backends import launcher
from keras_taskrobust.training.metric_state import pack_metrics, unpack_metrics

_PATTERN = re.compile(r"(checkpoint-(step-)?(\d{8,}))\.(?:weights\.h5|json)")


class _Stored(NamedTuple):
    """What lies beside the weights of a checkpoint."""

    epochs: int
    sha256: str
    seconds: float
    steps: int = 0  # of the next epoch
    metrics: dict | None = None  # of these
    batches: int | None = None  # in all, where epochs have no length that is known
    data: Any = None  # where the data set was


class Checkpoint(keras.callbacks.Callback):
    """Saves all state, so that a killed run continues to the same numbers.

    `checkpoint-<epochs>.weights.h5` holds weights, optimizer, weighting and the random state of
    dropout; `checkpoint-<epochs>.json` its SHA-256 and the seconds of training so far. With
    `steps_per_epoch`, their names are `checkpoint-step-<steps>`. Both are on the disk before an
    older checkpoint goes; the last two stay. One that is damaged is left out, with a warning.

    Between the ends of epochs it saves by time, with what the metrics have so far. Who continues
    from there trains the rest of the epoch, which then ends with the logs of the whole. So it does
    at a signal that asks a command of `taskrobust` to stop.

    Of several processes that train together all have it, and the main one saves.

    Put it behind the callbacks whose work is to be done once an epoch: who continues from a
    checkpoint does not do it again.

    Args:
        directory: the folder of the checkpoints, that of one run.
        every: int >= 1, or `None` for those by time alone. Epochs between two checkpoints. There is
            one at the end, too.
        steps_per_epoch: int. As in `fit`, for names that count steps; those that count epochs are
            found, too.
        steps: int. Those of all epochs, where the last one is shorter.
        minutes: float >= 0, or `None`. Minutes after which there is a checkpoint even inside an
            epoch; needs `steps_per_epoch`.

    Attributes:
        seconds: float. What training has taken up to the newest checkpoint, over all starts.
        steps_of_epoch: int. The steps that what was restored holds beyond its epochs.

    Raises:
        ValueError: training begins in a folder with checkpoints that were not restored.
        Interrupted: a signal asked to stop, and all is saved.

    Example:

    ```python
    checkpoint = Checkpoint("runs/mine", every=10)
    start = checkpoint.restore(model)
    model.fit(data, initial_epoch=start, epochs=100, callbacks=[checkpoint])
    ```
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        every: int | None = 1,
        steps_per_epoch: int | None = None,
        steps: int | None = None,
        minutes: float | None = None,
    ):
        super().__init__()
        self.directory = Path(directory)
        self.every = every
        self.steps_per_epoch = steps_per_epoch
        self.steps = steps
        self.minutes = minutes
        self.seconds = 0.0
        self.steps_of_epoch = 0
        self.batches = 0
        self.data: Any = None
        self._epoch = 0
        self._metrics: dict | None = None  # of what was restored inside an epoch
        self._newest: str | None = None  # the name of what was saved or restored
        self._replaceable: set[str] = set()  # the names of what cannot be restored
        self._began = 0.0
        self._saved_at = 0.0
        self._asked_to_stop = AgreedStop()

    def latest(self) -> tuple[Path | None, int]:
        """The newest sound checkpoint, or `None`, and the number of epochs it holds.

        Damaged ones, and others without their digest, are passed over with a warning.
        """
        name, epochs = self._latest()
        return (None if name is None else self._weights(name)), epochs

    def restore(self, model: keras.Model) -> int:
        """Loads the newest sound checkpoint into a compiled model, if there is one.

        Returns:
            int. The epochs already done, for `fit(initial_epoch=...)`.
        """
        self._newest, epochs = self._latest()
        self.seconds, self.steps_of_epoch, self._metrics = 0.0, 0, None
        self.batches, self.data = 0, None
        order = -1
        if self._newest is not None:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(self._weights(self._newest))
            stored = self._stored(self._newest)
            self.batches, self.data = stored.batches or 0, stored.data
            self.seconds, self.steps_of_epoch = stored.seconds, stored.steps
            self._metrics, order = stored.metrics, self._named()[self._newest]
        self._replaceable = {name for name, found in self._named().items() if found > order}
        return epochs

    def found(self) -> set[int]:
        """The epochs of all checkpoints in the folder, sound or not; begun ones count as whole."""
        return {-(-steps // (self.steps_per_epoch or 1)) for steps in self._named().values()}

    def _place_of_data(self) -> tuple[int | None, Any]:
        """The batches trained on, if checkpoints are named by them, and JSON of where data are."""
        return None, None

    def _steps_at(self, batch: int) -> int:
        """The steps of the epoch up to a batch of this `fit`."""
        return self.steps_of_epoch + batch + 1

    def _is_inside(self, epoch: int, steps: int) -> bool:
        """Whether there are more steps in the epoch; `False` where its length is not known."""
        if self.steps_per_epoch is None:
            return False
        return self._steps_of(epoch) + steps < self._steps_of(epoch + 1)

    def on_train_begin(self, logs=None):
        unknown = self._named().keys() - self._replaceable
        if unknown and self._newest is None:
            raise ValueError(
                "`directory` must be new, or `restore` must come before `fit`. "
                f"Received: {self.directory} with {self._weights(max(unknown)).name}"
            )
        self._saved_at = time.perf_counter()
        self._began = self._saved_at - self.seconds

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._metrics is None:
            self.steps_of_epoch = 0
        else:
            self._restore_metrics()

    def _restore_metrics(self) -> None:
        """Gives the metrics what they had inside the epoch."""
        unpack_metrics(self.model, self._metrics or {})
        self._metrics = None

    def on_train_batch_end(self, batch, logs=None):
        steps = self._steps_at(batch)
        is_asked = self._asked_to_stop.after_batch()
        if (is_asked or self._is_due()) and self._is_inside(self._epoch, steps):
            self._save(self._epoch, steps)
            if is_asked:
                self._stop()

    def on_epoch_end(self, epoch, logs=None):
        is_last = epoch + 1 == self.params["epochs"]
        if self.steps is not None:
            is_last = self._steps_of(epoch + 1) >= self.steps
        is_asked = self._asked_to_stop.after_epoch()
        is_planned = self.every is not None and (epoch + 1) % self.every == 0
        if is_planned or is_last or is_asked or self._is_due():
            self._save(epoch + 1)
        if is_asked:
            self._stop()

    def _stop(self):
        if launcher.count() > 1:
            launcher.gather(b"")  # the main process has saved
        raise Interrupted

    def _is_due(self) -> bool:
        if self.minutes is None:
            return False
        return time.perf_counter() - self._saved_at >= 60.0 * self.minutes

    def _save(self, epochs: int, steps: int = 0) -> None:
        model = self.model
        state = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        with launcher.whole(state):
            if launcher.rank() == 0:
                self._save_by_main(epochs, steps)

    def _save_by_main(self, epochs: int, steps: int) -> None:
        seconds, name = time.perf_counter() - self._began, self._name(epochs, steps)
        # Keras makes variables to save others: on JAX all processes would have to.
        with launcher.alone(), replacing(self._weights(name)) as partial:
            self.model.save_weights(partial, overwrite=True)
            # The digest comes first: weights without one are none of ours.
            metrics = pack_metrics(self.model) if steps else None
            place = self._place_of_data()
            stored = _Stored(epochs, _digest(partial), seconds, steps, metrics, *place)
            content = json.dumps(stored._asdict(), indent=1)
            write_atomically(self._description(name), content.encode())
        for other in self._named().keys() - {name, self._newest}:
            self._weights(other).unlink(missing_ok=True)
            self._description(other).unlink(missing_ok=True)
        self.seconds, self._newest = seconds, name
        self._saved_at = time.perf_counter()

    def _name(self, epochs: int, steps: int) -> str:
        batches, _ = self._place_of_data()
        if batches is not None:
            return f"checkpoint-step-{batches:08d}"
        if self.steps_per_epoch is None:
            return f"checkpoint-{epochs:08d}"
        return f"checkpoint-step-{self._steps_of(epochs) + steps:08d}"

    def _steps_of(self, epochs: int) -> int:
        steps = epochs * (self.steps_per_epoch or 1)
        return steps if self.steps is None else min(steps, self.steps)

    def _named(self) -> dict[str, int]:
        """The names of all checkpoints in the folder, without endings, to their steps.

        Without `steps_per_epoch`, to their epochs.
        """
        names = (_PATTERN.fullmatch(path.name) for path in self.directory.glob("checkpoint-*"))
        steps = self.steps_per_epoch or 1
        return {name[1]: int(name[3]) * (1 if name[2] else steps) for name in names if name}

    def _latest(self) -> tuple[str | None, int]:
        """The name of the newest sound checkpoint, or `None`, and its epochs."""
        for name, order in sorted(self._named().items(), key=lambda one: one[1], reverse=True):
            if self._weights(name).exists() and self._is_sound(name, order):
                return name, self._stored(name).epochs
        return None, 0

    def _is_named_for(self, stored: _Stored, order: int) -> bool:
        if stored.batches is not None:
            return stored.batches == order
        length = self.steps_per_epoch or 1
        # The last epoch of a run may be shorter.
        epochs = order // length if stored.steps else -(-order // length)
        steps = order - length * epochs if stored.steps else 0
        return (stored.epochs, stored.steps) == (epochs, steps)

    def _weights(self, name: str) -> Path:
        return self.directory / f"{name}.weights.h5"

    def _description(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _stored(self, name: str) -> _Stored:
        content: Any = json.loads(self._description(name).read_text())
        return _Stored(
            int(content["epochs"]),
            content["sha256"],
            float(content["seconds"]),
            int(content.get("steps", 0)),
            content.get("metrics"),
            content.get("batches"),
            content.get("data"),
        )

    def _is_sound(self, name: str, order: int) -> bool:
        try:
            stored = self._stored(name)
            digest = _digest(self._weights(name))
        except READING_ERRORS as error:
            fault = f"{self._description(name).name} must say its digest: {error!r}"
        else:
            if stored.sha256 == digest and self._is_named_for(stored, order):
                return True
            fault = "its content is not what was saved"
        warnings.warn(
            f"The checkpoint {self._weights(name)} is damaged: {fault}. "
            "Training goes on from the one before it, or from the start.",
            stacklevel=2,
        )
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
