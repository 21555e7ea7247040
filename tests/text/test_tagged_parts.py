"""A corpus tagged in parts is, to the byte, the one tagged at once."""

import gzip
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_taskrobust.locks import locked
from keras_taskrobust.parts import Part
from keras_taskrobust.text import annotate, annotate_part, file_parts, load_corpus, shards
from keras_taskrobust.text.file_parts import spans_of
from keras_taskrobust.text.text_files import TextFormat, find_text_files, read_documents

pytestmark = pytest.mark.backend_free

SENTENCES = (
    "The old dog quickly ran to the red house.",
    "She and her sister bought a very small boat in the harbour.",
    "Oh, they saw it, but he never liked that slow train.",
    "A teacher reads the long letter and smiles.",
)
TAGGING = {"tagger": "textblob", "workers": 1, "progress": False, "shard_characters": 700}
PACKING = {"encoder": 120, "sequence_length": 24, "held_out": 0.2}


def document(number):
    return " ".join(SENTENCES[(number + k * k) % 4] for k in range(2 + number % 5))


def write_corpus(folder):
    """Small and large files of every kind."""
    folder.mkdir()
    texts = [document(number) for number in range(40)]
    (folder / "a.txt").write_text("\n\n\n".join(texts[:15]) + "\n")
    lines = [json.dumps({"text": text}) for text in texts[15:30]]
    (folder / "b.jsonl").write_text("\n\n".join(lines))
    (folder / "c.txt.gz").write_bytes(gzip.compress("\n\n\n".join(texts[30:34]).encode()))
    for number in range(34, 40):
        (folder / f"d{number}.txt").write_text(texts[number])
    return folder


@pytest.fixture(autouse=True)
def small_files_are_divided(monkeypatch):
    monkeypatch.setattr(file_parts, "LEAST_DIVIDED", 1000)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "texts")


def contents(folder):
    """The bytes of every file of a folder, but for who was in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def make_parts(source, directory, number, **arguments):
    return [
        annotate_part(source, directory, f"{n}/{number}", **{**TAGGING, **arguments})
        for n in range(1, number + 1)
    ]


def refused(message):
    return pytest.raises(ValueError, match=message)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 60])
def test_parts_give_the_bytes_of_the_whole(corpus, tmp_path, number):
    annotate(corpus, tmp_path / "whole", **TAGGING, **PACKING)
    documents = make_parts(corpus, tmp_path / "parts", number)
    assert sum(documents) == 40
    if number < 10:
        assert min(documents) >= 1
    annotate(corpus, tmp_path / "parts", **TAGGING, **PACKING)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_so_do_parts_of_several_sources(corpus, tmp_path):
    (tmp_path / "more.txt").write_text("\n\n\n".join(map(document, range(50, 70))))
    source = f"{corpus}+{tmp_path / 'more.txt'}"
    annotate(source, tmp_path / "whole", **TAGGING, **PACKING)
    make_parts(source, tmp_path / "parts", 3)
    annotate(source, tmp_path / "parts", **TAGGING, **PACKING)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_so_do_parts_of_documents_in_memory_and_of_the_bundled_text():
    documents = [[["Cats", "purr", str(number)]] for number in range(11)]
    for source in (documents, "bundled"):
        whole = list(load_corpus(source).raw_documents())
        parts = [load_corpus(source, part=Part(n, 4)).raw_documents() for n in (1, 2, 3, 4)]
        assert [one for part in parts for one in part] == whole


def test_parts_of_a_corpus_of_nltk_are_its_files(nltk_data):
    whole = list(load_corpus("nltk:treebank").raw_documents())
    parts = [load_corpus("nltk:treebank", part=Part(n, 7)).raw_documents() for n in range(1, 8)]
    assert [one for part in parts for one in part] == whole


def test_the_parts_are_joined_without_tagging_and_go(corpus, tmp_path, monkeypatch):
    make_parts(corpus, tmp_path / "text", 2)
    assert len(list((tmp_path / "text" / "parts").iterdir())) == 2
    monkeypatch.setattr(shards, "Annotator", None)
    annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)
    assert not (tmp_path / "text" / "parts").exists()
    annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)  # nothing is left to do


def test_a_part_reads_its_share_alone(corpus, tmp_path):
    size = sum(path.stat().st_size for path in find_text_files(corpus))
    largest = 0
    for n in (1, 2, 3):
        spans = load_corpus(corpus, part=Part(n, 3)).spans
        lengths = [
            span.path.stat().st_size if span.is_whole else span.stop - span.start for span in spans
        ]
        largest = max(largest, sum(lengths))
    assert largest < size / 2


def test_a_killed_part_goes_on(corpus, tmp_path, monkeypatch):
    make_parts(corpus, tmp_path / "whole", 2)
    write = shards.write_shard
    written = []

    def killed(path, arrays):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, arrays)

    monkeypatch.setattr(shards, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        make_parts(corpus, tmp_path / "text", 2)
    with refused(r"text/parts without 1/2, 2/2: make them"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)
    again = []
    monkeypatch.setattr(
        shards, "write_shard", lambda path, arrays: (again.append(path), write(path, arrays))
    )
    make_parts(corpus, tmp_path / "text", 2)
    assert not set(again) & set(written)
    assert contents(tmp_path / "text" / "parts") == contents(tmp_path / "whole" / "parts")


def test_a_missing_part_is_named(corpus, tmp_path):
    for n in (1, 3):
        annotate_part(corpus, tmp_path / "text", f"{n}/9", **TAGGING)
    with refused(r"without 2/9, 4/9, 5/9, 6/9, 7/9 and 2 more: make them with `part`"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)


def test_parts_of_another_number_are_refused(corpus, tmp_path):
    make_parts(corpus, tmp_path / "text", 2)
    with refused(r"of one number. Received: part=1/3, where .*parts has parts of 2"):
        annotate_part(corpus, tmp_path / "text", "1/3", **TAGGING)
    make_parts(corpus, tmp_path / "other", 3)
    shutil.copytree(tmp_path / "other" / "parts", tmp_path / "text" / "parts", dirs_exist_ok=True)
    with refused(r"of one number. Received: 1/2, 1/3, 2/2, 2/3, 3/3 in"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)


@pytest.mark.parametrize("part", ["3/2", "0/2", "1", "1/0", "-1/2", "a/b", "1/2/3", ""])
def test_there_is_no_such_part(corpus, tmp_path, part):
    with refused(r"`part` must be I/N, such as 2/3 .* Received: part="):
        annotate_part(corpus, tmp_path / "text", part, **TAGGING)


def test_parts_of_another_corpus_are_refused(corpus, tmp_path):
    make_parts(corpus, tmp_path / "text", 2)
    other = corpus.rename(tmp_path / "other")
    with refused(r"the corpus that they are joined for, other. Received: part 1/2 of texts"):
        annotate(other, tmp_path / "text", **TAGGING, **PACKING)
    other.rename(corpus)
    before = (corpus / "d39.txt").read_text()
    (corpus / "d39.txt").write_text(before.replace(".", "!"))
    with refused(r"as it is now .* Received: part 2/2, whose 0000\d\d has other text"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)
    (corpus / "d39.txt").write_text(before)
    (corpus / "e.txt").write_text(document(41))
    with refused("Received: parts of a shorter one"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)
    with refused(r"with the same `documents`.*Received: part 1/2, whose 000000 has other text"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING, documents="file")


def test_parts_of_too_few_documents_are_refused(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("\n".join(map(document, range(40))))
    make_parts(path, tmp_path / "text", 2)
    with refused("too few documents"), pytest.warns(UserWarning, match="cut into"):
        annotate(path, tmp_path / "text", **TAGGING, **PACKING)


def test_parts_with_other_settings_are_refused(corpus, tmp_path):
    make_parts(corpus, tmp_path / "text", 2, tag_set="penn")
    with refused(r"part 1/2 with tag_set penn in place of None"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)


def test_a_damaged_part_is_refused(corpus, tmp_path):
    make_parts(corpus, tmp_path / "text", 2)
    (shard, *_) = sorted((tmp_path / "text" / "parts" / "2-of-2").rglob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with (
        refused(rf"part 2/2 without .*{shard.name}: make it again"),
        pytest.warns(UserWarning, match="is damaged"),
    ):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)
    with pytest.warns(UserWarning, match="is damaged"):
        make_parts(corpus, tmp_path / "text", 2)
    annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)


def test_one_process_makes_a_part(corpus, tmp_path):
    with locked(tmp_path / "text" / "parts" / "1-of-2"):
        annotate_part(corpus, tmp_path / "text", "2/2", **TAGGING)


def test_a_fault_of_a_divided_file_ends_its_part(corpus, tmp_path):
    content = (corpus / "a.txt").read_bytes()
    (corpus / "a.txt").write_bytes(content[:-40] + b"\xff" + content[-39:])
    found = []
    for n in (1, 2, 3, 4):
        try:
            found.append(annotate_part(corpus, tmp_path / "text", f"{n}/4", **TAGGING) > 0)
        except ValueError as error:
            found.append("a.txt, bytes" in str(error) and "not UTF-8" in str(error))
    assert found == [True] * 4
    with refused("without"), pytest.warns(UserWarning, match="1 of 9 text files are skipped"):
        annotate(corpus, tmp_path / "text", **TAGGING, **PACKING)


def test_a_small_faulty_file_is_skipped_as_in_the_whole(corpus, tmp_path):
    (corpus / "d35.txt").write_bytes(b"\0")
    skipping = partial(pytest.warns, UserWarning, match=r"1 of \d+ text files are skipped")
    with skipping():
        annotate(corpus, tmp_path / "whole", **TAGGING, **PACKING)
    with skipping():
        make_parts(corpus, tmp_path / "parts", 3)
    with skipping():
        annotate(corpus, tmp_path / "parts", **TAGGING, **PACKING)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "word \u00e9", "\u3000", " ", "", "\ufeff", "{}"]), max_size=40),
    st.sampled_from(["auto", "blank-lines", "line", "file"]),
    st.integers(1, 6),
)
def test_every_document_is_in_one_part(tmp_path_factory, lines, documents, number):
    path = tmp_path_factory.mktemp("texts") / "one.txt"
    path.write_bytes("\n".join(lines).encode())
    form = TextFormat(documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_parts, "LEAST_DIVIDED", 1)
        found = [
            one
            for n in range(1, number + 1)
            for span in spans_of([path], form, Part(n, number))
            for one in read_documents(span, form)
        ]
    whole = [one for span in spans_of([path], form, Part()) for one in read_documents(span, form)]
    assert found == whole


def test_parts_of_a_corpus_object_are_refused(corpus, tmp_path):
    with refused("`source` must be a name, a path or a sequence of documents"):
        annotate_part(load_corpus(corpus), tmp_path / "text", "1/2", **TAGGING)
    assert not Path(tmp_path / "text").exists()
