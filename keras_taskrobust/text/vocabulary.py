"""WordPiece: vocabularies trained on a corpus, and words to piece ids as KerasHub makes them."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from keras_taskrobust import checks
from keras_taskrobust.files import write_atomically
from keras_taskrobust.text.pretokenization import pretokenize

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens, in the order in which a trained vocabulary begins."""

_CONTINUATION = "##"
_MOST_CHARACTERS = 1000
_CACHED_WORDS = 100_000
SMALLEST_VOCABULARY = 16
_LONGEST_WORD_BYTES = 100  # KerasHub maps longer words to [UNK]
_TOKENIZER_SETTINGS = {
    "suffix_indicator": "##",
    "oov_token": "[UNK]",
    "split": True,
    "split_on_cjk": True,
    "special_tokens_in_strings": False,
}


def train_vocabulary(
    sentences: Iterable[Sequence[str]],
    size: int,
    lowercase: bool = True,
    min_frequency: int = 2,
) -> list[str]:
    """Trains a WordPiece vocabulary. The same sentences always give the same vocabulary.

    Words of more than 100 bytes, which are [UNK] with any vocabulary, have no say.

    Args:
        sentences: iterable of sentences, each a sequence of words.
        size: int >= 16. The number of pieces; small corpora may give fewer.
        lowercase: bool. Whether to fold case.
        min_frequency: int >= 1. How often a pair of pieces must occur to be joined.

    Returns:
        list of strings. The pieces in the order of their ids, `SPECIAL_TOKENS` first.

    Raises:
        ValueError: `size` is too small, or there are no words.

    Example:

    >>> train_vocabulary([["low", "lower", "lowest"]] * 5, size=18)[5:]
    ['e', 'l', 'o', 'w', '##o', '##w', 'lo', 'low']
    """
    words = Counter(word for sentence in sentences for word in sentence)
    return vocabulary_of_words(words, size, lowercase, min_frequency)


def vocabulary_of_words(
    words: Mapping[str, int], size: int, lowercase: bool = True, min_frequency: int = 2
) -> list[str]:
    """`train_vocabulary` for words that are counted already.

    Args:
        words: dict of words to how often they occur.
        size: as in `train_vocabulary`, as are the others.
        lowercase: bool.
        min_frequency: int.

    Returns:
        list of strings.
    """
    checks.integer("size", size, least=SMALLEST_VOCABULARY)
    counts = _count_pretokens(words, lowercase)
    if not counts:
        raise ValueError("`sentences` must hold at least one word. Received: no words")
    alphabet = _alphabet(counts, size)
    letters = set(alphabet)
    known = {word: count for word, count in counts.items() if letters.issuperset(word)}
    pieces = [*alphabet, *sorted({_CONTINUATION + c for word in known for c in word[1:]})]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer numbers characters in the order of a hash table and breaks ties by number.
    # Given as special tokens they have fixed numbers, which makes the training reproducible.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (" ".join([word] * count) for word, count in sorted(known.items())), trainer
    )
    identifiers = tokenizer.get_vocab()
    return sorted(identifiers, key=identifiers.__getitem__)


def _count_pretokens(words: Mapping[str, int], lowercase: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for pretoken in pretokenize(word, lowercase):
            if len(pretoken.encode("utf-8", "replace")) <= _LONGEST_WORD_BYTES:
                counts[pretoken] += count
    return counts


def _alphabet(counts: Counter[str], size: int) -> list[str]:
    """The most frequent characters; with their `##` forms at most two thirds of the size."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    limit = min(_MOST_CHARACTERS, (size - len(SPECIAL_TOKENS)) // 3)
    by_frequency = sorted(characters, key=lambda character: (-characters[character], character))
    return sorted(by_frequency[:limit])


def save_vocabulary(vocabulary: Sequence[str], path: str | os.PathLike) -> None:
    """Writes a vocabulary as BERT's vocab.txt, one piece a line, whole or not at all.

    Args:
        vocabulary: sequence of strings.
        path: path of the file.
    """
    write_atomically(path, "".join(f"{piece}\n" for piece in vocabulary).encode("utf-8"))


def load_vocabulary(path: str | os.PathLike) -> list[str]:
    """Reads a vocab.txt.

    Args:
        path: path of a file with one piece a line.

    Returns:
        list of strings.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            return [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"A vocabulary must be text in UTF-8. Received: {path}: {error}"
        ) from error


class WordPieceEncoder:
    """Words to the ids of their pieces, as `keras_hub.tokenizers.BertTokenizer` makes them.

    Encoding the words of a text one after the other gives the ids that KerasHub's tokenizer
    gives for the words joined by spaces, but knows which word each piece belongs to. Each
    distinct word is cut once.

    Args:
        vocabulary: sequence of strings. The pieces in the order of their ids, the five BERT
            special tokens among them.
        lowercase: bool. Whether case is folded before.
        strip_accents: bool. Whether accents are removed before.

    Attributes:
        vocabulary: tuple of strings.
        pad_id, unknown_id, cls_id, separator_id, mask_id: ints, the special tokens' ids.
        special_ids: tuple of those five ints.
        hash: string. SHA-256 of the vocabulary and the two settings.

    Raises:
        ValueError: the vocabulary lacks a special token or holds a piece twice.

    Example:

    >>> encoder = WordPieceEncoder([*SPECIAL_TOKENS, "cat", "##s", "purr"])
    >>> encoder.encode(["Cats", "purr"]).tolist()
    [5, 6, 7]
    >>> encoder.pieces("Cats")
    (5, 6)
    """

    def __init__(
        self, vocabulary: Sequence[str], lowercase: bool = True, strip_accents: bool = False
    ):
        ids = {piece: index for index, piece in enumerate(vocabulary)}
        missing = [token for token in SPECIAL_TOKENS if token not in ids]
        if missing:
            raise ValueError(
                f"`vocabulary` must hold the special tokens {SPECIAL_TOKENS}. "
                f"Received: {len(vocabulary)} pieces without {missing}"
            )
        if len(ids) != len(vocabulary):
            twice = [piece for piece, count in Counter(vocabulary).items() if count > 1]
            raise ValueError(
                f"`vocabulary` must hold each piece once. Received: several of {twice[:5]}"
            )
        self.vocabulary = tuple(vocabulary)
        self.lowercase = bool(lowercase)
        self.strip_accents = bool(strip_accents)
        self.special_ids = tuple(ids[token] for token in SPECIAL_TOKENS)
        self.pad_id, self.unknown_id, self.cls_id, self.separator_id, self.mask_id = (
            self.special_ids
        )
        content = json.dumps([self.vocabulary, self.lowercase, self.strip_accents])
        self.hash = hashlib.sha256(content.encode()).hexdigest()
        self._model = models.WordPiece(
            vocab=ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD_BYTES
        )
        self._cache: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> "WordPieceEncoder":
        """Makes an encoder from a KerasHub BERT tokenizer.

        Args:
            tokenizer: a `keras_hub.tokenizers.BertTokenizer` (or another
                `WordPieceTokenizer` with BERT's special tokens and its defaults for splitting).

        Returns:
            A `WordPieceEncoder`.
        """
        read = tuple(getattr(tokenizer, name, None) for name in _TOKENIZER_SETTINGS)
        if read != tuple(_TOKENIZER_SETTINGS.values()):
            raise ValueError(
                "`tokenizer` must be a KerasHub WordPiece tokenizer with "
                f"{_TOKENIZER_SETTINGS}. Received: {tokenizer!r} with {read}"
            )
        return cls(tokenizer.get_vocabulary(), tokenizer.lowercase, tokenizer.strip_accents)

    @classmethod
    def from_preset(cls, preset: str) -> "WordPieceEncoder":
        """Makes an encoder from a KerasHub BERT preset.

        Args:
            preset: string. Name, URI or folder of the preset.

        Returns:
            A `WordPieceEncoder`.
        """
        import keras_hub

        return cls.from_tokenizer(keras_hub.tokenizers.BertTokenizer.from_preset(preset))

    def to_tokenizer(self) -> Any:
        """Makes the `keras_hub.tokenizers.BertTokenizer` that gives the same ids."""
        import keras_hub

        return keras_hub.tokenizers.BertTokenizer(
            vocabulary=list(self.vocabulary),
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
        )

    @property
    def vocabulary_size(self) -> int:
        return len(self.vocabulary)

    def pieces(self, word: str) -> tuple[int, ...]:
        """Cuts a word into pieces.

        Args:
            word: string.

        Returns:
            tuple of ints. The ids; none if the word has nothing but white space and controls.
        """
        known = self._cache.get(word)
        if known is None:
            if len(self._cache) >= _CACHED_WORDS:
                self._cache.clear()
            pretokens = pretokenize(word, self.lowercase, self.strip_accents)
            known = tuple(index for pretoken in pretokens for index in self._cut(pretoken))
            self._cache[word] = known
        return known

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Cuts words into pieces.

        Args:
            words: sequence of strings.

        Returns:
            int32 array of shape `(pieces,)`. The ids, without special tokens.
        """
        return np.array([index for word in words for index in self.pieces(word)], dtype=np.int32)

    def _cut(self, pretoken: str) -> list[int]:
        if len(pretoken.encode("utf-8")) > _LONGEST_WORD_BYTES:
            return [self.unknown_id]
        return [piece.id for piece in self._model.tokenize(pretoken)]

    def __reduce__(self):
        return WordPieceEncoder, (self.vocabulary, self.lowercase, self.strip_accents)
