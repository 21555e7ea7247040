"""`BackupAndRestore`: a killed `fit` goes on in the middle of its epoch."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

import keras

from keras_taskrobust.training.checkpoints import Checkpoint
from keras_taskrobust.training.keras_internals import build_metrics, metrics_are_built


class BackupAndRestore(Checkpoint):
    """Saves a `fit` every few minutes; the same `fit` then goes on where it was saved.

    Weights, optimizer, weighting, metrics and the random state of dropout end as those of a run
    that nothing interrupted, to the bit, and so do the logs of the epoch. `history` begins with the
    epoch that goes on. Keras's own callback of this name begins that epoch again, with the weights
    from its middle.

    What is trained on next has to be the same, too:

    - a data set of `grain` is put where it was by the state of its iterator;
    - arrays and `PyDataset` need `shuffle=False`; their first batches are passed over;
    - so are those of `tf.data` and of PyTorch's `DataLoader`, whose order must not depend on
      chance: `shuffle` with a seed and `reshuffle_each_iteration=False`;
    - an order that changes with the epoch must be a function of a seed and the epoch. A data set
      that counts epochs counts from 0 in every process: take `grain`, with `repeat`;
    - with `steps_per_epoch`, data go on from epoch to epoch: `grain`, a `tf.data.Dataset` that
      repeats for ever, or a generator.

    The model must be built before, and compiled in the same way. Other callbacks see the batches
    that are passed over, with the logs up to there; a state of their own is not saved.

    Args:
        directory: the folder of the checkpoints, that of one run. The last two stay, also at the
            end, when the same `fit` has nothing left to do.
        minutes: float >= 0. Minutes between two checkpoints; 0 for one at every step.

    Example:

    ```python
    backup = keras_taskrobust.BackupAndRestore("runs/mine")
    model.fit(x, y, epochs=100, shuffle=False, callbacks=[backup])
    ```
    """

    def __init__(self, directory: str | os.PathLike, minutes: float = 10.0):
        super().__init__(directory, every=None, minutes=minutes)
        self._stream: Any = None  # of a `grain` data set
        self._is_open = False
        self._before = 0  # the batches before the epoch
        self._passing = 0

    @contextlib.contextmanager
    def resuming(
        self,
        model: keras.Model,
        x: Any,
        initial_epoch: int,
        steps_per_epoch: int | None,
        shuffle: bool | str,
    ) -> Iterator[tuple[Any, int]]:
        """What surrounds a `fit`.

        Args:
            model: a compiled model.
            x: the inputs given to `fit`.
            initial_epoch: as of `fit`.
            steps_per_epoch: as of `fit`.
            shuffle: as of `fit`.

        Yields:
            `x` and `initial_epoch` as they have to be.

        Raises:
            ValueError: the order of the data is not the same when training goes on, or the model is
                not built.
        """
        if not model.built:
            raise ValueError(
                "`BackupAndRestore` needs a model that is built: call it on a batch before `fit`. "
                f"Received: {type(model).__name__} without weights"
            )
        if shuffle and _is_shuffled_by_keras(x):
            raise ValueError(
                "`BackupAndRestore` needs data in the same order when training goes on: "
                f"`shuffle=False`, or a data set with a seed. Received: shuffle={shuffle!r}"
            )
        epoch = self.restore(model)
        self._before = self.batches - self.steps_of_epoch
        x = self._placed(x, None if steps_per_epoch is None else self._before)
        self._is_open = True
        try:
            yield x, max(epoch, initial_epoch)
        finally:
            self._is_open, self._stream = False, None
            model.train_function = getattr(
                model.train_function, "passed_over", model.train_function
            )

    def _place_of_data(self):
        place = None if self._stream is None else self._stream.place_before(self.batches)
        return self.batches, place

    def _steps_at(self, batch):
        return batch + 1

    def _is_inside(self, epoch, steps):
        return True

    def on_train_begin(self, logs=None):
        if not self._is_open:
            raise TypeError(
                "`BackupAndRestore` is for the `fit` of a MinimaxModel; for another model take "
                f"keras.callbacks.BackupAndRestore. Received: {type(self.model).__name__}"
            )
        super().on_train_begin()

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self._passing = self.steps_of_epoch
        if self._stream is not None:
            self._stream.is_training = True
            self._stream.number = self._before
        if self._passing:
            self.model.train_function = self._passing_over(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if batch < self._passing:
            return
        self.batches = self._before + batch + 1
        super().on_train_batch_end(batch)

    def on_epoch_end(self, epoch, logs=None):
        self._before, self._passing = self.batches, 0
        super().on_epoch_end(epoch)

    def _restore_metrics(self):
        if metrics_are_built(self.model):  # else TensorFlow makes them from the first batch
            super()._restore_metrics()

    def _passing_over(self, model: keras.Model) -> Callable:
        """A train function that takes the data of the steps that are done, and nothing else."""
        run, left = model.train_function, self._passing
        logs = model.get_metrics_result() if self._metrics is None else {}

        def passing(*arguments):
            nonlocal left, logs
            *state, data = arguments  # the state is JAX's
            number = min(model.steps_per_execution, left)
            batches = data if isinstance(data, list) else [next(data) for _ in range(number)]
            if self._metrics is not None:
                build_metrics(model, batches[0])
                self._restore_metrics()
                logs = model.get_metrics_result()
            left -= number
            if left == 0:
                model.train_function = run
            return (logs, *state) if state else logs

        passing.passed_over = run  # type: ignore[attr-defined]
        return passing

    def _placed(self, x: Any, before: int | None) -> Any:
        """The data from where they were.

        Args:
            x: the data.
            before: int. The batches before the epoch, where data go on from one to the next.
        """
        if "grain" in sys.modules:
            from keras_taskrobust.training import grain_stream

            if grain_stream.is_grain(x):
                self._stream = stream = grain_stream.Stream()
                if before is not None or self.steps_of_epoch:
                    start = 0 if before is not None else self._before
                    stream.starts_at = grain_stream.Place(*(self.data or (start, None)))
                    stream.reaches, stream.ahead = self.batches, self.steps_of_epoch
                return grain_stream.Followed(x, stream)
        if before is None:
            return x
        if isinstance(x, GeneratorType):
            return (batch for batch in itertools.islice(x, before, None))
        if hasattr(x, "skip") and hasattr(x, "cardinality") and int(x.cardinality()) < 0:
            return x.skip(before)
        raise ValueError(
            "With `steps_per_epoch`, `BackupAndRestore` needs data that say where they are: a data "
            "set of grain, a tf.data.Dataset that repeats for ever, or a generator; else leave "
            f"`steps_per_epoch` out. Received: data of type {type(x).__name__}"
        )


def backup_among(callbacks: Any) -> BackupAndRestore | None:
    """The `BackupAndRestore` among the callbacks of a `fit`, if there is one."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    given = [] if callbacks is None else keras.tree.flatten(callbacks)
    return next((one for one in given if isinstance(one, BackupAndRestore)), None)


def _is_shuffled_by_keras(x: Any) -> bool:
    if isinstance(x, keras.utils.PyDataset):
        return True
    return all(hasattr(array, "shape") for array in keras.tree.flatten(x))
