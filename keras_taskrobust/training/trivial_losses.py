"""Trivial losses: those of the best prediction that does not look at the input."""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_taskrobust import checks
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.tasks import ConstantPredictor, TaskTotals

#: What asks for a measurement, and the batches that it takes.
MEASURE = "measure"
BATCHES = 64
#: What share of itself a loss that stands still changes by from epoch to epoch, at most.
_STANDSTILL = 1e-3

Batches: TypeAlias = Callable[[], Iterator[tuple[Any, Any, Any]]]


class TrivialLosses(keras.layers.Layer):
    """The state: one loss a task, NaN until it is known.

    Args:
        task_names: the K names.
        given: dict of task names to losses that need not be measured.

    Raises:
        ValueError: `given` holds other names, or what is no number.
    """

    def __init__(self, task_names: tuple[str, ...], given: Mapping[str, float]):
        super().__init__(dtype="float32", name="trivial_losses")
        unknown = sorted(set(given) - set(task_names))
        if unknown:
            raise ValueError(
                f"The keys of `trivial_losses` must be among the tasks {', '.join(task_names)}. "
                f"Received: {', '.join(unknown)}"
            )
        for name, value in given.items():
            checks.finite_floats(f"trivial_losses[{name!r}]", [value])
        self.task_names = task_names
        self.given = {name: float(value) for name, value in given.items()}
        self.values = self.add_weight(
            name="values",
            shape=(len(task_names),),
            initializer=self._initial,
            trainable=False,
            # Every replica has the same value from the global data.
            aggregation="only_first_replica",
        )
        self.built = True

    @property
    def numbers(self) -> dict[str, float]:
        """The losses by task, NaN for those that are not known."""
        values = ops.convert_to_numpy(self.values).tolist()
        return dict(zip(self.task_names, values, strict=True))

    @property
    def are_known(self) -> bool:
        """Whether they were given or measured, which may leave out tasks that are not there."""
        measured = [value for name, value in self.numbers.items() if name not in self.given]
        return not measured or not np.isnan(measured).all()

    def load_own_variables(self, store):
        """Leaves them as they are where what was saved knew of none."""
        if len(store.keys()):
            super().load_own_variables(store)

    def _initial(self, shape, dtype=None):
        values = [self.given.get(name, float("nan")) for name in self.task_names]
        return ops.convert_to_tensor(values, dtype=dtype)


def first_batches(
    x: Any, y: Any, sample_weight: Any, batch_size: int, held_out: float = 0.0
) -> Batches:
    """The first batches of a data set; of arrays as many, evenly spread.

    Args:
        x: the inputs given to `fit`: arrays, or a data set that can be read more than once.
        y: the targets, or `None`.
        sample_weight: the sample weights, or `None`.
        batch_size: int, for arrays.
        held_out: float, the share at the end of arrays that is not trained on.

    Returns:
        Function to an iterator of `(x, y, sample_weight)`, the same at every call.

    Raises:
        ValueError: `x` can be read once only.
    """
    arrays = keras.tree.flatten((x, y, sample_weight))
    if all(hasattr(array, "shape") for array in arrays if array is not None):
        sizes = {len(array) for array in arrays if array is not None}
        if len(sizes) > 1:
            raise ValueError(
                "Inputs, targets and sample weights must hold the same number of samples. "
                f"Received: arrays of {', '.join(map(str, sorted(sizes)))} samples"
            )
        number = int(len(arrays[0]) * (1.0 - held_out))
        rows = np.linspace(0, number - 1, min(number, BATCHES * batch_size)).astype(int)
        chosen = np.array_split(rows, range(batch_size, len(rows), batch_size))
        return lambda: (_rows((x, y, sample_weight), each) for each in chosen)
    if y is not None:
        kinds = {type(one).__name__ for one in arrays if not (one is None or hasattr(one, "shape"))}
        raise ValueError(
            "Inputs, targets and sample weights must be arrays, as from `np.asarray`. "
            f"Received: elements of type {', '.join(sorted(kinds))} among them"
        )
    if isinstance(x, keras.utils.PyDataset):
        number = BATCHES if x.num_batches is None else min(BATCHES, x.num_batches)
        return lambda: map(_unpacked, (x[index] for index in range(number)))
    if not hasattr(x, "__iter__") or hasattr(x, "__next__"):
        raise ValueError(
            "Trivial losses are measured on data that can be read more than once: arrays, or a "
            "data set. Call `model.measure_trivial_losses(x, y)` on such data before `fit`, or "
            "give `compile` their values: `trivial_losses={task: value}`. "
            f"Received: {type(x).__name__}"
        )
    return lambda: map(_unpacked, itertools.islice(iter(x), BATCHES))


def read_ahead(generator: Generator) -> tuple[Batches, Generator]:
    """The first batches of a generator, which are kept, and one that begins with them."""
    first = list(itertools.islice(generator, BATCHES))
    rest = (batch for batch in itertools.chain(first, generator))
    return lambda: map(_unpacked, first), rest


def _rows(arrays: Any, rows: np.ndarray) -> Any:
    return _in_numpy(arrays, lambda array: array[rows])


def _unpacked(batch: Any) -> tuple[Any, Any, Any]:
    return _in_numpy(keras.utils.unpack_x_y_sample_weight(batch), lambda array: array)


def _in_numpy(structure: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else change(ops.convert_to_numpy(leaf)), structure
    )


def fitted(predictor: ConstantPredictor, batches: Batches) -> ConstantPredictor:
    """The same predictor, fitted to batches as from `first_batches`."""
    for batch in batches():
        predictor.add(*batch)
    return predictor


def measure(
    predictor: ConstantPredictor,
    compute_totals: Callable[..., TaskTotals],
    task_names: tuple[str, ...],
    batches: Batches,
) -> dict[str, float]:
    """Takes the losses of the best constants on the batches that they were fitted to.

    Args:
        predictor: `ConstantPredictor`, fitted.
        compute_totals: function of inputs, targets, outputs and sample weights.
        task_names: the K names.
        batches: as from `first_batches`.

    Returns:
        dict of task names to losses; NaN for a task that is in none of the batches, and `inf` for
        one whose loss is not finite.
    """
    sums = np.zeros((2, len(task_names)))
    for x, y, sample_weight in batches():
        totals, counts, _ = compute_totals(x, y, predictor.predict(x, y), sample_weight)
        sums += np.stack([ops.convert_to_numpy(each) for each in (totals, counts)])
    sums = backend.sum_over_replicas(ops.convert_to_tensor(sums, "float32"))
    totals, counts = ops.convert_to_numpy(sums)
    totals = np.where(np.isfinite(totals), totals, np.inf)
    losses = totals / np.where(counts > 0, counts, np.nan)
    return dict(zip(task_names, losses.tolist(), strict=True))


class WarnOfTrivialTasks(keras.callbacks.Callback):
    """Warns at the end of an epoch of a task whose loss is above its trivial one.

    Once for each task, after as many batches as the constants were fitted to: of a loss that stands
    still at once, of another in the second half of the epochs, when the model has warmed up.
    """

    def __init__(self):
        super().__init__()
        self._named: set[str] = set()
        self._before: dict[str, float] = {}

    def on_epoch_end(self, epoch, logs=None):
        ratios = {
            name: (logs or {}).get(f"{name}_trivial_ratio", 0.0) for name in self.model.task_names
        }
        before, self._before = self._before, ratios
        if int(ops.convert_to_numpy(self.model.optimizer.iterations)) <= BATCHES:
            return
        above = {
            name: ratio for name, ratio in ratios.items() if ratio > 1.0 and name not in self._named
        }
        still = {
            name: ratio
            for name, ratio in above.items()
            if abs(ratio - before.get(name, 0.0)) < _STANDSTILL * ratio
        }
        is_late = epoch >= self.params["epochs"] / 2
        late = {name: ratio for name, ratio in above.items() if is_late and name not in still}
        for found in filter(None, (still, late)):
            self._named.update(found)
            warnings.warn(self._message(epoch, found, found is still), stacklevel=2)

    def _message(self, epoch, found, stand_still):
        names = ", ".join(map(repr, found))
        ratios = ", ".join(f"{ratio:.3f}" for ratio in found.values())
        tasks = f"loss of the task {names} was {ratios} times that of the best constant"
        if len(found) > 1:
            tasks = f"losses of the tasks {names} were {ratios} times those of the best constant"
        fact = (
            f"In epoch {epoch + 1} the {tasks} prediction: the model is worse there than one that "
            "does not look at the input"
        )
        if stand_still:
            return (
                f"{fact}, and the loss stands still. Numbers far from 0 take more steps than there "
                "are: scale the targets, `(y - mean) / deviation`, or raise the learning rate."
            )
        way_out = "train longer or at a larger learning rate, and scale targets that are numbers"
        if not self.model.weighting.needs_trivial_losses:
            way_out += '; `weighting="scale_free_minimax"` gives such a task more weight'
        return f"{fact}. If it stays so, {way_out}."
