"""WordPiece: training, and equality with KerasHub's tokenizer."""

import hashlib
import os
import pickle

import keras_hub
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_taskrobust.text import (
    SPECIAL_TOKENS,
    WordPieceEncoder,
    load_vocabulary,
    save_vocabulary,
    train_vocabulary,
)

pytestmark = pytest.mark.backend_free

SENTENCES = [
    ["The", "unhappy", "cats", "sat", "unhappily", "."],
    ["Happy", "dogs", "sit", "happily", ";", "the", "cat", "is", "un-happy", "."],
] * 10
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
PINNED_DIGEST = "6bf59f8f380a0b2bbfc290cb9e05904979cf583fe87471fbbbe52a4076bfbfca"
LETTERS = [*SPECIAL_TOKENS, *ALPHABET, *(f"##{letter}" for letter in ALPHABET), "the", "##ing", "é"]


def tokenize(tokenizer, text):
    return np.asarray(tokenizer(text)).tolist()


def test_a_vocabulary_is_reproducible():
    vocabulary = train_vocabulary(SENTENCES, size=64)
    assert vocabulary == train_vocabulary(iter(SENTENCES), size=64)
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(vocabulary) == len(set(vocabulary)) == 59
    # The same in every process: the trainer's own order differs from one to the next.
    digest = hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
    assert digest == PINNED_DIGEST


def test_a_vocabulary_can_keep_case():
    assert "T" in train_vocabulary(SENTENCES, 64, lowercase=False)
    assert "T" not in train_vocabulary(SENTENCES, 64)


def test_rare_characters_are_left_out_of_a_small_vocabulary():
    sentences = [["uncommon"] * 50, [chr(0x3B1 + number) for number in range(20)]]
    vocabulary = train_vocabulary(sentences, size=20)
    assert len(vocabulary) <= 20
    assert not any(ord(piece[-1]) >= 0x3B1 for piece in vocabulary)


@pytest.mark.parametrize("long", ["ab" * 100_000, "\u00e9" * 51, "x" * 101])
def test_words_that_no_vocabulary_holds_have_no_say(long):
    words = [["low", "lower", "lowest"]] * 5
    expected = train_vocabulary(words, size=40)
    assert train_vocabulary([*words, [long, long]] * 2, size=40) == expected


def test_frequent_words_are_one_piece(documents, encoder):
    words = [word.lower() for document in documents for words in document for word in words]
    assert all(len(encoder.pieces(word)) == 1 for word in ("the", "is", "and", "of", "."))
    unknown = sum(encoder.unknown_id in encoder.pieces(word) for word in words)
    assert unknown / len(words) < 0.001


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_equal_those_of_keras_hub(documents, lowercase):
    sentences = [words for document in documents for words in document]
    vocabulary = train_vocabulary(sentences, 1000, lowercase)
    encoder = WordPieceEncoder(vocabulary, lowercase)
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=vocabulary, lowercase=lowercase)
    for words in sentences[:300]:
        assert encoder.encode(words).tolist() == tokenize(tokenizer, " ".join(words))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_ids_equal_those_of_keras_hub_on_any_text(words, lowercase, strip_accents):
    encoder = WordPieceEncoder(LETTERS, lowercase, strip_accents)
    tokenizer = encoder.to_tokenizer()
    assert encoder.encode(words).tolist() == tokenize(tokenizer, " ".join(words))


@pytest.mark.parametrize(
    "word",
    [
        "the" * 40,
        "é" * 60,
        "\xad",
        "",
        "a\u200bb",
        "Straße",
        "ﬁne",
        "中文",
        "[MASK]",
        "can't",
        "x²",
    ],
)
def test_ids_equal_those_of_keras_hub_on_odd_words(word):
    encoder = WordPieceEncoder(LETTERS)
    assert encoder.encode([word]).tolist() == tokenize(encoder.to_tokenizer(), word)


def test_the_special_ids_are_found_anywhere():
    encoder = WordPieceEncoder(["a", "[SEP]", "[MASK]", "[CLS]", "[UNK]", "[PAD]"])
    assert encoder.special_ids == (5, 4, 3, 1, 2)
    assert (encoder.pad_id, encoder.unknown_id, encoder.cls_id) == (5, 4, 3)
    assert (encoder.separator_id, encoder.mask_id) == (1, 2)
    assert encoder.vocabulary_size == 6


def test_the_hash_depends_on_vocabulary_and_case():
    hashes = {
        WordPieceEncoder(LETTERS).hash,
        WordPieceEncoder(LETTERS, lowercase=False).hash,
        WordPieceEncoder([*LETTERS, "more"]).hash,
    }
    assert len(hashes) == 3
    assert WordPieceEncoder(tuple(LETTERS)).hash in hashes


def test_a_vocabulary_file_keeps_it_all(tmp_path):
    vocabulary = [*LETTERS, "\u2028", "\x85", "中"]
    save_vocabulary(vocabulary, tmp_path / "vocab.txt")
    assert load_vocabulary(tmp_path / "vocab.txt") == vocabulary
    assert (tmp_path / "vocab.txt").read_bytes().count(b"\n") == len(vocabulary)


def test_a_vocabulary_is_never_half_written(tmp_path, monkeypatch):
    path = tmp_path / "vocab.txt"
    save_vocabulary(LETTERS, path)

    def fail(source, target):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        save_vocabulary(SPECIAL_TOKENS, path)
    assert load_vocabulary(path) == LETTERS
    assert list(tmp_path.iterdir()) == [path]


def test_an_encoder_comes_from_a_keras_hub_tokenizer_or_preset(tmp_path):
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=LETTERS, lowercase=True)
    encoder = WordPieceEncoder.from_tokenizer(tokenizer)
    assert encoder.hash == WordPieceEncoder(LETTERS).hash
    keras_hub.models.BertBackbone(
        vocabulary_size=len(LETTERS), num_layers=1, num_heads=1, hidden_dim=2, intermediate_dim=2
    ).save_to_preset(str(tmp_path))
    tokenizer.save_to_preset(str(tmp_path))
    assert WordPieceEncoder.from_preset(str(tmp_path)).hash == encoder.hash


def test_an_encoder_can_be_sent_to_a_process():
    encoder = WordPieceEncoder(LETTERS, lowercase=False, strip_accents=True)
    copy = pickle.loads(pickle.dumps(encoder))
    assert (copy.hash, copy.pieces("thing")) == (encoder.hash, encoder.pieces("thing"))


def test_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="`tokenizer` must be a KerasHub WordPiece tokenizer"):
        WordPieceEncoder.from_tokenizer("bert")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], r"special tokens .* without \['\[MASK\]'\]"),
        ([*SPECIAL_TOKENS, "a", "a"], r"each piece once. Received: several of \['a'\]"),
    ],
)
def test_a_faulty_vocabulary_is_refused(vocabulary, message):
    with pytest.raises(ValueError, match=message):
        WordPieceEncoder(vocabulary)


def test_training_refuses_bad_arguments():
    with pytest.raises(ValueError, match="`size` must be an integer >= 16. Received: size=5"):
        train_vocabulary(SENTENCES, size=5)
    with pytest.raises(ValueError, match="must hold at least one word"):
        train_vocabulary([[]], size=100)
