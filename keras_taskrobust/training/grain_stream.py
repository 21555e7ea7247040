"""A `grain` data set that begins where a run was, and says where it is. Imported where one is."""

import copy
import json
import time
from typing import Any, NamedTuple

import grain

#: Seconds between two states that are kept: what is read again on the way to a place, at most.
SECONDS_APART = 1.0


class Place(NamedTuple):
    """A place among the batches of a run.

    Attributes:
        number: int. The batches before it.
        state: JSON of the iterator there, or `None` at the start of one.
    """

    number: int
    state: Any


class Stream:
    """What is known of the iterator that a run reads.

    Attributes:
        starts_at: the `Place` at which the next iterator is set, or `None` for its start.
        reaches: int. The batches that are trained on by then.
        ahead: int. How many of them are of the epoch that goes on.
        is_training: bool. Whether iterators that are opened now are read by training.
        number: int. The batches trained on when an iterator is opened.
        places: list of `Place`, those where it was of late, in order.
    """

    def __init__(self) -> None:
        self.starts_at: Place | None = None
        self.reaches = 0
        self.ahead = 0
        self.is_training = False
        self.number = 0
        self.places: list[Place] = []

    def place_before(self, number: int) -> Place | None:
        """The newest place up to a number of batches; older ones are forgotten."""
        before = [place for place in list(self.places) if place.number <= number]
        self.places = [place for place in list(self.places) if place not in before[:-1]]
        return before[-1] if before else None


def is_grain(data: Any) -> bool:
    """Whether Keras takes it for a data set of `grain`."""
    return isinstance(data, grain.MapDataset | grain.IterDataset | grain.DataLoader)


class Followed(grain.IterDataset):
    """The batches of a data set, followed by a `Stream`.

    Args:
        dataset: what `fit` was given.
        stream: `Stream`.
    """

    def __init__(self, dataset: Any, stream: Stream):
        super().__init__()
        self._dataset = dataset
        self._stream = stream

    def __iter__(self):
        return _Following(self._dataset, self._stream)


class _Following(grain.DatasetIterator):
    def __init__(self, dataset, stream):
        super().__init__()
        self._iterator = iter(dataset)
        self._stream = stream if stream.is_training else None
        self._kept_at = -SECONDS_APART
        self._ahead = 0
        if self._stream is None:  # Keras looks at some batches
            return
        start, stream.starts_at = stream.starts_at, None
        self._number, stream.places = stream.number, []
        if start is None:
            return
        if start.state is not None:
            self._iterator.set_state(_unpacked(start.state))
        for _ in range(stream.reaches - start.number):
            next(self._iterator)
        # Those of the epoch that were trained on are asked for, and not used.
        self._number, self._ahead = stream.reaches, stream.ahead
        self._passed = _first(dataset) if self._ahead else None

    def __next__(self):
        if self._ahead:
            self._ahead -= 1
            return self._passed
        if self._stream is None:
            return next(self._iterator)
        if time.monotonic() - self._kept_at >= SECONDS_APART:
            self._kept_at = time.monotonic()
            state = _packed(self._iterator.get_state())
            self._stream.places.append(Place(self._number, state))
        batch = next(self._iterator)
        self._number += 1
        return batch

    def get_state(self):
        return self._iterator.get_state()

    def set_state(self, state):
        self._iterator.set_state(state)

    def close(self):
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        super().close()


def _first(dataset):
    iterator = iter(dataset)
    try:
        return next(iterator)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _packed(state: Any) -> Any:
    """The state as JSON: those of a `DataLoader` are bytes."""
    if isinstance(state, bytes):
        return {"bytes": state.decode()}
    return json.loads(json.dumps(copy.deepcopy(state), default=lambda number: number.item()))


def _unpacked(state: Any) -> Any:
    if isinstance(state, dict) and set(state) == {"bytes"}:
        return state["bytes"].encode()
    return state
