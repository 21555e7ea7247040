"""Which bytes of which text files a part of a corpus has: it reads no others.

The files one after the other are cut into stretches of about equal length. A large file is divided,
at the first end of a document after the cut. All else belongs to the part in which it begins.
"""

import codecs
from collections.abc import Sequence
from pathlib import Path

from keras_taskrobust.parts import WHOLE, Part
from keras_taskrobust.text.text_files import Span, TextFormat, is_json_lines

#: Smaller files are not worth being divided: they are whole in one part, or skipped.
LEAST_DIVIDED = 2**24


def spans_of(files: Sequence[Path], form: TextFormat, part: Part) -> list[Span]:
    """What a part reads.

    Args:
        files: sequence of paths, all files of the corpus.
        form: `TextFormat`.
        part: `Part`.

    Returns:
        list of `Span`, in the order of the files.
    """
    if part == WHOLE:
        return [Span(file) for file in files]
    sizes = [file.stat().st_size for file in files]
    first, last = part.edges(sum(sizes))
    spans, begin = [], 0
    for file, size in zip(files, sizes, strict=True):
        if _is_divided(file, size, form):
            cuts = (min(max(edge - begin, 0), size) for edge in (first, last))
            start, stop = (_next_document(file, size, form, cut) for cut in cuts)
            if start < stop:
                spans.append(Span(file, start, stop))
        elif first <= begin < last:
            spans.append(Span(file))
        begin += size
    return spans


def _is_divided(file: Path, size: int, form: TextFormat) -> bool:
    """Whether documents end where the file can be read from."""
    has_ends = is_json_lines(file) or form.documents != "file"
    is_compressed = file.name.lower().endswith(".gz")
    is_utf8 = codecs.lookup(form.encoding).name == "utf-8"
    return size >= LEAST_DIVIDED and has_ends and is_utf8 and not is_compressed


def _next_document(path: Path, size: int, form: TextFormat, cut: int) -> int:
    """Where the first document begins that begins at a place or after it."""
    if cut in (0, size):
        return cut
    least = 0 if is_json_lines(path) else {"auto": 2, "blank-lines": 1, "line": 0}[form.documents]
    blank_lines = 0
    with path.open("rb") as file:
        file.seek(cut - 1)
        file.readline()
        while line := file.readline():
            if line.decode("utf-8", "replace").strip():
                if blank_lines >= least:
                    return file.tell() - len(line)
                blank_lines = 0
            else:
                blank_lines += 1
    return size
