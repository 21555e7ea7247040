"""English prose found in every Python: pydoc's topics, and the standard library's own text."""

import functools
import inspect
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

_LEFT_OUT = frozenset(
    ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings")
)
# Comments, triple-quoted strings and, so that their quotes do not count, other strings.
_LITERAL = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<quotes>\"{3}|'{3}) (?P<docstring>(?:[^\\]|\\.)*?) (?P=quotes)
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'""",
    re.DOTALL | re.VERBOSE,
)
_DOCSTRING_PREFIXES = ("", "r", "R", "u", "U")
_RULER = re.compile(r"^\s*[-=*~^#+_.]{3,}\s*$")
_BULLET = re.compile(r"^\s*(?:[-*\u2022+]|\(?\d{1,2}[.)])\s+")
_WORD = re.compile(r"[A-Za-z]+(?:['\u2019-][A-Za-z]+)*")
_FREQUENT_WORDS = (
    "a an and are as at be been but by can do does for from has have if in into is it its may "
    "must no not of on or should so than that the their then there these they this to was we "
    "were when which will with would you your"
)
_FUNCTION_WORDS = frozenset(_FREQUENT_WORDS.split())


@functools.cache
def bundled_documents() -> tuple[str, ...]:
    """Reads the bundled corpus, always in the same order. It is kept in memory (2 MB).

    The documents are pydoc's topics (the language reference), then one document for each module
    of the standard library: its docstrings and block comments. Doctests, code, signatures,
    tables and headings are left out, so that the rest reads as English.

    Returns:
        tuple of strings. Documents in which a blank line separates paragraphs.

    Raises:
        ValueError: this Python comes without the source of its standard library.
    """
    texts = [[topics[name]] for name in sorted(topics)]
    sources = list(_standard_library_sources())
    if not sources:
        raise ValueError(
            "The 'bundled' corpus must find the source of the standard library. Received: a "
            f"Python without .py files in {_standard_library()}"
        )
    texts += [list(_module_texts(path.read_text("utf-8", errors="replace"))) for path in sources]
    documents = map(_document, texts)
    return tuple(document for document in documents if document)


def prose_paragraphs(text: str) -> Iterator[str]:
    """Yields the paragraphs of a docstring, comment or manual page that read as English.

    Args:
        text: string. Plain or reStructuredText.

    Yields:
        strings. Paragraphs, each on one line.

    Example:

    >>> text = '''Return the largest item of the iterable.
    ...
    ...     largest = max(items, key=key)
    ...
    ... If there are several, then the first of them is returned.'''
    >>> list(prose_paragraphs(text))
    ['Return the largest item of the iterable.', 'If there are several, then the first of them is returned.']
    """  # noqa: E501
    for block in re.split(r"\n\s*\n", textwrap.dedent(text)):
        for lines in _items(block.splitlines()):
            paragraph = " ".join(" ".join(lines).split())
            if _reads_as_english(paragraph):
                yield paragraph


def _document(texts: list[str]) -> str:
    """The prose of some texts, each paragraph once."""
    paragraphs = (paragraph for text in texts for paragraph in prose_paragraphs(text))
    return "\n\n".join(dict.fromkeys(paragraphs))


def _items(lines: list[str]) -> Iterator[list[str]]:
    """Cuts a block at its bullets, rulers and doctests, and drops the latter two."""
    item: list[str] = []
    for line in lines:
        if line.lstrip().startswith((">>>", "$ ")):
            break  # a doctest or a shell session lasts until the block ends
        if _RULER.match(line):
            item = []  # what stands above a ruler is a heading
            continue
        bullet = _BULLET.match(line)
        if bullet:
            yield item
            item = []
        item.append(line[bullet.end() :] if bullet else line)
    yield item


def _reads_as_english(paragraph: str) -> bool:
    if not paragraph.endswith((".", "!", "?", ":", '."', ".)", ".''")):
        return False
    tokens = paragraph.split()
    words = _WORD.findall(paragraph)
    if len(words) < 5 or len(words) < 0.75 * len(tokens) or not paragraph[0].isalpha():
        return False
    if (
        sum(paragraph.count(sign) for sign in ("=", "->", "::", "|", "\\", "{", "_"))
        > len(words) / 8
    ):
        return False
    count = sum(word.lower() in _FUNCTION_WORDS for word in words)
    return count >= 0.2 * len(words)


def _standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _standard_library_sources() -> Iterator[Path]:
    root = _standard_library()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        if _LEFT_OUT.isdisjoint(path.relative_to(root).parts):
            yield path


def _module_texts(source: str) -> Iterator[str]:
    """Yields a module's docstrings and block comments, in the order of its source."""
    block: list[str] = []
    block_end = 0
    for match in _LITERAL.finditer(source):
        before = source[source.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        comment = match["comment"]
        if block and (before or not comment or source[block_end : match.start()].count("\n") > 1):
            yield textwrap.dedent("\n".join(block))
            block = []
        if comment and not before:
            block.append(comment.lstrip("#"))
            block_end = match.end()
        elif match["docstring"] and before in _DOCSTRING_PREFIXES:
            yield inspect.cleandoc(match["docstring"])
    yield textwrap.dedent("\n".join(block))
