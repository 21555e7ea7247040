"""A corpus of too few documents to be split, cut into pieces that are documents."""

import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from keras_taskrobust.text.corpora import Corpus, num_characters
from keras_taskrobust.text.splitting import Document

_PIECES = 100
_FEWEST_PIECES = 8
_LONGEST, _SHORT = 500_000, 2_000  # characters
#: Where a piece may end, the best first: at the end of a sentence, of a line, of a word.
_ENDS = tuple(
    map(re.compile, (r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+|\n[^\S\n]*\n\s*", r"\n\s*", r"\s+"))
)


def with_enough_documents(corpus: Corpus, packing: Mapping[str, Any]) -> Corpus:
    """The corpus, cut into pieces where it has too few documents for its splits.

    Args:
        corpus: a `Corpus`. Of one with enough documents only the first of them are read.
        packing: mapping with "held_out" and "next_sentence", as in `annotate`.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: it has too few sentences, too.
    """
    least = fewest_documents(packing) * (2 if packing["held_out"] else 1)
    number = _count(corpus, least)
    if number == least:
        return corpus
    pieces = CutCorpus(corpus)
    if _count(pieces, least) < least:
        raise too_few_documents(number, packing)
    warnings.warn(
        f"{corpus.description} has {number} of the {least} documents that its splits need, and is "
        "cut into pieces between sentences. Two or more blank lines end a document in a text file; "
        "if one of them or each line does, choose `documents`.",
        stacklevel=3,
    )
    return pieces


def fewest_documents(packing: Mapping[str, Any]) -> int:
    """The fewest documents of a split: a random next sentence is from another document."""
    return 2 if packing["next_sentence"] else 1


def too_few_documents(number: int, packing: Mapping[str, Any]) -> ValueError:
    """What to raise for a corpus that cannot be split."""
    return ValueError(
        f"`source` must have at least {fewest_documents(packing)} documents for each split (a "
        "random next sentence is from another document), or sentences enough to be cut into them. "
        "Two or more blank lines end a document in a text file, each line one in a .jsonl; "
        f"`documents` says otherwise. Received: {number} documents, "
        f"held_out={packing['held_out']}, next_sentence={packing['next_sentence']}"
    )


class CutCorpus(Corpus):
    """A corpus whose documents are cut between sentences, into about a hundred pieces.

    Args:
        corpus: a `Corpus` whose documents fit into memory.
    """

    def __init__(self, corpus: Corpus):
        super().__init__(corpus.description)
        self.skipped = corpus.skipped
        self._corpus = corpus

    def raw_documents(self) -> Iterator[str | Document]:
        documents = list(self._corpus.raw_documents())
        total = sum(map(num_characters, documents))
        size = min(max(total // _PIECES, min(_SHORT, total // _FEWEST_PIECES)), _LONGEST)
        for document in documents:
            if isinstance(document, str):
                yield from _cut_text(document, size)
            else:
                yield from _cut_sentences(document, size)


def _count(corpus: Corpus, most: int) -> int:
    return sum(1 for _ in islice(filter(None, corpus.raw_documents()), most))


def _cut_text(text: str, size: int) -> Iterator[str]:
    start = 0
    while start < len(text):
        least = start + size
        ends = (end.search(text, least, least + max(size, _SHORT)) for end in _ENDS)
        end = next((match.end() for match in ends if match), len(text))
        yield text[start:end]
        start = end


def _cut_sentences(document: Document, size: int) -> Iterator[Document]:
    piece: Document = []
    for sentence in document:
        piece.append(sentence)
        if num_characters(piece) >= size:
            yield piece
            piece = []
    if piece:
        yield piece
