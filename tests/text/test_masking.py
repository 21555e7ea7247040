"""Masking: its statistics over many sequences, and that it is a pure function."""

import itertools

import grain
import numpy as np
import pytest
from scipy import stats
from synthetic_text import (
    CLS,
    ENCODER,
    LENGTH,
    MASK,
    NUM_RECORDS,
    SyntheticText,
)

from keras_taskrobust.text import (
    PENN_TASKS,
    POS_TASKS,
    PosMasking,
    masked_batches,
    pos_task_names,
)

pytestmark = pytest.mark.backend_free

SLOTS = 20


@pytest.fixture(scope="module")
def text():
    return SyntheticText()


def used(y):
    return y["masked_lm"]["groups"] >= 0


def maskable_tokens(text, maskable):
    ordinary = text.token_ids >= 5
    return ordinary & (text.tasks >= 0) if maskable == "tasks" else ordinary


def chosen_positions(text, batch):
    x, y = batch
    chosen = np.zeros((len(text), LENGTH), bool)
    rows, slots = np.nonzero(used(y))
    chosen[rows, x["mask_positions"][rows, slots]] = True
    assert chosen.sum() == used(y).sum(), "a position is masked twice"
    return chosen


def equal(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in [
            *((first[0][key], second[0][key]) for key in first[0]),
            *((first[1]["masked_lm"][key], second[1]["masked_lm"][key]) for key in ("labels",)),
        ]
    )


@pytest.mark.parametrize("maskable", ["tasks", "all"])
@pytest.mark.parametrize("rate", [0.15, 0.6])
def test_number_and_place_of_masked_tokens(text, maskable, rate):
    batch = PosMasking(ENCODER, rate, SLOTS, maskable)(text.everything(), epoch=0)
    allowed = maskable_tokens(text, maskable)
    chosen = chosen_positions(text, batch)
    assert not (chosen & ~allowed).any()
    counts = allowed.sum(axis=1)
    expected = [
        0 if count == 0 else min(SLOTS, max(1, round(rate * count))) for count in counts.tolist()
    ]
    assert chosen.sum(axis=1).tolist() == expected
    assert (counts == 0).any()
    assert (counts * rate > SLOTS + 1).any() == (rate == 0.6)


@pytest.mark.parametrize("maskable", ["tasks", "all"])
def test_labels_and_groups_are_those_of_the_tokens(text, maskable):
    records = text.everything()
    x, y = PosMasking(ENCODER, maskable=maskable)(records, epoch=3)
    rows, slots = np.nonzero(used(y))
    positions = x["mask_positions"][rows, slots]
    assert np.array_equal(y["masked_lm"]["labels"][rows, slots], text.token_ids[rows, positions])
    tasks = text.tasks[rows, positions]
    assert np.array_equal(y["masked_lm"]["groups"][rows, slots], np.where(tasks < 0, 9, tasks))
    assert set(np.unique(y["masked_lm"]["groups"])) == set(range(-1, len(pos_task_names(maskable))))
    unused = ~used(y)
    assert not x["mask_positions"][unused].any()
    assert not y["masked_lm"]["labels"][unused].any()
    assert np.array_equal(x["padding_mask"], np.arange(LENGTH) < text.lengths[:, None])
    assert np.array_equal(y["next_sentence"], text.next_sentence)
    assert np.array_equal(records["token_ids"], text.token_ids), "the records were changed"


def test_shapes_and_dtypes(text):
    x, y = PosMasking(ENCODER, max_predictions=SLOTS)(text.batch(np.arange(7)), epoch=0)
    found = {key: (value.shape, value.dtype.name) for key, value in x.items()}
    assert found == {
        "token_ids": ((7, LENGTH), "int32"),
        "padding_mask": ((7, LENGTH), "bool"),
        "segment_ids": ((7, LENGTH), "int32"),
        "mask_positions": ((7, SLOTS), "int32"),
    }
    assert {key: (value.shape, value.dtype.name) for key, value in y["masked_lm"].items()} == {
        "labels": ((7, SLOTS), "int32"),
        "groups": ((7, SLOTS), "int32"),
    }
    assert (y["next_sentence"].shape, y["next_sentence"].dtype.name) == ((7,), "int32")


def test_more_slots_than_tokens(text):
    x, y = PosMasking(ENCODER, 1.0, max_predictions=LENGTH + 6)(text.batch(np.arange(50)))
    assert x["mask_positions"].shape == (50, LENGTH + 6)
    counts = maskable_tokens(text, "tasks")[:50].sum(axis=1)
    assert np.array_equal(used(y).sum(axis=1), counts)


def test_records_without_labels_give_none(text):
    records = text.batch(np.arange(3))
    del records["next_sentence"]
    assert set(PosMasking(ENCODER)(records)[1]) == {"masked_lm"}


def test_replacements_are_80_10_10(text):
    x, y = PosMasking(ENCODER, maskable="all", seed=5)(text.everything(), epoch=1)
    rows, slots = np.nonzero(used(y))
    after = x["token_ids"][rows, x["mask_positions"][rows, slots]]
    before = y["masked_lm"]["labels"][rows, slots]
    # One random piece in 95 is the token itself, which then counts as kept.
    masked, kept = (after == MASK).sum(), (after == before).sum()
    expected = np.array([0.8, 0.1 * 94 / 95, 0.1 + 0.1 / 95]) * len(after)
    observed = [masked, len(after) - masked - kept, kept]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    random_pieces = after[(after != MASK) & (after != before)]
    assert random_pieces.min() >= 5, "a special token replaced a token"
    assert stats.chisquare(np.bincount(random_pieces, minlength=100)[5:]).pvalue > 1e-3
    untouched = ~chosen_positions(text, (x, y))
    assert np.array_equal(x["token_ids"][untouched], text.token_ids[untouched])


def test_every_maskable_token_is_equally_likely():
    text = SyntheticText(1)
    text.lengths[:] = LENGTH
    text.token_ids[:] = np.where(np.arange(LENGTH) % 2, 7, CLS)
    text.tasks[:] = 1
    record = text.everything()
    many = {key: np.repeat(value, NUM_RECORDS, axis=0) for key, value in record.items()}
    many["record"] = np.arange(NUM_RECORDS)
    x, y = PosMasking(ENCODER)(many, epoch=0)
    counts = np.bincount(x["mask_positions"][used(y)], minlength=LENGTH)
    assert not counts[::2].any()
    # Five of 32 without replacement: the counts vary less than chi-square assumes.
    assert stats.chisquare(counts[1::2]).pvalue > 1e-3
    pairs = np.sort(x["mask_positions"][:, :2], axis=1)
    assert len(np.unique(pairs, axis=0)) > 300


def test_the_mask_is_a_pure_function_of_record_epoch_and_seed(text):
    indices = np.array([5, 999, 0, 42])
    masking = PosMasking(ENCODER, seed=1)
    alone = masking(text.batch(indices), epoch=2)
    everything = masking(text.everything(), epoch=2)
    assert equal(alone, tuple_of_rows(everything, indices))
    assert equal(alone, PosMasking(ENCODER, seed=1)(text.batch(indices), epoch=2))
    assert not equal(alone, masking(text.batch(indices), epoch=3))
    assert not equal(alone, PosMasking(ENCODER, seed=2)(text.batch(indices), epoch=2))


def tuple_of_rows(batch, rows):
    x, y = batch
    return (
        {key: value[rows] for key, value in x.items()},
        {"masked_lm": {key: value[rows] for key, value in y["masked_lm"].items()}},
    )


def test_static_copies_come_back(text):
    masking = PosMasking(ENCODER, copies=3)
    batches = [masking(text.batch(np.arange(20)), epoch) for epoch in range(6)]
    for first, second in itertools.combinations(range(6), 2):
        assert equal(batches[first], batches[second]) == ((second - first) % 3 == 0)


def test_whole_words_are_masked_whole(text):
    batch = PosMasking(ENCODER, 0.3, SLOTS, whole_word=True)(text.everything(), epoch=0)
    allowed = maskable_tokens(text, "tasks")
    chosen = chosen_positions(text, batch)
    assert not (chosen & ~allowed).any()
    words = np.arange(len(text))[:, None] * LENGTH + np.maximum(text.word_ids, 0)
    sizes = np.bincount(words[allowed], minlength=words.max() + 1)
    masked = np.bincount(words[chosen], minlength=words.max() + 1)
    assert np.array_equal(masked[masked > 0], sizes[masked > 0])
    wanted = np.minimum(np.maximum(1, np.rint(0.3 * allowed.sum(axis=1))), SLOTS)
    wanted[~allowed.any(axis=1)] = 0
    got = chosen.sum(axis=1)
    assert (got <= wanted).all()
    # No word that is left out would have fitted into the room that is left.
    smallest = np.full(len(text), LENGTH)
    left_out = np.flatnonzero((sizes > 0) & (masked == 0))
    np.minimum.at(smallest, left_out // LENGTH, sizes[left_out])
    assert (got + smallest > wanted).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "`rate` must be a number above 0 and at most 1. Received: rate=0.0"),
        ({"rate": float("nan")}, "`rate` must be"),
        ({"max_predictions": 0}, "`max_predictions` must be an integer >= 1"),
        ({"maskable": "nouns"}, "`maskable` must be one of tasks, all. Received: maskable=nouns"),
        ({"copies": 0}, "`copies` must be an integer >= 1 or None"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PosMasking(ENCODER, **arguments)


def test_group_names():
    assert pos_task_names() == POS_TASKS
    assert pos_task_names("all") == (*POS_TASKS, "other")
    assert pos_task_names("all", "penn") == (*PENN_TASKS, "other")


# Batches


@pytest.fixture
def small_text():
    return SyntheticText(103)


def record_numbers(text, batch):
    """Which records a batch holds, found by their lengths and next-sentence labels."""
    return [
        int(np.flatnonzero((text.token_ids == ids).mean(axis=1) > 0.5)[0])
        for ids in batch[0]["token_ids"]
    ]


def test_an_epoch_has_every_record_once(small_text):
    small_text.lengths[:] = LENGTH  # so that records can be told apart
    small_text.token_ids[:] = np.random.default_rng(1).integers(5, 100, (103, LENGTH))
    dataset = masked_batches(small_text, PosMasking(ENCODER), batch_size=10, epochs=2)
    assert isinstance(dataset, grain.MapDataset)
    assert len(dataset) == 20
    batches = [record_numbers(small_text, batch) for batch in dataset]
    epochs = [np.concatenate(batches[:10]).tolist(), np.concatenate(batches[10:]).tolist()]
    assert all(len(set(records)) == 100 for records in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_parts_are_the_rows_of_the_batches(small_text):
    def batches(**options):
        return masked_batches(small_text, PosMasking(ENCODER), 10, seed=7, **options)

    whole = batches()
    for step in (0, 3, 40):
        x, y = whole[step]
        for index in range(5):
            part_x, part_y = batches(part=(index, 5))[step]
            rows = slice(2 * index, 2 * index + 2)
            for name, array in part_x.items():
                np.testing.assert_array_equal(array, x[name][rows])
            for name, array in part_y["masked_lm"].items():
                np.testing.assert_array_equal(array, y["masked_lm"][name][rows])
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of 3"):
        batches(part=(0, 3))


def test_batches_know_their_epoch(small_text):
    masking = PosMasking(ENCODER)
    dataset = masked_batches(small_text, masking, 50, shuffle=False, epochs=3)
    for step, batch in enumerate(dataset):
        indices = np.arange(50) + 50 * (step % 2)
        assert equal(batch, masking(small_text.batch(indices), epoch=step // 2))


def test_training_resumes_at_any_step(small_text):
    def batches():
        return masked_batches(small_text, PosMasking(ENCODER), 10, seed=7)

    whole = list(itertools.islice(batches(), 25))
    resumed = list(itertools.islice(batches()[13:], 12))
    assert all(equal(a, b) for a, b in zip(whole[13:], resumed, strict=True))
    other = masked_batches(small_text, PosMasking(ENCODER), 10, seed=8)
    assert not equal(whole[0], other[0])


def test_evaluation_sees_every_record(small_text):
    dataset = masked_batches(
        small_text, PosMasking(ENCODER), 10, shuffle=False, epochs=1, drop_remainder=False
    )
    sizes = [len(x["token_ids"]) for x, _ in dataset]
    assert sizes == [10] * 10 + [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer in"),
        ({"batch_size": 104}, r"Received: batch_size=104 with 103 records"),
        ({"batch_size": 4, "epochs": 0}, "`epochs` must be an integer >= 1 or None"),
        ({"batch_size": 4, "seed": -1}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_batches_are_refused(small_text, arguments, message):
    with pytest.raises(ValueError, match=message):
        masked_batches(small_text, PosMasking(ENCODER), **arguments)


# The random numbers
