"""Plain text -> sentences -> words."""

import re
from collections.abc import Callable, Iterator

import nltk
from nltk.tokenize import NLTKWordTokenizer

from keras_taskrobust import checks
from keras_taskrobust.text.pretokenization import is_boundary

Document = list[list[str]]
"""A document: a list of sentences, each a list of words."""

LONGEST_WORD = 10_000
"""The most characters of a word. A whole paragraph without spaces has fewer in any language."""

SENTENCE_SPLITTERS = ("auto", "punkt", "rules")

_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(
    r"""[.!?\u2026]+["'\u201d\u2019)\]]*\s+(?=["'\u201c\u2018(\[]*[A-Z0-9])"""
)
_ABBREVIATION = re.compile(
    r"""(?:^|[\s("'\u201c\u2018\[])(?:[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z]|"""
    r"Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Gov|Sen|Rep|St|Jr|Sr|Inc|Ltd|Co|Corp|Bros|"
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|No|Nos|Fig|Figs|Eq|Sec|Vol|vol|pp?|cf|vs|ca|al)"
    r"\.$"
)
_ASCII_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_WORD_TOKENIZER = NLTKWordTokenizer()


class TextSplitter:
    """Splits plain text into sentences and words.

    A blank line ends a paragraph and with it a sentence. Words are found by NLTK's Treebank
    rules, except that no word border is set where BERT's tokenizer has none ("don't" stays one
    word): the words joined by spaces have the same WordPiece tokens as the text itself.

    Args:
        sentences: string. `"punkt"`: NLTK's sentence splitter, whose data must be installed.
            `"rules"`: a sentence ends at `.`, `!` or `?` before a capital or a digit, unless
            an abbreviation stands there. `"auto"`: Punkt where its data are installed, else the
            rules.

    Attributes:
        sentences: string. `"punkt"` or `"rules"`, the one in use.

    Example:

    >>> TextSplitter("rules")("Mr. Fox doesn't run. He sleeps!")
    [['Mr.', 'Fox', "doesn't", 'run', '.'], ['He', 'sleeps', '!']]
    """

    def __init__(self, sentences: str = "auto"):
        self.sentences = checks.choice("sentences", sentences, SENTENCE_SPLITTERS)
        if sentences == "auto":
            self.sentences = "punkt" if _punkt_is_installed() else "rules"
        self._split_sentences: Callable[[str], list[str]] = (
            nltk.tokenize.PunktTokenizer("english").tokenize
            if self.sentences == "punkt"
            else split_sentences_by_rules
        )

    def __call__(self, text: str) -> Document:
        """Splits a text.

        Args:
            text: string.

        Returns:
            list of sentences, each a non-empty list of words (strings).
        """
        sentences = []
        for paragraph in _PARAGRAPH_BREAK.split(text):
            paragraph = " ".join(paragraph.split())
            if paragraph:
                sentences += [list(split_words(s)) for s in self._split_sentences(paragraph)]
        return [words for words in sentences if words]


def split_document(raw_document: str | Document, splitter: TextSplitter) -> Document:
    """Splits a raw document into sentences and words, if it is not split already.

    Words of more than `LONGEST_WORD` characters, which are data rather than words, are dropped.
    """
    document = splitter(raw_document) if isinstance(raw_document, str) else raw_document
    if all(len(word) <= LONGEST_WORD for words in document for word in words):
        return document
    shortened = ([word for word in words if len(word) <= LONGEST_WORD] for words in document)
    return [words for words in shortened if words]


def _punkt_is_installed() -> bool:
    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return False
    return True


def split_sentences_by_rules(paragraph: str) -> list[str]:
    """Splits a paragraph into sentences without any data.

    Args:
        paragraph: string.

    Returns:
        list of strings.
    """
    sentences = []
    start = 0
    for match in _SENTENCE_END.finditer(paragraph):
        if not _ABBREVIATION.search(paragraph, start, match.start() + 1):
            sentences.append(paragraph[start : match.end()].rstrip())
            start = match.end()
    if start < len(paragraph):
        sentences.append(paragraph[start:].rstrip())
    return sentences


def split_words(sentence: str) -> Iterator[str]:
    """Splits a sentence into words, none of them empty."""
    start, end = 0, 0
    for next_start, next_end in _word_spans(sentence):
        glued = next_start == end > start and not is_boundary(sentence[end - 1], sentence[end])
        if not glued:
            if end > start:
                yield sentence[start:end]
            start = next_start
        end = next_end
    if end > start:
        yield sentence[start:end]


def _word_spans(sentence: str) -> list[tuple[int, int]]:
    try:
        # The translation keeps every position.
        return list(_WORD_TOKENIZER.span_tokenize(sentence.translate(_ASCII_QUOTES)))
    except ValueError:  # NLTK cannot align some runs of quotation marks
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", sentence)]
