"""Named sources of raw text."""

import gzip
import json
import sys
import types

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.corpus.reader import TaggedCorpusReader

from keras_taskrobust.parts import Part
from keras_taskrobust.text import Corpus, load_corpus
from keras_taskrobust.text.bundled_corpus import prose_paragraphs
from keras_taskrobust.text.pretokenization import pretokenize
from keras_taskrobust.text.splitting import (
    TextSplitter,
    split_document,
    split_sentences_by_rules,
    split_words,
)

pytestmark = pytest.mark.backend_free

FAULTY_FILES = {
    "empty.txt": (b"", "empty file"),
    "blank.txt": (b" \n\n", "empty file"),
    "binary.txt": (b"abc\0def", r"binary file \(a zero byte at position 3\)"),
    "latin.txt": ("caf\xe9 au lait".encode("latin-1"), "not UTF-8"),
    "damaged.txt.gz": (gzip.compress(b"some text")[:-6], "damaged gzip file"),
    "plain.gz": (b"not gzip at all", "damaged gzip file"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
    "field.jsonl": (b'{"body": "a"}\n', "line 1 is not an object with a string"),
    "nested.jsonl": (b'{"text": "a"}\n' + b"[" * 100_000, "line 2 is not JSON"),
    "digits.jsonl": (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", "line 1 is not JSON"),
}


def test_a_text_file_has_paragraphs_and_documents(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("It rained.\nAll day\nlong. We\n\nslept.\n\n\nChapter two.\n", encoding="utf-8")
    first, second = load_corpus(str(path))
    assert first == [
        ["It", "rained", "."],
        ["All", "day", "long", "."],
        ["We"],
        ["slept", "."],
    ]
    assert second == [["Chapter", "two", "."]]


def test_json_lines_are_documents(tmp_path):
    path = tmp_path / "many.jsonl"
    rows = [{"text": "One here.", "id": 1}, {"text": "  "}, {"text": "Two here."}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    assert list(load_corpus(path)) == [[["One", "here", "."]], [["Two", "here", "."]]]


def test_half_a_character_is_replaced(tmp_path, encoder):
    path = tmp_path / "halves.jsonl"
    path.write_text(r'{"text": "A \ud83d cat, \ud83d\ude00."}')
    (document,) = load_corpus(path)
    assert document == [["A", "\ufffd", "cat", ",", "\U0001f600", "."]]
    assert all(encoder.pieces(word) for word in document[0])


@pytest.mark.parametrize("word", ["a" * 200_000, "a.b" * 70_000, "\u4e2d" * 200_000])
def test_a_word_that_is_none_is_dropped(word):
    (document,) = load_corpus([[["A", word, "cat"], [word]]])
    assert document == [["A", "cat"]]
    splitter = TextSplitter("rules")
    assert split_document(f"A {word} cat", splitter) == [["A", "cat"]]
    kept = [["A", word[:10_000]]]
    assert split_document(kept, splitter) == kept


def test_a_damaged_file_of_an_nltk_corpus_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "good.txt").write_text("good cats")
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9 au lait")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    reader = TaggedCorpusReader(str(tmp_path), ["bad.txt", "good.txt"])
    monkeypatch.setattr(nltk, "corpus", types.SimpleNamespace(tiny=reader))
    corpus = load_corpus("nltk:tiny")
    with pytest.warns(UserWarning, match=r"skipped: .*bad\.txt: .*codec can't decode"):
        assert list(corpus) == [[["good", "cats"]]]
    assert list(corpus) == [[["good", "cats"]]]
    assert list(corpus.skipped) == [str(tmp_path / "bad.txt")]
    with pytest.raises(ValueError, match=r"files can all be read.*bad\.txt"):
        list(load_corpus("nltk:tiny", strict=True))


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfSecond.")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"First."))
    (tmp_path / "sub" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "Third."}'))
    (tmp_path / "notes.md").write_text("Not this.")
    assert [document[0][0] for document in load_corpus(tmp_path)] == ["First", "Second", "Third"]


@pytest.mark.parametrize("name", FAULTY_FILES)
def test_a_faulty_file_is_named_and_skipped(tmp_path, name):
    content, fault = FAULTY_FILES[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("Good.")
    skipped = rf"1 of 2 text files are skipped: .*{name}: {fault}.*`encoding` says.*`text_field` w"
    with pytest.warns(UserWarning, match=skipped):
        corpus = load_corpus(tmp_path)
    assert list(corpus.skipped) == [str(tmp_path / name)]
    assert list(corpus) == [[["Good", "."]]]
    with pytest.raises(ValueError, match=rf"must be text in UTF-8.*Received: 1 of 2.*{name}"):
        load_corpus(tmp_path, strict=True)


def test_nothing_but_faulty_files_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"Received: 1 of 1 files that are not: .*empty file"):
        load_corpus(tmp_path)


def test_a_fault_behind_the_first_megabyte_is_found(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"word " * 300_000 + b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_corpus(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/file.txt", "`source` must be 'bundled'.*which does not exist"),
        ("nltk:no_such_corpus", "must name a corpus of `nltk.corpus`"),
        ("nltk:util", "must name a corpus of `nltk.corpus`"),
        (3, "or a sequence of documents. Received: 3"),
    ],
)
def test_an_unknown_source_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        load_corpus(source)


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which has none"):
        load_corpus(tmp_path)


def test_a_corpus_and_documents_are_taken_as_they_are():
    documents = [[["A", "b", "."]], [], [["C", "."]]]
    corpus = load_corpus(documents)
    assert isinstance(corpus, Corpus)
    assert load_corpus(corpus) is corpus
    assert list(corpus) == list(corpus) == [[["A", "b", "."]], [["C", "."]]]


def test_the_treebank_comes_without_traces(nltk_data):
    documents = list(load_corpus("nltk:treebank"))
    words = [word for document in documents for sentence in document for word in sentence]
    assert len(documents) == 199
    assert len(words) == 94_084
    assert not {"*T*-1", "-LRB-", "``"} & set(words)


def test_a_missing_nltk_corpus_says_what_to_do(no_nltk_data):
    from nltk.corpus import ppattach

    ppattach._unload()
    with pytest.raises(LookupError, match=r"'ppattach'.*python -m nltk.downloader ppattach"):
        load_corpus("nltk:ppattach")


def test_an_nltk_corpus_without_sentences_is_refused(nltk_data):
    with pytest.raises(ValueError, match="that has sentences"):
        load_corpus("nltk:ppattach")


class FakeTfds(types.ModuleType):
    """Stands in for tensorflow_datasets: two sets, one of them without text."""

    class core:
        class DatasetNotFoundError(ValueError):
            pass

    @classmethod
    def data_source(cls, name, split):
        if name == "reviews/plain:1.0.0":
            return [{"text": f"A {split} text.".encode(), "label": 1}]
        if name == "lines":
            return [{"text": f"Line {number}."} for number in range(5)]
        if name == "digits":
            return [{"image": 0, "label": 1}]
        if name == "old_format":
            raise NotImplementedError
        raise cls.core.DatasetNotFoundError

    @staticmethod
    def load(name, split):
        return [{"text": f"{name} {split}".encode()}]

    as_numpy = staticmethod(list)


@pytest.mark.parametrize(
    ("documents", "lengths"),
    [("auto", [3, 1]), ("blank-lines", [2, 1, 1]), ("line", [1, 1, 1, 1]), ("file", [4])],
)
def test_what_ends_a_document(tmp_path, documents, lengths):
    path = tmp_path / "notes.txt"
    path.write_text("One is here.\nTwo is here.\n\nThree is here.\n \n\nFour is here.\n")
    assert [len(one) for one in load_corpus(path, documents=documents)] == lengths


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_text_in_another_encoding(tmp_path, encoding):
    path = tmp_path / "notes.txt"
    path.write_bytes("Un caf\xe9.\n\n\nNon.\n".encode(encoding))
    assert list(load_corpus(path, encoding=encoding)) == [[["Un", "caf\xe9", "."]], [["Non", "."]]]
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"in UTF-16.* `encoding` .*notes\.txt: not UTF-16"):
        load_corpus(path, encoding="utf-16")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "iso2022_jp"])
def test_text_in_utf_8_is_read_as_such_beside_another_encoding(tmp_path, encoding):
    word = "\u65e5\u672c" if encoding in ("utf-16", "iso2022_jp") else "caf\xe9"
    for name, one in {"a.txt": encoding, "b.txt": "utf-8"}.items():
        (tmp_path / name).write_bytes(f"One {word}.\n".encode(one))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(f'{{"text": "One {word}."}}\n'.encode()))
    (tmp_path / "d.txt").write_bytes(b"word " * 300_000 + f"{word}.".encode())
    *three, (long,) = list(load_corpus(tmp_path, encoding=encoding))
    assert three == [[["One", word, "."]]] * 3
    assert long[-2:] == [word, "."]


def test_text_in_another_field(tmp_path, fake_tfds):
    path = tmp_path / "many.jsonl"
    path.write_text('{"body": "One here.", "id": 1}\n{"body": "Two here."}\n')
    assert len(list(load_corpus(path, text_field="body"))) == 2
    with pytest.raises(ValueError, match=r"`text_field` .*a string \"text\", but with body, id"):
        load_corpus(path)
    with pytest.raises(ValueError, match="a field 'words' .* with \\['label', 'text'"):
        list(load_corpus("tfds:reviews/plain:1.0.0", text_field="words"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"documents": "lines"}, "`documents` must be one of .*Did you mean 'line'"),
        ({"encoding": "utf-3"}, "`encoding` must be an encoding that Python knows"),
        ({"encoding": 8}, "`encoding` must be .*Received: encoding=8"),
    ],
)
def test_formats_that_there_are_not(fields, message):
    with pytest.raises(ValueError, match=message):
        load_corpus("bundled", **fields)


def test_a_path_that_is_like_another_and_files_of_other_kinds(tmp_path):
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles" / "one.md").write_text("One.")
    with pytest.raises(ValueError, match=r"does not exist. Did you mean '.*articles'\?"):
        load_corpus(str(tmp_path / "article"))
    with pytest.raises(ValueError, match=r"\.txt, .*sub-folders.*which has none, but \.md"):
        load_corpus(tmp_path / "articles")


@pytest.fixture
def fake_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", FakeTfds("tensorflow_datasets"))


def test_a_tfds_set_is_read_lazily(fake_tfds):
    assert list(load_corpus("tfds:reviews/plain:1.0.0")) == [[["A", "train", "text", "."]]]
    assert next(iter(load_corpus("tfds:reviews/plain:1.0.0@test")))[0][1] == "test"
    assert list(load_corpus("tfds:old_format")) == [[["old_format", "train"]]]


@pytest.mark.parametrize("name", ["lines", "old_format"])
def test_a_tfds_set_in_parts(fake_tfds, name):
    parts = [load_corpus(f"tfds:{name}", part=Part(number, 3)) for number in (1, 2, 3)]
    found = [list(part.raw_documents()) for part in parts]
    whole = list(load_corpus(f"tfds:{name}").raw_documents())
    assert [one for part in found for one in part] == whole
    assert sorted(map(len, found)) == ([1, 2, 2] if name == "lines" else [0, 0, 1])


@pytest.mark.parametrize(
    ("name", "message"), [("digits", "a field 'text'"), ("no_such", "TFDS does not know")]
)
def test_a_tfds_set_without_text_is_refused(fake_tfds, name, message):
    with pytest.raises(ValueError, match=message):
        list(load_corpus(f"tfds:{name}"))


def test_the_bundled_corpus_is_english_and_deterministic():
    from keras_taskrobust.text import bundled_corpus

    texts = bundled_corpus.bundled_documents()
    assert texts == bundled_corpus.bundled_documents.__wrapped__()
    words = " ".join(texts).split()
    print(f"bundled: {len(texts)} documents, {len(words)} words")
    assert len(texts) > 300
    assert len(words) > 200_000
    assert not any(line.startswith(">>>") for text in texts for line in text.splitlines())
    share = sum(word.strip(".,:;()\"'").isalpha() for word in words) / len(words)
    assert share > 0.9


def test_code_does_not_read_as_english():
    text = """Return a new list.

    sorted(iterable, /, *, key=None) -> list

    The items of the iterable must be comparable with each other.
    >>> sorted([3, 1])
    [1, 3]

      * The first of the options is for the impatient reader.
      * The second of them is for all of the others.

    Heading of a section in this text
    ---------------------------------
    This is what stands under the heading of it."""
    assert list(prose_paragraphs(text)) == [
        "The items of the iterable must be comparable with each other.",
        "The first of the options is for the impatient reader.",
        "The second of them is for all of the others.",
        "This is what stands under the heading of it.",
    ]


def test_rules_split_sentences_but_not_abbreviations():
    text = (
        'Mr. J. Smith of the U.S. Army left. "Why?" she asked. At 5 p.m. he came! (He did.) 3 left.'
    )
    assert split_sentences_by_rules(text) == [
        "Mr. J. Smith of the U.S. Army left.",
        '"Why?" she asked.',
        "At 5 p.m. he came!",
        "(He did.)",
        "3 left.",
    ]


def test_punkt_is_used_where_its_data_are(nltk_data):
    splitter = TextSplitter()
    assert splitter.sentences == "punkt"
    assert splitter("Dr. No left. He ran.") == [["Dr.", "No", "left", "."], ["He", "ran", "."]]


def test_without_punkt_rules_are_used(no_nltk_data):
    assert TextSplitter().sentences == "rules"


def test_an_unknown_splitter_is_refused():
    with pytest.raises(ValueError, match="`sentences` must be one of"):
        TextSplitter("spam")


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_split_words_keep_the_word_borders_of_bert(text):
    text = " ".join(text.split())
    words = list(split_words(text))
    assert all(words)
    assert "".join(words).replace(" ", "") == text.replace(" ", "")
    assert pretokenize(" ".join(words)) == pretokenize(text)
