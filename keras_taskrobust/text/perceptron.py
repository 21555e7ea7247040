"""NLTK's averaged perceptron tagger as one matrix: the same tags, of many words at once.

The score of a tag is a sum of weights, one for each feature of a word's surroundings. NLTK's
weights are whole thousandths, and so are exact as integers. Most features are of words alone; the
others are of the two tags before. A frequent word has one tag, without a score. So all words whose
two tags before are known are scored together, then those after them, and so on.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np

#: Features of words alone, by the place of the word, in NLTK's order; a `w` is the word as it is
#: written, an `n` as NLTK normalises it.
_OF_WORDS = (
    (0, lambda w, n: "bias"),
    (0, lambda w, n: f"i suffix {w[-3:]}"),
    (0, lambda w, n: f"i pref1 {w[0]}"),
    (0, lambda w, n: f"i word {n}"),
    (-1, lambda w, n: f"i-1 word {n}"),
    (-1, lambda w, n: f"i-1 suffix {n[-3:]}"),
    (-2, lambda w, n: f"i-2 word {n}"),
    (1, lambda w, n: f"i+1 word {n}"),
    (1, lambda w, n: f"i+1 suffix {n[-3:]}"),
    (2, lambda w, n: f"i+2 word {n}"),
)
_PLACES = tuple(place for place, _ in _OF_WORDS)
#: Where NLTK adds those with tags: three after the first three, one after "i word".
_BEFORE_TAGS, _BEFORE_TAG_AND_WORD = 3, 4
_TAG_AND_WORD = "i-1 tag+i word "
_THOUSAND = 1000
#: The types of what NLTK sees before and after a sentence, and their number.
_BEFORE, _AFTER, _PADDING = (0, 1), (2, 3), 4


class MatrixTagger:
    """Tags as NLTK's `PerceptronTagger` does, to the last tie.

    Args:
        tagger: `nltk.tag.perceptron.PerceptronTagger`, loaded.

    Raises:
        ValueError: its weights are no whole thousandths.
    """

    def __init__(self, tagger: Any):
        # Of equal scores NLTK takes the last tag of the alphabet, and `argmax` the first.
        self._tags = sorted(tagger.classes, reverse=True)
        self._padding = [*tagger.START, *tagger.END]
        self._normalize = type(tagger)(load=False).normalize  # holds no weights
        self._number = {tag: i for i, tag in enumerate([*self._tags, *tagger.START])}
        self._known = {word: self._number[tag] for word, tag in tagger.tagdict.items() if tag}
        weights = tagger.model.weights
        self._rows = {feature: row for row, feature in enumerate(weights, 1)}
        self._weights = _as_matrix(weights, self._tags)
        self._after_tag = self._rows_after_tags()
        before = np.array([self._rows_of_tags(*tags) for tags in self._pairs_of_tags()])
        self._rows_before = before
        self._scores_before = self._weights[before].sum(1, dtype=np.int32)

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The Penn Treebank tag of each word.

        Args:
            sentences: sequence of sentences, each a sequence of words (strings, not empty).

        Returns:
            list of lists of strings.
        """
        start = len(self._tags)
        types: dict[str, int] = {}
        type_of: list[int] = []
        tags: list[int] = []
        begins = []
        for sentence in sentences:
            # The tag before a sentence is the first of the two that NLTK starts with.
            tags += (start + 1, start)
            type_of += _BEFORE
            begins.append(len(tags))
            tags += [self._known.get(word, -1) for word in sentence]
            type_of += [types.setdefault(word, len(types) + _PADDING) for word in sentence]
            tags += (start, start)
            type_of += _AFTER
        found = self._tag_flat(types, np.array(type_of), np.array(tags, np.int32)).tolist()
        return [
            [self._tags[number] for number in found[begin : begin + len(sentence)]]
            for begin, sentence in zip(begins, sentences, strict=True)
        ]

    def _tag_flat(
        self, types: Collection[str], type_of: np.ndarray, tags: np.ndarray
    ) -> np.ndarray:
        """The numbers of the tags of words in a row, where `tags` is -1."""
        of_words, after_tag = self._rows_of_types(types)
        for at in _in_order(tags):
            rows = [of_words[type_of[at + place], i] for i, place in enumerate(_PLACES)]
            previous = tags[at - 1]
            before = previous * len(self._number) + tags[at - 2]
            of_tag_and_word = after_tag[type_of[at], previous]
            scores = self._scores_before[before] + self._weights[of_tag_and_word]
            for each in rows:
                scores += self._weights[each]
            tags[at] = scores.argmax(1)
            is_tie = (scores == scores.max(1, keepdims=True)).sum(1) > 1
            for i in np.flatnonzero(is_tie):
                own = [int(each[i]) for each in rows]
                own[_BEFORE_TAG_AND_WORD:_BEFORE_TAG_AND_WORD] = [int(of_tag_and_word[i])]
                own[_BEFORE_TAGS:_BEFORE_TAGS] = self._rows_before[before[i]].tolist()
                tags[at[i]] = self._decide(own)
        return tags

    def _decide(self, rows: list[int]) -> int:
        """The best tag by sums that round as NLTK's do."""
        scores = np.zeros(len(self._tags))
        for row in rows:
            scores += self._weights[row] / _THOUSAND
        return int(scores.argmax())

    def _rows_of_types(self, types: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
        """Of each word the rows of its features at each place, and of those with the tag before."""
        row = self._rows.get
        padding = zip(self._padding, self._padding, strict=True)
        words = [*padding, *((word, self._normalize(word)) for word in types)]
        of_words, after_tag = [], np.zeros((len(words), len(self._number)), np.int32)
        for i, (word, normal) in enumerate(words):
            of_words.append([row(feature(word, normal), 0) for _, feature in _OF_WORDS])
            if normal in self._after_tag:
                numbers, rows = self._after_tag[normal]
                after_tag[i, numbers] = rows
        return np.array(of_words, np.int32), after_tag

    def _rows_after_tags(self) -> dict[str, tuple[list[int], list[int]]]:
        found: dict[str, tuple[list[int], list[int]]] = {}
        for feature, row in self._rows.items():
            if feature.startswith(_TAG_AND_WORD):
                tag, word = feature.removeprefix(_TAG_AND_WORD).split(" ", 1)
                numbers, rows = found.setdefault(word, ([], []))
                numbers.append(self._number[tag])
                rows.append(row)
        return found

    def _pairs_of_tags(self) -> Iterator[tuple[str, str]]:
        return ((previous, one_before) for previous in self._number for one_before in self._number)

    def _rows_of_tags(self, previous: str, one_before: str) -> list[int]:
        features = (
            f"i-1 tag {previous}",
            f"i-2 tag {one_before}",
            f"i tag+i-2 tag {previous} {one_before}",
        )
        return [self._rows.get(feature, 0) for feature in features]


def _as_matrix(weights: dict[str, dict[str, float]], tags: list[str]) -> np.ndarray:
    """Thousandths, a row a feature; the first row is that of all unknown features."""
    column = {tag: i for i, tag in enumerate(tags)}
    sizes = [len(of_tags) for of_tags in weights.values()]
    rows = np.repeat(np.arange(1, len(weights) + 1), sizes)
    columns = [column[tag] for of_tags in weights.values() for tag in of_tags]
    values = np.fromiter(chain.from_iterable(one.values() for one in weights.values()), float)
    matrix = np.zeros((len(weights) + 1, len(tags)), np.int32)
    matrix[rows, columns] = np.rint(values * _THOUSAND)
    if not np.array_equal(matrix[rows, columns] / _THOUSAND, values):
        raise ValueError("The weights of the tagger must be whole thousandths. Received: others")
    return matrix


def _in_order(tags: np.ndarray) -> Iterator[np.ndarray]:
    """The places of the unknown tags; together those whose two tags before are known by then."""
    depths = []
    depth = one_before = 0
    for is_known in (tags >= 0).tolist():
        depth, one_before = 0 if is_known else 1 + max(depth, one_before), depth
        depths.append(depth)
    order = np.argsort(depths, kind="stable")
    ends = np.cumsum(np.bincount(depths))
    return (order[begin:end] for begin, end in pairwise(ends))
