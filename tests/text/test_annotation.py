"""Annotated text: tagged, tokenised, packed, and safe to interrupt."""

import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_taskrobust.randomness import generator
from keras_taskrobust.text import (
    PENN_TASKS,
    POS_TASKS,
    SPECIAL_TOKENS,
    AnnotatedText,
    PosMasking,
    PosTagger,
    WordPieceEncoder,
    annotate,
    annotated_text,
    annotation,
    count_targets,
    masked_batches,
    penn_tag_to_task,
    shards,
    train_vocabulary,
)
from keras_taskrobust.text.annotator import SHARD_ARRAYS
from keras_taskrobust.text.corpora import MemoryCorpus
from keras_taskrobust.text.packing import _truncate, pack_pairs, pack_sentences

pytestmark = pytest.mark.backend_free

LENGTH = 64
SMALL_SHARDS = {"shard_characters": 10_000}


@pytest.fixture
def quick(documents, encoder, tmp_path):
    """`annotate` on the documents, in this process, with small shards and TextBlob."""

    def run(folder="text", **arguments):
        arguments = {
            "source": documents,
            "encoder": encoder,
            "tagger": "textblob",
            "sequence_length": LENGTH,
            "workers": 1,
            "progress": False,
            **SMALL_SHARDS,
            **arguments,
        }
        return annotate(directory=tmp_path / folder, **arguments)

    return run


def contents(folder):
    """The bytes of every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flat(documents, encoder):
    """Every token of the documents in order: ids, tasks, document, sentence."""
    tagger = PosTagger("textblob")
    rows, sentence = [], 0
    for number, document in enumerate(documents):
        for words, tasks in zip(document, tagger.tag(document), strict=True):
            for word, task in zip(words, tasks, strict=True):
                rows += [(piece, task, number, sentence) for piece in encoder.pieces(word)]
            sentence += 1
    return np.array(rows)


def find(tokens, segment):
    """Where a segment occurs in the ids of all tokens."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens[:, 0], len(segment))
    return np.flatnonzero((windows == segment).all(axis=1))


def test_pairs_are_packed_as_in_bert(quick, documents, encoder):
    text = quick()
    tokens = flat(documents, encoder)
    records = text.batch(np.arange(len(text)))
    assert set(np.unique(records["next_sentence"])) == {0, 1}
    for i in range(0, len(text), 7):
        ids, length = records["token_ids"][i], records["lengths"][i]
        first_stop, second_stop = np.flatnonzero(ids == encoder.separator_id)
        assert ids[0] == encoder.cls_id
        assert second_stop == length - 1
        assert (ids[length:] == encoder.pad_id).all()
        positions = np.arange(LENGTH)
        second = (positions > first_stop) & (positions < length)
        assert np.array_equal(records["segment_ids"][i], second)
        starts = []
        for part in (slice(1, first_stop), slice(first_stop + 1, second_stop)):
            (start,) = [
                start
                for start in find(tokens, ids[part])
                if np.array_equal(
                    tokens[start : start + part.stop - part.start, 1], records["tasks"][i][part]
                )
            ][:1]
            found = tokens[start : start + part.stop - part.start]
            assert len(set(found[:, 2])) == 1, "a segment crosses a document border"
            starts.append(start)
        special = np.isin(positions, [0, first_stop]) | (positions >= second_stop)
        assert (records["tasks"][i][special] == -1).all()
        assert (records["word_ids"][i][special] == -1).all()
        assert (records["word_ids"][i][~special] >= 0).all()


def test_labels_say_whether_the_second_segment_follows(quick, documents, encoder, tmp_path):
    text = quick()
    document_of = flat(documents, encoder)[:, 2]
    rows = np.fromfile(tmp_path / "text" / "records_train.bin", "<i8").reshape(-1, 5)
    first, second, labels = rows[:, :2], rows[:, 2:4], rows[:, 4]
    same = document_of[first[:, 0]] == document_of[second[:, 0]]
    assert np.array_equal(same, labels == 1)
    assert (second[labels == 1, 0] >= first[labels == 1, 1]).all()
    assert text.manifest["splits"]["train"]["next_sentences"] == labels.sum()


def test_half_of_the_pairs_are_real():
    # 20 documents of 1,000 sentences of 8 tokens.
    document_starts = np.arange(0, 20_001, 1000)
    sentence_starts = np.arange(0, 160_001, 8)
    rows = pack_pairs(range(20), document_starts, sentence_starts, 128, 0.1, seed=0)
    labels = rows[:, 4]
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(labels))
    lengths = rows[:, 1] - rows[:, 0] + rows[:, 3] - rows[:, 2]
    assert lengths.max() <= 125
    assert (rows[:, 1] > rows[:, 0]).all()
    assert (rows[:, 3] > rows[:, 2]).all()
    assert 0.85 < (lengths >= 118).mean() < 0.95, "nine in ten pairs fill the sequence"
    # Random partners come from everywhere, evenly.
    counts = np.bincount(rows[labels == 0, 2] // 8000)
    assert stats.chisquare(counts).pvalue > 1e-3
    # No token is lost, but by truncation.
    covered = np.zeros(160_000, bool)
    for a, b, c, d, label in rows:
        covered[a:b] = True
        if label:
            covered[c:d] = True
    assert covered.mean() > 0.95


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 50), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_truncation_is_that_of_bert(first_length, second_length, most, seed):
    lengths = [first_length, second_length]  # BERT: the longer one loses a token, or the second
    while sum(lengths) > most:
        lengths[0 if lengths[0] > lengths[1] else 1] -= 1
    first, second = (100, 100 + first_length), (500, 500 + second_length)
    a, b, c, d = _truncate(generator(seed), first, second, most)
    assert [b - a, d - c] == lengths
    assert first[0] <= a <= b <= first[1]
    assert second[0] <= c <= d <= second[1]


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=5),
    st.integers(8, 30),
)
@settings(max_examples=100, deadline=None)
def test_sentences_are_packed_without_loss(documents, length):
    sentence_starts = np.cumsum([0, *(n for document in documents for n in document)])
    document_starts = np.cumsum([0, *map(len, documents)])
    rows = pack_sentences(range(len(documents)), document_starts, sentence_starts, length)
    assert rows[0, 0] == 0
    assert np.array_equal(rows[1:, 0], rows[:-1, 1])
    assert rows[-1, 1] == sentence_starts[-1]
    assert (rows[:, 1] - rows[:, 0] <= length - 2).all()
    document_ends = set(sentence_starts[document_starts[1:]].tolist())
    assert document_ends <= set(rows[:, 1].tolist()), "a record crosses a document border"
    borders = set(sentence_starts.tolist())
    for start, end in rows[:, :2].tolist():
        if end not in borders:
            assert end - start == length - 2, "a sentence that would fit is cut"
            assert not borders & set(range(start + 1, end + 1))
        elif end not in document_ends:
            following = min(border for border in borders if border > end)
            assert following - start > length - 2, "a further sentence would fit"


def test_without_next_sentence_records_hold_all_tokens_once(quick, documents, encoder):
    text = quick(next_sentence=False)
    records = text.batch(np.arange(len(text)))
    assert "next_sentence" not in records
    assert not records["segment_ids"].any()
    inside = records["word_ids"] >= 0
    tokens = flat(documents, encoder)
    assert np.array_equal(records["token_ids"][inside], tokens[:, 0])
    assert np.array_equal(records["tasks"][inside], tokens[:, 1])
    assert np.array_equal(inside.sum(axis=1) + 2, records["lengths"])
    last = records["token_ids"][np.arange(len(text)), records["lengths"] - 1]
    assert (last == encoder.separator_id).all()


def test_pieces_of_a_word_share_its_number(quick, documents, encoder):
    record = quick(next_sentence=False)[0]
    words = [word for sentence in documents[0] for word in sentence]
    pieces = [encoder.pieces(word) for word in words]
    expected = [number for number, ids in enumerate(pieces) for _ in ids][: LENGTH - 2]
    found = record["word_ids"][1 : record["lengths"] - 1]
    assert len(found) > 40
    assert found.tolist() == expected[: len(found)]


def test_one_record_is_a_row_of_a_batch(quick):
    text = quick()
    batch = text.batch(np.array([3, 0]))
    record = text[3]
    assert set(record) == set(batch)
    assert all(np.array_equal(record[key], batch[key][0]) for key in record)
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "record": ((2,), "int64"),
        "token_ids": ((2, LENGTH), "int32"),
        "tasks": ((2, LENGTH), "int8"),
        "word_ids": ((2, LENGTH), "int32"),
        "segment_ids": ((2, LENGTH), "int32"),
        "lengths": ((2,), "int32"),
        "next_sentence": ((2,), "int32"),
    }
    with pytest.raises(IndexError, match=r"`index` must be in \[0, "):
        text[len(text)]


def test_splits_share_no_document(quick, documents, encoder, tmp_path):
    train = quick(held_out=0.25)
    held_out = AnnotatedText(tmp_path / "text", encoder, split="held_out")
    document_of = flat(documents, encoder)[:, 2]
    seen = []
    for split in ("train", "held_out"):
        rows = np.fromfile(tmp_path / "text" / f"records_{split}.bin", "<i8").reshape(-1, 5)
        seen.append(set(document_of[rows[:, [0, 2]]].ravel().tolist()))
    assert not seen[0] & seen[1]
    assert len(seen[1]) == 6
    assert len(seen[0]) == 18
    assert (len(train) > 100) & (len(held_out) > 10)
    assert {split: values["documents"] for split, values in train.manifest["splits"].items()} == {
        "train": 18,
        "held_out": 6,
    }


def test_the_manifest_counts_the_tasks(quick, documents, encoder, tmp_path):
    quick(held_out=0.25)
    tokens = flat(documents, encoder)
    splits = json.loads((tmp_path / "text" / "manifest.json").read_text())["splits"]
    for task, name in enumerate(POS_TASKS):
        total = sum(split["tasks"][name] for split in splits.values())
        assert total == (tokens[:, 1] == task).sum(), name
    assert sum(split["tokens"] for split in splits.values()) == len(tokens)


def test_penn_tags_refine_the_nine_tasks(quick, tmp_path, encoder):
    nine = quick("nine", held_out=0.25)
    penn = quick("penn", held_out=0.25, tag_set="penn")
    assert (nine.task_names, penn.task_names) == (POS_TASKS, PENN_TASKS)
    assert "tag_set" not in nine.manifest["settings"]
    assert penn.manifest["settings"]["tag_set"] == "penn"
    for split in ("train", "held_out"):
        fine = AnnotatedText(tmp_path / "penn", encoder, split).task_counts
        coarse = dict.fromkeys(POS_TASKS, 0)
        for tag, count in fine.items():
            coarse[POS_TASKS[penn_tag_to_task(tag)]] += count
        assert coarse == AnnotatedText(tmp_path / "nine", encoder, split).task_counts
    # The same tokens are masked, with the same tokens in their place.
    batches = [
        masked_batches(text, PosMasking(encoder, tag_set=tag_set), 16, shuffle=False, epochs=1)[0]
        for text, tag_set in ((nine, "nine"), (penn, "penn"))
    ]
    for key, values in batches[0][0].items():
        np.testing.assert_array_equal(batches[1][0][key], values)
    tasks, tags = (y["masked_lm"]["groups"] for _, y in batches)
    to_task = np.array([*map(penn_tag_to_task, PENN_TASKS), -1])
    np.testing.assert_array_equal(to_task[tags], tasks)
    assert len(np.unique(tags)) > 15


def test_another_tag_set_is_tagged_again(quick, tmp_path):
    quick("other", tag_set="penn")
    quick()
    quick(tag_set="penn")
    assert contents(tmp_path / "other") == contents(tmp_path / "text")


@pytest.mark.parametrize(("annotated", "masked"), [("nine", "penn"), ("penn", "nine")])
def test_a_masking_for_another_tag_set_is_refused(quick, encoder, annotated, masked):
    text = quick(tag_set=annotated)
    masking = PosMasking(encoder, tag_set=masked)
    for read in (lambda: masked_batches(text, masking, 4), lambda: count_targets(text, masking)):
        with pytest.raises(ValueError, match=r"must have the `tag_set`.*Received: \d+ tasks"):
            read()


def test_the_result_is_reproducible(quick, tmp_path):
    quick("one")
    quick("two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    quick("three", seed=1)
    assert contents(tmp_path / "one") != contents(tmp_path / "three")


def test_an_interrupted_run_continues_to_the_same_bytes(quick, tmp_path, monkeypatch):
    quick("whole")
    written = []
    write = shards.write_shard

    def interrupted(path, arrays):
        if len(written) == 3:
            path.with_suffix(".partial").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, arrays)

    monkeypatch.setattr(shards, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick()
    with pytest.raises(ValueError, match=r"has no whole manifest.json: it was interrupted"):
        AnnotatedText(tmp_path / "text")
    after = []
    monkeypatch.setattr(
        shards, "write_shard", lambda path, *rest: (after.append(path.name), write(path, *rest))
    )
    quick()
    assert not set(written) & set(after), "a finished part was made again"
    assert contents(tmp_path / "whole") == contents(tmp_path / "text")


def test_parts_from_other_text_or_settings_are_made_again(quick, documents, tmp_path, monkeypatch):
    write = shards.write_shard

    def interrupted(path, arrays):
        write(path, arrays)
        if path.name.startswith("000003"):
            raise KeyboardInterrupt

    changed = [documents[0][::-1], *documents[1:]]
    monkeypatch.setattr(shards, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(source=changed)
    (changed_part,) = (tmp_path / "text" / "shards").glob("000000-*")
    kept = list((tmp_path / "text" / "shards").glob("00000[123]-*"))
    monkeypatch.setattr(
        shards, "write_shard", lambda path, *rest: (after.add(path), write(path, *rest))
    )
    after = set()
    quick()
    assert changed_part not in after
    assert not after & set(kept)
    quick("whole")
    assert contents(tmp_path / "whole") == contents(tmp_path / "text")


class CountingCorpus(MemoryCorpus):
    """Documents that count how often they are read to their end."""

    reads = 0

    def raw_documents(self):
        yield from super().raw_documents()
        self.reads += 1


def test_the_corpus_is_read_once(quick, documents, monkeypatch):
    corpus = CountingCorpus(documents)
    text = quick(source=corpus, encoder=1500)
    assert corpus.reads == 1
    sentences = (words for document in documents for words in document)
    assert text.encoder.vocabulary == tuple(train_vocabulary(sentences, 1500))
    monkeypatch.setattr(shards, "Annotator", None)  # nothing is tagged
    again = quick(source=corpus, encoder=1500)
    assert corpus.reads == 2
    assert again.encoder.hash == text.encoder.hash


def test_a_trained_vocabulary_is_as_good_as_a_given_one(quick, encoder, tmp_path):
    quick("given")
    text = quick(encoder=1500)
    assert text.encoder.hash == encoder.hash
    given, trained = (contents(tmp_path / name) for name in ("given", "text"))
    differs = [name for name in given if trained[name] != given[name]]
    assert differs == ["tokens.json"]
    assert quick(encoder=600).encoder.vocabulary_size == 600
    with pytest.raises(ValueError, match="`encoder` must be an integer >= 16. Received: encoder=8"):
        quick(encoder=8)


def test_a_damaged_trained_vocabulary_is_written_again(quick, tmp_path):
    quick(encoder=1500)
    whole = contents(tmp_path / "text")
    (tmp_path / "text" / "vocab.txt").write_text("[PAD]\n")
    quick(encoder=1500)
    assert contents(tmp_path / "text") == whole


def test_a_text_of_a_former_version_is_not_tagged_again(quick, documents, tmp_path, monkeypatch):
    """Its fingerprint was of the vocabulary, too."""
    quick()
    for name in ("tokens.json", "manifest.json"):
        content = annotated_text.read_json(tmp_path / "text" / name)
        content.pop("tagging", None)
        content["fingerprint"] = shards.corpus_fingerprint(
            MemoryCorpus(documents), content["settings"]
        )
        annotated_text.write_json(tmp_path / "text" / name, content)
    former = contents(tmp_path / "text")
    monkeypatch.setattr(shards, "Annotator", None)  # nothing is tagged
    quick()
    assert contents(tmp_path / "text") == former


def test_a_finished_text_is_only_packed_again(quick, tmp_path, monkeypatch):
    quick("other", sequence_length=32, held_out=0.2)
    quick()
    monkeypatch.setattr(shards, "Annotator", None)  # nothing is tagged
    before = (tmp_path / "text" / "manifest.json").stat().st_mtime_ns
    quick()
    assert (tmp_path / "text" / "manifest.json").stat().st_mtime_ns == before
    quick(sequence_length=32, held_out=0.2)
    assert contents(tmp_path / "other") == contents(tmp_path / "text")


@pytest.mark.parametrize("name", ["token_ids", "records_train"])
def test_a_short_array_is_refused_then_made_again(quick, tmp_path, name):
    quick()
    whole = contents(tmp_path / "text")
    path = tmp_path / "text" / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{name}.bin must have the \d+ bytes.*run `annotate`"):
        AnnotatedText(tmp_path / "text")
    with pytest.warns(UserWarning, match=rf"{name}.bin missing or damaged; what it comes"):
        quick()
    assert contents(tmp_path / "text") == whole


@pytest.mark.parametrize("name", ["tokens.json", "manifest.json"])
def test_a_damaged_file_of_settings_is_made_again(quick, tmp_path, name):
    quick()
    whole = contents(tmp_path / "text")
    path = tmp_path / "text" / name
    content = whole[name]
    for damaged in (
        content[:100],
        b"[]",
        b"[" * 100_000,
        content.replace(b"token_ids", b"../tokens"),
    ):
        path.write_bytes(damaged)
        if name == "manifest.json":
            with pytest.raises(ValueError, match=r"has no whole manifest.json.*run `annotate`"):
                AnnotatedText(tmp_path / "text")
        with pytest.warns(UserWarning, match=rf"{name} is damaged; it is made again"):
            quick()
        assert contents(tmp_path / "text") == whole


@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"[PAD]\n[UNK]\n", None])
def test_a_damaged_vocabulary_is_written_again(quick, tmp_path, damaged):
    quick()
    whole = contents(tmp_path / "text")
    path = tmp_path / "text" / "vocab.txt"
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    quick()
    assert contents(tmp_path / "text") == whole


def test_a_damaged_part_is_made_again(encoder, tmp_path):
    arrays = {name: np.arange(8, dtype=np.int8) for name in SHARD_ARRAYS}
    path = tmp_path / "0.npz"
    shards.write_shard(path, arrays)
    whole = path.read_bytes()
    assert shards.is_finished(path)
    assert not shards.is_finished(tmp_path / "1.npz")

    comment = whole.index(b"PK\x01\x02") + 32  # the length of one, which hides the entries after it

    @given(st.integers(0, len(whole) - 1), st.integers(0, 7), st.booleans())
    @example(comment + 1, 0, False)
    @settings(max_examples=300, deadline=None)
    def check(position, bit, cut):
        content = bytearray(whole[:position] if cut else whole)
        if not cut:
            content[position] ^= 1 << bit
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            finished = shards.is_finished(path)
        if finished:  # what was altered is no part of the arrays
            with np.load(path) as read:
                assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
        else:
            assert re.search(r"0\.npz is damaged \(.*\); it is made again", str(caught[-1].message))

    check()


def test_damaged_parts_end_no_run(quick, tmp_path, monkeypatch):
    quick("whole")
    join = annotation._join_shards

    def damage(paths, *rest):
        with np.load(paths[1]) as part:
            position = paths[1].read_bytes().index(part["word_ids"].tobytes())
        content = bytearray(paths[1].read_bytes())
        content[position] ^= 1
        paths[1].write_bytes(content)
        raise KeyboardInterrupt

    monkeypatch.setattr(annotation, "_join_shards", damage)
    with pytest.raises(KeyboardInterrupt):
        quick()
    monkeypatch.setattr(annotation, "_join_shards", join)
    with pytest.warns(UserWarning, match=r"000001-.*npz is damaged \(.*\); it is made again"):
        quick()
    assert contents(tmp_path / "whole") == contents(tmp_path / "text")


def test_a_file_is_no_folder(quick, tmp_path):
    (tmp_path / "text").write_text("a text")
    with pytest.raises(ValueError, match=r"`directory` must be a folder.*text', a file"):
        quick()


def test_another_vocabulary_is_refused(quick, tmp_path):
    text = quick()
    other = WordPieceEncoder([*SPECIAL_TOKENS, "a"])
    with pytest.raises(ValueError, match=r"`encoder` must be the one that made.*of hash"):
        AnnotatedText(tmp_path / "text", other)
    with pytest.raises(ValueError, match=rf"`masking` must have the encoder.*{other.hash}"):
        masked_batches(text, PosMasking(other), 4)


def test_the_encoder_comes_with_the_text(quick, encoder, tmp_path):
    quick()
    assert AnnotatedText(tmp_path / "text").encoder.hash == encoder.hash


def test_a_keras_hub_tokenizer_is_taken(quick, encoder):
    assert quick(encoder=encoder.to_tokenizer()).encoder.hash == encoder.hash


def test_the_split_must_exist(quick, tmp_path):
    quick()
    with pytest.raises(ValueError, match=r"`split` must be one of \('train',\).*'held_out'"):
        AnnotatedText(tmp_path / "text", split="held_out")


def test_text_without_letters_is_left_out(quick):
    source = [[["One", "two", "."], ["\u200b"]], [["\n"]], [["Three", "."]], []]
    text = quick(source=source, held_out=0.0)
    assert text.manifest["splits"]["train"]["documents"] == 2
    assert text.manifest["splits"]["train"]["sentences"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 4}, "`sequence_length` must be an integer >= 8"),
        (
            {"held_out": 1.0},
            "`held_out` must be at least 0 and less than 1. Received: h",
        ),
        ({"short_probability": 2.0}, "`short_probability` must lie between 0 and 1. Received"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"workers": 0}, "`workers` must be an integer >= 1 or None"),
        ({"shard_characters": 0}, "`shard_characters` must be an integer >= 1"),
        ({"tagger": "spam"}, "`name` must be one of"),
        ({"source": [[["One", "."]]]}, "at least 2 documents for each split.*Received: 1"),
        ({"source": []}, "Received: 0 documents"),
    ],
)
def test_bad_arguments_are_refused(quick, arguments, message):
    with pytest.raises(ValueError, match=message):
        quick(**arguments)


def test_masks_of_real_records_hold_the_tagged_words(quick, encoder):
    text = quick()
    dataset = masked_batches(text, PosMasking(encoder), 16, shuffle=False, epochs=1)
    x, y = dataset[0]
    records = text.batch(np.arange(16))
    rows, slots = np.nonzero(y["masked_lm"]["groups"] >= 0)
    positions = x["mask_positions"][rows, slots]
    assert len(rows) > 16
    assert np.array_equal(records["tasks"][rows, positions], y["masked_lm"]["groups"][rows, slots])
    assert np.array_equal(
        records["token_ids"][rows, positions], y["masked_lm"]["labels"][rows, slots]
    )


@pytest.mark.slow
def test_processes_give_the_same_bytes(quick, tmp_path):
    quick("one")
    quick("two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
