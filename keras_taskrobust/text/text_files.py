"""Text files: which of them can be read, and the documents in them."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

FOLDER_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".gz")

_CHUNK_BYTES = 1 << 20
_LONGEST_DOCUMENT = 1_000_000  # characters; longer ones are cut between paragraphs
_BYTE_ORDER_MARK = "\ufeff"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


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


def find_fault(path: Path) -> str:
    """Reads a file to its end and says why it cannot be used.

    Args:
        path: path of a text file.

    Returns:
        string. What is wrong with the file, "" if nothing is.
    """
    try:
        with _open_bytes(path) as file:
            fault = _find_text_fault(file)
        return fault or (_find_json_fault(path) if _is_json_lines(path) else "")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"damaged gzip file ({error})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def read_documents(path: Path) -> Iterator[str]:
    """Yields the documents of a file in which `find_fault` found none.

    A text file is one document, in which a blank line separates paragraphs and two or more
    blank lines separate documents (so that a file may hold many). A document of more than
    a million characters is cut between paragraphs. In a .jsonl file each line is a document: a
    JSON object with a string in the field "text", in which half a character (a lone surrogate) is
    replaced by U+FFFD.

    Args:
        path: path of a text file.

    Yields:
        strings. The documents which hold more than white space.
    """
    documents = _read_json_lines(path) if _is_json_lines(path) else _read_plain(path)
    for document in documents:
        if document.strip():
            yield document


def _has_text_suffix(path: Path) -> bool:
    return path.name.lower().endswith(FOLDER_SUFFIXES)


def _is_json_lines(path: Path) -> bool:
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


def _open_bytes(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _find_text_fault(file: BinaryIO) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    blank = True
    position = 0
    while True:
        chunk = file.read(_CHUNK_BYTES)
        if b"\0" in chunk:
            return f"binary file (a zero byte at position {position + chunk.index(0)})"
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            return f"not UTF-8 (near byte {position})" if position else "not UTF-8"
        blank = blank and not text.strip(_BYTE_ORDER_MARK).strip()
        position += len(chunk)
        if not chunk:
            return "empty file" if blank else ""


def _find_json_fault(path: Path) -> str:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                return f"line {number} is not JSON that can be read ({error})"
            if not isinstance(record, dict) or not isinstance(record.get("text"), str):
                return f'line {number} is not an object with a string "text"'
    return ""


def _lines(path: Path) -> Iterator[str]:
    with _open_bytes(path) as file:
        for number, line in enumerate(file):
            text = line.decode("utf-8")
            yield text.removeprefix(_BYTE_ORDER_MARK) if number == 0 else text


def _read_json_lines(path: Path) -> Iterator[str]:
    # JSON may escape half a character, which no other text can hold.
    return (
        _HALF_CHARACTER.sub("\ufffd", json.loads(line)["text"])
        for line in _lines(path)
        if line.strip()
    )


def _read_plain(path: Path) -> Iterator[str]:
    lines: list[str] = []
    length = 0
    blank_lines = 0
    for line in _lines(path):
        if not line.strip():
            blank_lines += 1
            continue
        if blank_lines >= 2 or (blank_lines and length > _LONGEST_DOCUMENT):
            yield "".join(lines)
            lines, length = [], 0
        elif blank_lines:
            lines.append("\n")
        blank_lines = 0
        lines.append(line)
        length += len(line)
    yield "".join(lines)
