"""The part-of-speech tasks, nine or one a tag, and the taggers that assign words to them."""

import importlib.metadata
import re
import warnings
from collections.abc import Callable, Sequence
from itertools import accumulate, chain, cycle

from keras_taskrobust import checks
from keras_taskrobust.text.nltk_resources import load_nltk_resource
from keras_taskrobust.text.perceptron import MatrixTagger

POS_TASKS = (
    "verb",
    "noun",
    "adjective",
    "determiner",
    "adverb",
    "pronoun",
    "preposition",
    "conjunction",
    "interjection",
)
"""The tasks, in the order of their indices."""

_Parts = tuple[str, ...]
_TagSentences = Callable[[list[list[str]]], list[list[str]]]

TAGGERS = ("nltk", "textblob", "auto")

_NLTK_PACKAGE = "averaged_perceptron_tagger_eng"
_PENN_TAGS = {
    "verb": ("VB", "VBD", "VBG", "VBN", "VBP", "VBZ", "MD"),
    "noun": ("NN", "NNS", "NNP", "NNPS"),
    "adjective": ("JJ", "JJR", "JJS"),
    "determiner": ("DT", "PDT", "WDT"),
    "adverb": ("RB", "RBR", "RBS", "WRB"),
    "pronoun": ("PRP", "PRP$", "WP", "WP$", "EX"),
    "preposition": ("IN", "TO", "RP"),
    "conjunction": ("CC",),
    "interjection": ("UH",),
}
_TASK_OF_PENN_TAG = {
    tag: POS_TASKS.index(task) for task, tags in _PENN_TAGS.items() for tag in tags
}

PENN_TASKS = tuple(_TASK_OF_PENN_TAG)
"""Finer tasks: the Penn Treebank's tags of the nine tasks, those of a task side by side."""

TAG_SETS = {"nine": POS_TASKS, "penn": PENN_TASKS}
"""The sets of tasks that words can be assigned to. Both leave out the same words."""
# The taggers know words as the Penn Treebank writes them.
_PENN_CHARACTERS = str.maketrans(
    {
        "\u2018": "`",
        "\u2019": "'",
        "\u201c": "``",
        "\u201d": "''",
        "\u2013": "--",
        "\u2014": "--",
    }
)
_QUOTE = ('"',)
_CONTRACTION = re.compile(r"(.+?)(n't|'s|'re|'ve|'ll|'d|'m)", re.IGNORECASE)


def penn_tag_to_task(tag: str) -> int:
    """Maps a Penn Treebank tag to its task.

    Args:
        tag: string, for example `"VBZ"`.

    Returns:
        int. Index in `POS_TASKS`; -1 for tags of no task (numbers, punctuation, foreign words,
        possessive endings, symbols and list markers).

    Example:

    >>> [penn_tag_to_task(tag) for tag in ("VBZ", "NNP", "CD")]
    [0, 1, -1]
    """
    return _TASK_OF_PENN_TAG.get(tag, -1)


def tasks_of_tag_set(tag_set: str) -> tuple[str, ...]:
    """The names of the tasks of a tag set.

    Example:

    >>> tasks_of_tag_set("penn")[:3], len(tasks_of_tag_set("penn"))
    (('VB', 'VBD', 'VBG'), 31)
    """
    return TAG_SETS[checks.choice("tag_set", tag_set, TAG_SETS)]


class PosTagger:
    """Finds the part-of-speech task of each word.

    Words are tagged as given: nothing is split or joined in the result. Inside, a contraction
    is tagged as the Penn Treebank writes it ("don't" as "do" and "n't") and has the task of
    its first part, and typographic quotes and dashes are tagged as their ASCII forms.

    Args:
        name: string. `"nltk"`: NLTK's averaged perceptron (data from `NLTK_DATA`, else
            downloaded). `"textblob"`: the lexicon tagger bundled with TextBlob, which needs no
            data. `"auto"`: `"nltk"`, or `"textblob"` with a warning where NLTK's data cannot
            be had.
        tag_set: string. `"nine"`: the tasks are `POS_TASKS`. `"penn"`: `PENN_TASKS`.

    Attributes:
        name: string. `"nltk"` or `"textblob"`, the tagger in use.
        task_names: tuple of strings. The tasks.
        description: string. The tagger with its package's version.

    Raises:
        ValueError: `name` or `tag_set` is unknown.
        LookupError: `name="nltk"`, and its data are neither installed nor can be downloaded.

    Example:

    >>> tasks = PosTagger("textblob").tag([["The", "cat", "quickly", "ate", "2", "mice", "."]])
    >>> [POS_TASKS[task] if task >= 0 else None for task in tasks[0]]
    ['determiner', 'noun', 'adverb', 'verb', None, 'noun', None]
    """

    def __init__(self, name: str = "nltk", tag_set: str = "nine"):
        checks.choice("name", name, TAGGERS)
        self.task_names = tasks_of_tag_set(tag_set)
        self._tasks = _TASK_OF_PENN_TAG
        if tag_set == "penn":
            self._tasks = {tag: task for task, tag in enumerate(PENN_TASKS)}
        self.name = "textblob" if name == "textblob" else "nltk"
        if name == "auto":
            try:
                self._tag_sentences = _load_nltk_tagger()
            except LookupError:
                warnings.warn(
                    "PosTagger('auto') falls back to TextBlob's bundled tagger, which agrees with "
                    "NLTK's on 96 % of the words: NLTK's data are not installed. With a network "
                    f"run `python -m nltk.downloader {_NLTK_PACKAGE}`; without one set the "
                    "environment variable NLTK_DATA to a folder which holds it.",
                    stacklevel=2,
                )
                self.name = "textblob"
                self._tag_sentences = _load_textblob_tagger()
        else:
            self._tag_sentences = _LOADERS[name]()
        self.description = _describe(self.name)

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """Finds the task of each word.

        Args:
            sentences: sequence of sentences, each a sequence of words (strings, not empty).

        Returns:
            list of lists of ints. For each word its index in `task_names`, or -1.
        """
        parts_of = _PartsOfWords()
        parts = [_with_quotes([parts_of[word] for word in words]) for words in sentences]
        tags = self._tag_sentences([list(chain.from_iterable(of_words)) for of_words in parts])
        return [
            [self._tasks.get(of_parts[first], -1) for first in _firsts(of_words)]
            for of_words, of_parts in zip(parts, tags, strict=True)
        ]


class _PartsOfWords(dict[str, _Parts]):
    """Words to their parts, each found once."""

    def __missing__(self, word: str) -> _Parts:
        if not isinstance(word, str) or not word:
            raise ValueError(
                f"`sentences` must hold words which are non-empty strings. Received: {word!r}"
            )
        self[word] = parts = _penn_parts(word)
        return parts


def _with_quotes(parts: list[_Parts]) -> list[_Parts]:
    """A sentence's parts, its straight quotes opening and closing ones in turn."""
    if _QUOTE not in parts:
        return parts
    quotes = cycle((("``",), ("''",)))
    return [next(quotes) if of_word == _QUOTE else of_word for of_word in parts]


def _firsts(parts: list[_Parts]) -> list[int]:
    """The index of each word's first part among the parts of a sentence."""
    return [0, *accumulate(map(len, parts))][:-1]


def _penn_parts(word: str) -> _Parts:
    """A word as the Penn Treebank writes it: contractions in two parts, ASCII punctuation."""
    if word.isalnum():
        return (word[:3], word[3:]) if word.lower() == "cannot" else (word,)
    word = word.translate(_PENN_CHARACTERS)
    contraction = _CONTRACTION.fullmatch(word)
    return contraction.groups() if contraction else (word,)


def _load_nltk_tagger() -> _TagSentences:
    from nltk.tag.perceptron import PerceptronTagger

    return MatrixTagger(load_nltk_resource(_NLTK_PACKAGE, PerceptronTagger)).tag


def _load_textblob_tagger() -> _TagSentences:
    from textblob.en import parser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its lexicon's file open
        parser.find_tags(["the"])
    # The lexicon holds the chat spellings "2" (to) and "4" (for).
    return lambda sentences: [
        ["CD" if word.isdigit() else tag for word, tag in parser.find_tags(words)]
        for words in sentences
    ]


_LOADERS = {"nltk": _load_nltk_tagger, "textblob": _load_textblob_tagger}


def _describe(name: str) -> str:
    version = importlib.metadata.version(name)
    return f"nltk {version} {_NLTK_PACKAGE}" if name == "nltk" else f"textblob {version} pattern"
