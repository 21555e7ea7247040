"""A corpus of too few documents, cut into pieces."""

import pytest

from keras_taskrobust.text import AnnotatedText, annotate, load_corpus
from keras_taskrobust.text.pieces import CutCorpus, with_enough_documents

pytestmark = pytest.mark.backend_free

PAIRS = {"held_out": 0.1, "next_sentence": True}
SENTENCES = [f"The old dog number {number} saw it." for number in range(400)]
PROSE = " ".join(SENTENCES)
SHAPES = {
    "solid": PROSE,
    "a sentence a line": "\n".join(SENTENCES),
    "a blank line after each": "\n\n".join(SENTENCES),
    "lines without an end": "\n".join(f"headline number {number}" for number in range(400)),
    "words alone": "word " * 4000,
}


def written(tmp_path, text):
    path = tmp_path / "one.txt"
    path.write_text(text)
    return load_corpus(path)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_document_is_cut_and_no_letter_is_lost(shape, tmp_path):
    corpus = written(tmp_path, SHAPES[shape])
    pieces = list(CutCorpus(corpus).raw_documents())
    assert "".join(pieces) == "".join(corpus.raw_documents())
    assert 4 <= len(pieces) <= 100
    assert max(map(len, pieces)) < 3 * min(map(len, pieces[:-1]))
    if shape in ("solid", "a sentence a line", "a blank line after each"):
        assert all(piece.rstrip().endswith(".") for piece in pieces)
        assert sum(len(document) for document in CutCorpus(corpus)) == len(SENTENCES)
    if shape == "lines without an end":
        assert all(piece.startswith("headline") for piece in pieces)


def test_documents_of_words_are_cut_between_sentences():
    document = [["It", "is", str(number), "."] for number in range(50)]
    pieces = list(CutCorpus(load_corpus([document])).raw_documents())
    assert [sentence for piece in pieces for sentence in piece] == document
    assert len(pieces) >= 4


def test_long_documents_are_cut_into_more(tmp_path):
    pieces = CutCorpus(load_corpus([[["word" * 100]] * 300_000])).raw_documents()
    assert max(sum(len(words[0]) for words in piece) for piece in pieces) < 510_000


def test_enough_documents_are_left_as_they_are(tmp_path):
    corpus = written(tmp_path, "\n\n\n".join(SENTENCES[:4]))
    assert with_enough_documents(corpus, PAIRS) is corpus
    one = written(tmp_path, "One.")
    assert with_enough_documents(one, {"held_out": 0.0, "next_sentence": False}) is one


def test_a_cut_corpus_is_said_and_a_tiny_one_refused(tmp_path):
    with pytest.warns(UserWarning, match=r"one.txt has 1 of the 4 documents .* `documents`"):
        assert isinstance(with_enough_documents(written(tmp_path, PROSE), PAIRS), CutCorpus)
    with pytest.raises(ValueError, match=r"or more blank lines end .*Received: 1 documents"):
        with_enough_documents(written(tmp_path, "It rained. We slept."), PAIRS)


def test_one_file_is_annotated_and_goes_on(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text(PROSE)
    arguments = {"tagger": "textblob", "held_out": 0.1, "sequence_length": 32, "workers": 1}

    def annotated():
        with pytest.warns(UserWarning, match="is cut into pieces"):
            return annotate(path, tmp_path / "text", 60, **arguments, progress=False)

    train, held_out = annotated(), AnnotatedText(tmp_path / "text", split="held_out")
    numbers = [split["documents"] for split in train.manifest["splits"].values()]
    assert min(numbers) >= 2
    assert len(held_out) > 0
    assert annotated().fingerprint == train.fingerprint
