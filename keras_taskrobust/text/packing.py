"""Documents of sentences -> records of at most `sequence_length` tokens, as in BERT.

A record is a row of five int64 numbers: where its first segment starts and ends in the array
of all tokens, where its second segment does (twice 0 without one), and its label.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from keras_taskrobust.randomness import generator

RECORD_COLUMNS = 5

_SPECIAL_TOKENS_OF_PAIR = 3
_SPECIAL_TOKENS_OF_SINGLE = 2
_SHORTEST_TARGET = 2
_RANDOM_NEXT_SHARE = 0.5


def pack_pairs(
    documents: Sequence[int],
    document_starts: np.ndarray,
    sentence_starts: np.ndarray,
    sequence_length: int,
    short_probability: float,
    seed: int,
) -> np.ndarray:
    """Packs pairs of segments for next-sentence prediction (BERT's `create_pretraining_data`).

    Consecutive sentences of a document fill a record, cut in two at a random sentence. With
    probability 1/2 the second segment is replaced by sentences from a random place of another
    document (and what it displaced is packed next); a single sentence always gets a random
    partner. Pairs too long lose tokens of the longer segment, from a random end each.

    Args:
        documents: sequence of at least two ints. The documents to pack, and to take random
            segments from.
        document_starts: int64 array of shape `(all documents + 1,)`. First sentence of each
            document.
        sentence_starts: int64 array of shape `(all sentences + 1,)`. First token of each
            sentence.
        sequence_length: int. The longest record, with [CLS] and twice [SEP].
        short_probability: float. The share of records with a random smaller length.
        seed: int >= 0.

    Returns:
        int64 array of shape `(records, 5)`. The label is 1 if the second segment follows the
        first, 0 if it is random.
    """
    most_tokens = sequence_length - _SPECIAL_TOKENS_OF_PAIR
    records: list[tuple[int, int, int, int, int]] = []
    for order, document in enumerate(documents):
        draws = generator(seed, document)
        start, end = document_starts[document : document + 2]
        bounds = sentence_starts[start : end + 1].tolist()
        first = 0
        while first < len(bounds) - 1:
            target = most_tokens
            if draws.random() < short_probability:
                target = _draw(draws, _SHORTEST_TARGET, most_tokens)
            last = bisect_left(bounds, bounds[first] + target, first + 1)
            last = min(last, len(bounds) - 1)
            middle = first + 1 if last - first == 1 else first + _draw(draws, 1, last - first - 1)
            is_random = last - first == 1 or draws.random() < _RANDOM_NEXT_SHARE
            if is_random:
                other = int(draws.random() * (len(documents) - 1))
                other += other >= order
                second = _random_segment(
                    draws,
                    document_starts[documents[other] : documents[other] + 2],
                    sentence_starts,
                    target - (bounds[middle] - bounds[first]),
                )
            else:
                second = (bounds[middle], bounds[last])
            pair = _truncate(draws, (bounds[first], bounds[middle]), second, most_tokens)
            records.append((*pair, 0 if is_random else 1))
            first = middle if is_random else last
    return np.array(records, dtype=np.int64).reshape(-1, RECORD_COLUMNS)


def pack_sentences(
    documents: Sequence[int],
    document_starts: np.ndarray,
    sentence_starts: np.ndarray,
    sequence_length: int,
) -> np.ndarray:
    """Packs as many full sentences of a document into a record as it holds.

    Only a sentence that is longer than a record is cut. No token is lost.

    Args:
        documents: sequence of ints. The documents to pack.
        document_starts: int64 array of shape `(all documents + 1,)`. First sentence of each
            document.
        sentence_starts: int64 array of shape `(all sentences + 1,)`. First token of each
            sentence.
        sequence_length: int. The longest record, with [CLS] and [SEP].

    Returns:
        int64 array of shape `(records, 5)`, without second segments; the label is 0.
    """
    most_tokens = sequence_length - _SPECIAL_TOKENS_OF_SINGLE
    records: list[tuple[int, int, int, int, int]] = []
    for document in documents:
        start, end = document_starts[document : document + 2]
        bounds = sentence_starts[start : end + 1].tolist()
        position = bounds[0]
        while position < bounds[-1]:
            border = bounds[bisect_right(bounds, position + most_tokens) - 1]
            stop = border if border > position else position + most_tokens
            records.append((position, stop, 0, 0, 0))
            position = stop
    return np.array(records, dtype=np.int64).reshape(-1, RECORD_COLUMNS)


def _draw(draws: np.random.Generator, smallest: int, largest: int) -> int:
    """An integer in [smallest, largest]."""
    return smallest + int(draws.random() * (largest - smallest + 1))


def _random_segment(
    draws: np.random.Generator, document_range: np.ndarray, sentence_starts: np.ndarray, target: int
) -> tuple[int, int]:
    """Sentences from a random place of a document, until there are `target` tokens."""
    start, end = document_range.tolist()
    first = start + int(draws.random() * (end - start))
    bounds = sentence_starts[first : min(end, first + max(target, 1)) + 1].tolist()
    last = bisect_left(bounds, bounds[0] + target, 1)
    return bounds[0], bounds[min(last, len(bounds) - 1)]


def _truncate(
    draws: np.random.Generator, first: tuple[int, int], second: tuple[int, int], most_tokens: int
) -> tuple[int, int, int, int]:
    """Takes tokens off the longer segment, one by one from a random end, until both fit."""
    first_length, second_length = first[1] - first[0], second[1] - second[0]
    excess = first_length + second_length - most_tokens
    if excess <= 0:
        return (*first, *second)
    to_equal = min(abs(first_length - second_length), excess)
    from_first = (excess - to_equal) // 2
    from_second = excess - to_equal - from_first
    if first_length > second_length:
        from_first += to_equal
    else:
        from_second += to_equal
    return (*_shorten(draws, first, from_first), *_shorten(draws, second, from_second))


def _shorten(draws: np.random.Generator, segment: tuple[int, int], number: int) -> tuple[int, int]:
    from_front = int(draws.binomial(number, 0.5))
    return segment[0] + from_front, segment[1] - (number - from_front)
