"""Annotated tokens -> masked batches, as a pure function of (record, epoch, seed)."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.data_loading import WHOLE, rows_of_part
from keras_taskrobust.randomness import hash_counters, shuffled, to_unit_interval
from keras_taskrobust.text.annotated_text import AnnotatedText
from keras_taskrobust.text.pos import tasks_of_tag_set

if TYPE_CHECKING:
    import grain

MASKABLE = ("tasks", "all")
OTHER = "other"

_MASKED_SHARE = 0.8
_RANDOM_SHARE = 0.1
# What a random number is for; a part of its key.
_CHOICE, _REPLACEMENT, _RANDOM_PIECE = range(3)

Batch = tuple[dict[str, np.ndarray], dict]


class Encoder(Protocol):
    """What the masking asks of an encoder; `WordPieceEncoder` has it."""

    hash: str
    mask_id: int
    special_ids: tuple[int, ...]

    @property
    def vocabulary_size(self) -> int: ...


class RecordSource(Protocol):
    """Annotated records with vectorised access; `AnnotatedText` is one."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]: ...


def pos_task_names(maskable: str = "tasks", tag_set: str = "nine") -> tuple[str, ...]:
    """Names the groups of the masked tokens, in the order of their indices.

    Args:
        maskable: string. `"tasks"` or `"all"`, as in `PosMasking`.
        tag_set: string. `"nine"` or `"penn"`, as in `PosMasking`.

    Returns:
        tuple of strings. `POS_TASKS` or `PENN_TASKS`; for `"all"` followed by `"other"`.

    Example:

    >>> pos_task_names("all")[-2:]
    ('interjection', 'other')
    """
    checks.choice("maskable", maskable, MASKABLE)
    task_names = tasks_of_tag_set(tag_set)
    return task_names if maskable == "tasks" else (*task_names, OTHER)


class PosMasking:
    """Masks tokens for masked language modelling by part of speech.

    Of a record's maskable tokens, the share `rate` (rounded; at least one, at most
    `max_predictions`) is chosen uniformly. Of the chosen ones 80 % become [MASK], 10 %
    another piece, uniform over the vocabulary without its special tokens, and 10 % stay. Special
    tokens ([UNK] included) and padding are never chosen.

    Args:
        encoder: a `WordPieceEncoder`, whose special ids and vocabulary size are used.
        rate: float in (0, 1]. The share of the maskable tokens.
        max_predictions: int >= 1. The slots P of a record.
        maskable: string. `"tasks"`: the tokens of the tasks. `"all"`: all tokens; those of no
            task form a further group, "other".
        whole_word: bool. Whether a word is masked as a whole or not at all. Words are then
            taken in random order while they fit into the number above, as in BERT; a record in
            which no word fits has no masked token.
        copies: int >= 1 or `None`. `None`: a new mask in every epoch. Otherwise as many masks
            a record, taken in turn (the paper has 10).
        seed: int >= 0.
        tag_set: string. The tasks of the text: `"nine"` for `POS_TASKS`, or `"penn"` for
            `PENN_TASKS`. The same tokens are masked with either.

    Call arguments:
        records: dict of arrays, as `AnnotatedText.batch` gives them.
        epoch: int >= 0.

    Call returns:
        A tuple `(x, y)`. `x`: "token_ids" `(B, S)` int32, "padding_mask" `(B, S)` bool,
        "segment_ids" `(B, S)` int32, "mask_positions" `(B, P)` int32, ascending, unused slots 0.
        `y`: "masked_lm", a dict of "labels" `(B, P)` int32 (unused slots 0) and "groups"
        `(B, P)` int32 (index in `group_names`, unused slots -1); and "next_sentence" `(B,)` int32
        if the records have it.

    Example:

    >>> from keras_taskrobust.text.vocabulary import SPECIAL_TOKENS, WordPieceEncoder
    >>> encoder = WordPieceEncoder([*SPECIAL_TOKENS, "the", "cat", "sat"])
    >>> records = {
    ...     "record": np.array([0]),
    ...     "token_ids": np.array([[2, 5, 6, 7, 3, 0]], "int32"),
    ...     "tasks": np.array([[-1, 3, 1, 0, -1, -1]], "int8"),
    ...     "word_ids": np.array([[-1, 0, 1, 2, -1, -1]], "int32"),
    ...     "segment_ids": np.zeros((1, 6), "int32"),
    ...     "lengths": np.array([5]),
    ... }
    >>> x, y = PosMasking(encoder, max_predictions=2)(records, epoch=0)
    >>> y["masked_lm"]["groups"].shape
    (1, 2)
    """

    def __init__(
        self,
        encoder: Encoder,
        rate: float = 0.15,
        max_predictions: int = 20,
        maskable: str = "tasks",
        whole_word: bool = False,
        copies: int | None = None,
        seed: int = 0,
        tag_set: str = "nine",
    ):
        self.rate = checks.fraction("rate", rate)
        self.max_predictions = checks.integer("max_predictions", max_predictions, least=1)
        self.copies = checks.integer_or_none("copies", copies, least=1)
        self.seed = checks.integer("seed", seed, least=0)
        self.task_names = tasks_of_tag_set(tag_set)
        self.group_names = pos_task_names(maskable, tag_set)
        self.maskable = maskable
        self.whole_word = whole_word
        self.vocabulary_hash = encoder.hash
        self.vocabulary_size = encoder.vocabulary_size
        self.mask_id = encoder.mask_id
        self._is_special = np.zeros((encoder.vocabulary_size,), bool)
        self._is_special[list(encoder.special_ids)] = True
        self._ordinary_ids = np.flatnonzero(~self._is_special).astype(np.int32)

    def groups_of_tokens(self, records: Mapping[str, np.ndarray]) -> np.ndarray:
        """The group that each token has if it is masked: `(B, S)` int32, -1 if it never is.

        Args:
            records: dict of arrays, as for a call.
        """
        token_ids, tasks = records["token_ids"], records["tasks"]
        maskable = np.arange(token_ids.shape[1]) < records["lengths"][:, None]
        maskable &= ~self._is_special[token_ids]
        if self.maskable == "tasks":
            maskable &= tasks >= 0
        groups = np.where(tasks < 0, len(self.task_names), tasks)
        return np.where(maskable, groups, -1).astype(np.int32)

    def __call__(self, records: Mapping[str, np.ndarray], epoch: int = 0) -> Batch:
        token_ids = records["token_ids"]
        padding_mask = np.arange(token_ids.shape[1]) < records["lengths"][:, None]
        groups = self.groups_of_tokens(records)
        maskable = groups >= 0
        numbers = self._numbers_to_mask(maskable)
        mask = epoch if self.copies is None else epoch % self.copies
        key = hash_counters(self.seed, records["record"], mask)[:, None]
        if self.whole_word:
            chosen = _choose_words(maskable, records["word_ids"], numbers, key)
        else:
            chosen = _choose_tokens(maskable, numbers, key)
        positions, used = _slots(chosen, self.max_predictions)
        labels = np.where(used, np.take_along_axis(token_ids, positions, axis=1), 0)
        groups = np.where(used, np.take_along_axis(groups, positions, axis=1), -1)
        masked_ids = token_ids.astype(np.int32)
        rows, slots = np.nonzero(used)
        masked_ids[rows, positions[rows, slots]] = self._replace(labels, positions, key)[used]
        x = {
            "token_ids": masked_ids,
            "padding_mask": padding_mask,
            "segment_ids": records["segment_ids"].astype(np.int32, copy=False),
            "mask_positions": positions.astype(np.int32),
        }
        y: dict = {
            "masked_lm": {
                "labels": labels.astype(np.int32),
                "groups": groups.astype(np.int32),
            }
        }
        if "next_sentence" in records:
            y["next_sentence"] = records["next_sentence"].astype(np.int32, copy=False)
        return x, y

    def _numbers_to_mask(self, maskable: np.ndarray) -> np.ndarray:
        counts = maskable.sum(axis=1)
        wanted = np.maximum(1, np.rint(self.rate * counts).astype(np.int64))
        return np.minimum(np.minimum(wanted, counts), self.max_predictions)

    def _replace(self, labels: np.ndarray, positions: np.ndarray, key: np.ndarray) -> np.ndarray:
        share = to_unit_interval(hash_counters(key, _REPLACEMENT, positions))
        numbers = hash_counters(key, _RANDOM_PIECE, positions) % np.uint64(self._ordinary_ids.size)
        pieces = np.where(
            share < _MASKED_SHARE + _RANDOM_SHARE,
            self._ordinary_ids[numbers.astype(np.int64)],
            labels,
        )
        return np.where(share < _MASKED_SHARE, self.mask_id, pieces)


def _choose_tokens(maskable: np.ndarray, numbers: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Chooses the tokens with the smallest random numbers: `(B, S)` bool."""
    drawn = hash_counters(key, _CHOICE, np.arange(maskable.shape[1]))
    drawn = np.where(maskable, drawn, np.iinfo(np.uint64).max)
    last = np.maximum(numbers - 1, 0)[:, None]
    thresholds = np.take_along_axis(np.sort(drawn, axis=1), last, axis=1)
    return maskable & (drawn <= thresholds) & (numbers > 0)[:, None]


def _choose_words(
    maskable: np.ndarray, word_ids: np.ndarray, numbers: np.ndarray, key: np.ndarray
) -> np.ndarray:
    """Takes words in random order while they fit into the numbers: `(B, S)` bool."""
    drawn = hash_counters(key, _CHOICE, np.maximum(word_ids, 0))
    drawn = np.where(maskable, drawn, np.iinfo(np.uint64).max)
    order = np.argsort(drawn, axis=1, kind="stable")
    drawn = np.take_along_axis(drawn, order, axis=1)
    starts = np.diff(drawn, axis=1, prepend=drawn[:, :1]) != 0
    ranks = np.cumsum(starts, axis=1)  # of the word, in the random order
    sizes = np.zeros(maskable.shape, np.int64)
    rows = np.broadcast_to(np.arange(len(maskable))[:, None], maskable.shape)
    np.add.at(sizes, (rows, ranks), np.take_along_axis(maskable, order, axis=1))
    taken = np.zeros(maskable.shape, bool)
    room = numbers.copy()
    for rank in range(int(ranks.max()) + 1):
        taken[:, rank] = sizes[:, rank] <= room
        room -= sizes[:, rank] * taken[:, rank]
    chosen = np.zeros(maskable.shape, bool)
    np.put_along_axis(chosen, order, np.take_along_axis(taken, ranks, axis=1), axis=1)
    return chosen & maskable


def _slots(chosen: np.ndarray, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists the chosen positions, ascending: positions `(B, P)` int64 and used `(B, P)` bool."""
    length = chosen.shape[1]
    positions = np.where(chosen, np.arange(length), length)
    if num_slots > length:
        positions = np.pad(positions, ((0, 0), (0, num_slots - length)), constant_values=length)
    positions = np.sort(positions, axis=1)[:, :num_slots]
    used = positions < length
    return np.where(used, positions, 0), used


def masked_batches(
    text: RecordSource,
    masking: PosMasking,
    batch_size: int,
    seed: int = 0,
    epochs: int | None = None,
    shuffle: bool = True,
    drop_remainder: bool = True,
    part: tuple[int, int] = WHOLE,
) -> "grain.MapDataset":
    """Makes the batches of `(x, y)` that `model.fit` takes.

    Element n is a pure function of n and the arguments: to resume a run at step n, train on
    `dataset[n:]`. Every epoch has its own order and, with dynamic masking, its own masks. For
    evaluation take `shuffle=False, epochs=1`, which fixes order and masks.

    Args:
        text: an `AnnotatedText` (or another source with `len` and `batch`).
        masking: a `PosMasking`.
        batch_size: int >= 1.
        seed: int >= 0. Chooses the order.
        epochs: int >= 1, or `None` for no end (give `fit` its `steps_per_epoch`).
        shuffle: bool. Whether the order is random.
        drop_remainder: bool. Whether the last, smaller batch of an epoch is left out.
        part: `(i, n)`: of each batch only the i-th of n equal parts is read, as `part()` of
            `keras_taskrobust.distribution` says it of a process. It has `batch_size / n` records.

    Returns:
        A `grain.MapDataset` of batches.

    Raises:
        ValueError: an argument is out of range, there is no full batch, or the text has other
            tasks or another vocabulary than the masking.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    checks.integer_or_none("epochs", epochs, least=1)
    checks.integer("seed", seed, least=0)
    if batch_size < 1 or len(text) < (batch_size if drop_remainder else 1):
        raise ValueError(
            "`batch_size` must be an integer in [1, number of records]. "
            f"Received: batch_size={batch_size} with {len(text)} records"
        )
    check_fit(text, masking)
    rows = rows_of_part(batch_size, part)
    if part != WHOLE and not drop_remainder:
        raise ValueError(f"`part` needs `drop_remainder`. Received: part={part}")
    steps = len(text) // batch_size if drop_remainder else -(-len(text) // batch_size)
    length = sys.maxsize if epochs is None else epochs * steps
    order_seed = seed if shuffle else None
    return grain.MapDataset.source(
        _MaskedBatches(text, masking, batch_size, rows, order_seed, steps, length)
    )


def check_fit(text: RecordSource, masking: PosMasking) -> None:
    """Raises a `ValueError` for an `AnnotatedText` with other tasks or pieces than the masking."""
    if not isinstance(text, AnnotatedText):
        return
    if text.task_names != masking.task_names:
        raise ValueError(
            "`masking` must have the `tag_set` that the text was annotated with. Received: "
            f"{len(masking.task_names)} tasks for a text with {len(text.task_names)}"
        )
    if text.encoder.hash != masking.vocabulary_hash:
        raise ValueError(
            "`masking` must have the encoder that the text was annotated with, of hash "
            f"{text.encoder.hash}. Received: one of hash {masking.vocabulary_hash}"
        )


@dataclasses.dataclass(frozen=True)
class _MaskedBatches:
    """The batches by number, over all epochs."""

    text: RecordSource
    masking: PosMasking
    batch_size: int
    rows: range
    order_seed: int | None
    steps_per_epoch: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Batch:
        epoch, number = divmod(int(step), self.steps_per_epoch)
        start = number * self.batch_size
        end = min(start + self.rows.stop, len(self.text))
        indices = np.arange(start + self.rows.start, end)
        if self.order_seed is not None:
            indices = shuffled(indices, len(self.text), self.order_seed, epoch)
        return self.masking(self.text.batch(indices), epoch)
