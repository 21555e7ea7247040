"""BERT's rules for what is a word before WordPiece, exactly as KerasHub applies them."""

import functools
import unicodedata

_WHITESPACE = " \t\n\r\f"
_CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_IGNORABLE_RANGES = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)


@functools.lru_cache(maxsize=65536)
def is_delimiter(character: str) -> bool:
    """Whether a character separates words and is dropped: white space, controls, formats."""
    return character in _WHITESPACE or unicodedata.category(character) in ("Cc", "Cf")


@functools.lru_cache(maxsize=65536)
def stands_alone(character: str) -> bool:
    """Whether a character is a word of its own: punctuation, ASCII symbols, CJK ideographs."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    code = ord(character)
    return unicodedata.category(character).startswith("P") or _in_ranges(code, _CJK_RANGES)


def is_boundary(before: str, after: str) -> bool:
    """Whether BERT splits between two adjacent characters."""
    return any(is_delimiter(c) or stands_alone(c) for c in (before, after))


def pretokenize(text: str, lowercase: bool = True, strip_accents: bool = False) -> list[str]:
    """Splits text into the words that WordPiece then cuts into pieces.

    Args:
        text: string.
        lowercase: bool. Whether to fold case (Unicode's NFKC_Casefold).
        strip_accents: bool. Whether to remove accents.

    Returns:
        list of strings.

    Example:

    >>> pretokenize("Don't panic!")
    ['don', "'", 't', 'panic', '!']
    """
    if strip_accents:
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
    words = _split(text)
    if lowercase:
        words = [word for word in map(_casefold, words) if word]
    return words


def _split(text: str) -> list[str]:
    if text.isascii() and text.isalnum():
        return [text]
    words = []
    start = 0
    for position, character in enumerate(text):
        alone = stands_alone(character)
        if alone or is_delimiter(character):
            if position > start:
                words.append(text[start:position])
            if alone:
                words.append(character)
            start = position + 1
    if start < len(text):
        words.append(text[start:])
    return words


def _casefold(text: str) -> str:
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in text if not _in_ranges(ord(c), _IGNORABLE_RANGES))


def _in_ranges(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
