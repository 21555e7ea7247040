"""Text files: which of them can be read, and the documents in them."""

import codecs
import dataclasses
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from keras_taskrobust import checks

FOLDER_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".gz")

DOCUMENTS = ("auto", "blank-lines", "line", "file")
"""What a document is in a plain text file."""

_CHUNK_BYTES = 1 << 20
_LONGEST_DOCUMENT = 1_000_000  # characters; longer ones are cut between paragraphs
_BYTE_ORDER_MARK = "\ufeff"
_EMPTY = "empty file"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How text files are read.

    Args:
        documents: string. What ends a document in a plain text file: two or more blank lines
            (`"auto"`), one or more (`"blank-lines"`), the end of the line, or that of the file.
        encoding: string. Of the files that are not UTF-8, by a name that Python knows.
        text_field: string. The field of JSON lines that has the text.

    Raises:
        ValueError: there is no such rule or encoding.
    """

    documents: str = "auto"
    encoding: str = "utf-8"
    text_field: str = "text"

    def __post_init__(self):
        checks.choice("documents", self.documents, DOCUMENTS)
        checks.encoding("encoding", self.encoding)


def find_text_files(path: Path) -> list[Path]:
    """Lists the text files that a path stands for.

    Args:
        path: path of a file (taken whatever its name) or of a folder, searched for names
            ending in one of `FOLDER_SUFFIXES`, sub-folders included.

    Returns:
        list of paths, sorted.
    """
    if path.is_file():
        return [path]
    return sorted(
        (file for file in path.rglob("*") if file.is_file() and _has_text_suffix(file)),
        key=lambda file: file.relative_to(path).parts,
    )


@dataclasses.dataclass(frozen=True)
class Span:
    """A text file, or the bytes of one from a place to another.

    Args:
        path: path of the file.
        start: int.
        stop: int, or `None` for the end.
    """

    path: Path
    start: int = 0
    stop: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the file."""
        return self.start == 0 and self.stop is None

    def __str__(self) -> str:
        return str(self.path) if self.is_whole else f"{self.path}, bytes {self.start}-{self.stop}"


def find_fault(span: Span, form: TextFormat = TextFormat()) -> str:
    """Reads a file to its end and says why it cannot be used.

    Args:
        span: `Span` of a text file.
        form: `TextFormat`.

    Returns:
        string. What is wrong with the file, "" if nothing is.
    """
    try:
        form = _form_of(span, form)
        with _open_bytes(span) as file:
            fault = _find_text_fault(file, form.encoding)
        if fault == _EMPTY and not span.is_whole:
            return ""
        return fault or (_find_json_fault(span, form) if is_json_lines(span.path) else "")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"damaged gzip file ({error})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def read_documents(span: Span, form: TextFormat = TextFormat()) -> Iterator[str]:
    """Yields the documents of a file in which `find_fault` found none.

    In a text file a blank line separates paragraphs, and what `form` says separates documents (so
    that a file may hold many). Unless each file or line is one, a document of more than a million
    characters is cut between paragraphs. In a .jsonl file each line is a document: a JSON object
    with a string in the field "text", or another one, in which half a character (a lone surrogate)
    is replaced by U+FFFD.

    Args:
        span: `Span` of a text file. Its documents are those of the file if it begins and ends where
            one does.
        form: `TextFormat`.

    Yields:
        strings. The documents which hold more than white space.
    """
    form = _form_of(span, form)
    read = _read_json_lines if is_json_lines(span.path) else _READERS[form.documents]
    documents = read(span, form)
    for document in documents:
        if document.strip():
            yield document


def _has_text_suffix(path: Path) -> bool:
    return path.name.lower().endswith(FOLDER_SUFFIXES)


def is_json_lines(path: Path) -> bool:
    """Whether each line of a file is a JSON object."""
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


class _SomeBytes(io.RawIOBase):
    """The next bytes of an open file, which is closed with it."""

    def __init__(self, file: BinaryIO, number: int):
        self._file = file
        self._left = number

    def readable(self):
        return True

    def readinto(self, buffer):
        content = self._file.read(min(len(buffer), self._left))
        buffer[: len(content)] = content
        self._left -= len(content)
        return len(content)

    def close(self):
        self._file.close()
        super().close()


def _open_bytes(span: Span) -> BinaryIO:
    if span.path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(span.path, "rb"))
    file = span.path.open("rb")
    if span.stop is None:
        return file
    file.seek(span.start)
    return io.BufferedReader(_SomeBytes(file, span.stop - span.start), _CHUNK_BYTES)


def _form_of(span: Span, form: TextFormat) -> TextFormat:
    """The form, in UTF-8 if the file is: text in another encoding is not so by chance."""
    if codecs.lookup(form.encoding).name == "utf-8":
        return form
    decoder = codecs.getincrementaldecoder("utf-8")()
    ascii_alone = True
    with _open_bytes(span) as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                if b"\0" in chunk:
                    return form
                ascii_alone = ascii_alone and chunk.isascii()
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return form
    # What is ASCII alone may be of an encoding that escapes all else, such as ISO-2022-JP.
    return form if ascii_alone else dataclasses.replace(form, encoding="utf-8")


def _find_text_fault(file: BinaryIO, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder(encoding)()
    wrong = f"not {encoding.upper()}"
    has_no_zeros = "\0".encode(encoding) == b"\0"
    blank = True
    position = 0
    while True:
        chunk = file.read(_CHUNK_BYTES)
        if has_no_zeros and b"\0" in chunk:
            return f"binary file (a zero byte at position {position + chunk.index(0)})"
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError:
            return f"{wrong} (near byte {position})" if position else wrong
        blank = blank and not text.strip(_BYTE_ORDER_MARK).strip()
        position += len(chunk)
        if not chunk:
            return _EMPTY if blank else ""


def _find_json_fault(span: Span, form: TextFormat) -> str:
    field = form.text_field
    for number, line in enumerate(_lines(span, form), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                return f"line {number} is not JSON that can be read ({error})"
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                fields = f", but with {', '.join(record)}" if isinstance(record, dict) else ""
                return f'line {number} is not an object with a string "{field}"{fields}'
    return ""


def _lines(span: Span, form: TextFormat) -> Iterator[str]:
    with (
        _open_bytes(span) as file,
        io.TextIOWrapper(file, encoding=form.encoding, newline="\n") as lines,
    ):
        for number, line in enumerate(lines):
            is_first = number == span.start == 0
            yield line.removeprefix(_BYTE_ORDER_MARK) if is_first else line


def _read_json_lines(span: Span, form: TextFormat) -> Iterator[str]:
    # JSON may escape half a character, which no other text can hold.
    return (
        _HALF_CHARACTER.sub("\ufffd", json.loads(line)[form.text_field])
        for line in _lines(span, form)
        if line.strip()
    )


def _read_file(span: Span, form: TextFormat) -> Iterator[str]:
    yield "".join(_lines(span, form))


def _read_blocks(span: Span, form: TextFormat) -> Iterator[str]:
    least = 2 if form.documents == "auto" else 1
    lines: list[str] = []
    length = 0
    blank_lines = 0
    for line in _lines(span, form):
        if not line.strip():
            blank_lines += 1
            continue
        if blank_lines >= least or (blank_lines and length > _LONGEST_DOCUMENT):
            yield "".join(lines)
            lines, length = [], 0
        elif blank_lines:
            lines.append("\n")
        blank_lines = 0
        lines.append(line)
        length += len(line)
    yield "".join(lines)


_READERS = {
    "auto": _read_blocks,
    "blank-lines": _read_blocks,
    "line": _lines,
    "file": _read_file,
}
