"""Texts to the token arrays of BERT's classifiers, and batches of them."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_taskrobust.downstream.text_task import Examples
from keras_taskrobust.randomness import shuffled
from keras_taskrobust.text.vocabulary import WordPieceEncoder

if TYPE_CHECKING:
    import grain

_MULTIPLE = 8


def encode_examples(
    examples: Examples, encoder: WordPieceEncoder, sequence_length: int
) -> dict[str, np.ndarray]:
    """Makes `[CLS] text [SEP]` or `[CLS] text [SEP] text [SEP]`, as KerasHub's preprocessor does.

    What is too long is cut at the ends, the pieces shared evenly between both texts. The arrays
    are as wide as the longest example asks for (a multiple of 8).

    Args:
        examples: `Examples`.
        encoder: a `WordPieceEncoder`.
        sequence_length: int. The widest an array may be.

    Returns:
        dict of int32 arrays `(N, S)`: "token_ids", "segment_ids" and "padding_mask".

    Example:

    >>> from keras_taskrobust.text.vocabulary import SPECIAL_TOKENS
    >>> encoder = WordPieceEncoder([*SPECIAL_TOKENS, "a", "b"])
    >>> arrays = encode_examples(Examples((["a a"], ["b"]), None, "example"), encoder, 16)
    >>> arrays["token_ids"].tolist(), arrays["segment_ids"].tolist()
    ([[2, 5, 5, 3, 6, 3, 0, 0]], [[0, 0, 0, 0, 1, 1, 0, 0]])
    """
    pieces = [[encoder.encode(text.split()) for text in column] for column in examples.texts]
    room = sequence_length - 1 - len(pieces)
    lengths = _trimmed([np.array([len(ids) for ids in column]) for column in pieces], room)
    longest = int(np.sum(lengths, axis=0).max()) + 1 + len(pieces)
    width = min(sequence_length, -(-longest // _MULTIPLE) * _MULTIPLE)
    arrays = {
        name: np.zeros((len(examples), width), "int32")
        for name in ("token_ids", "segment_ids", "padding_mask")
    }
    arrays["token_ids"][:] = encoder.pad_id
    for row in range(len(examples)):
        _write_row(arrays, row, pieces, lengths, encoder)
    return arrays


def _trimmed(lengths: Sequence[np.ndarray], room: int) -> list[np.ndarray]:
    """How many pieces of each text are kept: taken in turn, one at a time, while there is room."""
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    return [
        np.minimum(first, np.maximum(-(-room // 2), room - second)),
        np.minimum(second, np.maximum(room // 2, room - first)),
    ]


def _write_row(arrays, row, pieces, lengths, encoder):
    arrays["token_ids"][row, 0] = encoder.cls_id
    end = 1
    for segment, (column, kept) in enumerate(zip(pieces, lengths, strict=True)):
        start, end = end, end + kept[row] + 1
        arrays["token_ids"][row, start : end - 1] = column[row][: kept[row]]
        arrays["token_ids"][row, end - 1] = encoder.separator_id
        arrays["segment_ids"][row, start:end] = segment
    arrays["padding_mask"][row, :end] = 1


def labelled_batches(
    arrays: Mapping[str, np.ndarray], labels: np.ndarray, batch_size: int, seed: int
) -> "grain.MapDataset":
    """Makes endless batches for `fit`, every epoch in an order of its own.

    Element n is a pure function of n and the arguments. An epoch has N // batch_size batches, or
    one of all N examples if they are fewer.

    Args:
        arrays: dict of arrays `(N, ...)`.
        labels: `(N,)`.
        batch_size: int >= 1.
        seed: int >= 0. Chooses the order.

    Returns:
        A `grain.MapDataset` of `(x, y)`.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    return grain.MapDataset.source(_LabelledBatches(arrays, labels, batch_size, seed))


class _LabelledBatches:
    """The batches by number, over all epochs."""

    def __init__(self, arrays, labels, batch_size, seed):
        self._arrays = arrays
        self._labels = labels
        self._batch_size = min(batch_size, len(labels))
        self._seed = seed
        self._steps_per_epoch = len(labels) // self._batch_size

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        epoch, number = divmod(int(step), self._steps_per_epoch)
        positions = np.arange(self._batch_size) + number * self._batch_size
        chosen = shuffled(positions, len(self._labels), self._seed, epoch)
        return {name: array[chosen] for name, array in self._arrays.items()}, self._labels[chosen]
