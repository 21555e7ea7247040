"""Named sources of raw text, read as documents of sentences of words."""

import abc
import platform
import warnings
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import nltk
from nltk.corpus.reader.api import CorpusReader
from nltk.corpus.util import LazyCorpusLoader

from keras_taskrobust.files import nearest_path
from keras_taskrobust.parts import WHOLE, Part
from keras_taskrobust.plain_text import listed_faults
from keras_taskrobust.text.bundled_corpus import bundled_documents
from keras_taskrobust.text.file_parts import spans_of
from keras_taskrobust.text.nltk_resources import load_nltk_resource
from keras_taskrobust.text.splitting import Document, TextSplitter, split_document
from keras_taskrobust.text.text_files import (
    FOLDER_SUFFIXES,
    TextFormat,
    find_fault,
    find_text_files,
    read_documents,
)

SOURCES = (
    "'bundled', 'nltk:NAME', 'tfds:NAME', the path of a text file or folder, or several of these "
    "with '+' between them"
)

_PENN_WORDS = {
    "``": '"',
    "''": '"',
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
}


class Corpus(abc.ABC):
    """An iterable of documents; a document is a list of sentences, a sentence a list of words.

    Iterating again reads the source again, in the same order.

    Args:
        description: string. What the corpus is, for manifests and reports.

    Attributes:
        description: string.
        skipped: dict. Files left out, each with the reason.
    """

    def __init__(self, description: str):
        self.description = description
        self.skipped: dict[str, str] = {}

    @property
    def sources(self) -> "Sequence[Corpus]":
        """What it consists of, one after another."""
        return (self,)

    @abc.abstractmethod
    def raw_documents(self) -> Iterator[str | Document]:
        """Yields the documents as the source has them: plain text, or split already."""

    def __iter__(self) -> Iterator[Document]:
        splitter = TextSplitter()
        for raw_document in self.raw_documents():
            document = split_document(raw_document, splitter)
            if document:
                yield document


def load_corpus(
    source: "str | Path | Corpus | Sequence[Document]",
    strict: bool = False,
    documents: str = "auto",
    encoding: str = "utf-8",
    text_field: str = "text",
    part: Part = WHOLE,
) -> Corpus:
    """Opens a source of raw text.

    Args:
        source: one of
            - `"bundled"`: the text shipped with every Python (pydoc's topics, the standard
              library's docstrings and comments);
            - `"nltk:NAME"`: an NLTK corpus that has sentences, such as `"nltk:brown"`,
              without the traces that `"nltk:treebank"` marks as `-NONE-`;
            - `"tfds:NAME"`: a TensorFlow Datasets text set, such as
              `"tfds:wikipedia/20230601.en"`, its split "train" (or `"tfds:NAME@SPLIT"`). It
              is loaded when the corpus is read;
            - the path of a text file (plain text, or .jsonl with a field "text"; gzip'd if it
              ends in .gz), or of a folder of .txt, .jsonl and .gz files;
            - several of these, such as `"nltk:brown+nltk:movie_reviews"`, one after another;
            - a sequence of documents, or a `Corpus`, which is returned.
        strict: bool. Whether to refuse files which are empty, binary, damaged or not in the
            encoding. By default they are skipped, with one warning, and listed in the attribute
            `skipped`.
        documents: string. What ends a document in a plain text file: `"auto"`, two or more blank
            lines; `"blank-lines"`, one or more; `"line"` or `"file"`, the end of it.
        encoding: string. That of the text files that are not UTF-8, such as `"latin-1"`.
        text_field: string. The field that has the text, of .jsonl files and TFDS sets.
        part: `Part` of each of the sources: the others are not read. The parts one after another
            have the documents of the whole.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: the source is unknown, has no usable text file, or (if `strict`) has one
            which is not usable.
        LookupError: an NLTK corpus is neither installed nor can be downloaded.

    Example:

    >>> corpus = load_corpus([[["Cats", "purr", "."], ["Dogs", "bark", "."]]])
    >>> [len(document) for document in corpus]
    [2]
    """
    if isinstance(source, Corpus):
        if part != WHOLE:
            raise ValueError(
                "`source` must be a name, a path or a sequence of documents, to be read in parts. "
                f"Received: {source!r} with part={part}"
            )
        return source
    form = TextFormat(documents, encoding, text_field)
    if isinstance(source, Path):
        return FileCorpus(source, strict, form, part)
    if not isinstance(source, str):
        return MemoryCorpus(source, part)
    if "+" in source and not Path(source).exists():
        named = source.split("+")
        return JoinedCorpus([load_corpus(one, strict, **vars(form), part=part) for one in named])
    if not has_files(source):
        return _load_named(source, strict, text_field, part)
    return FileCorpus(Path(source), strict, form, part)


def has_files(source: str) -> bool:
    """Whether a source is a path of text files, or has one among several."""
    if "+" in source and not Path(source).exists():
        return any(map(has_files, source.split("+")))
    return source != "bundled" and not source.startswith(("nltk:", "tfds:"))


def num_characters(document: str | Document) -> int:
    """The characters of a document, and a space after each word."""
    if isinstance(document, str):
        return len(document)
    return sum(len(word) + 1 for words in document for word in words)


class BundledCorpus(Corpus):
    """The text shipped with every Python."""

    def __init__(self, part: Part = WHOLE):
        super().__init__(f"bundled (Python {platform.python_version()})")
        self._part = part

    def raw_documents(self) -> Iterator[str]:
        return iter(self._part.of(bundled_documents()))


class MemoryCorpus(Corpus):
    """Documents held in memory.

    Args:
        documents: sequence of documents (lists of lists of words).
        part: `Part`.
    """

    def __init__(self, documents: Sequence[Document], part: Part = WHOLE):
        if not isinstance(documents, Sequence):
            raise ValueError(
                f"`source` must be {SOURCES}, a Corpus or a sequence of documents. "
                f"Received: {documents!r}"
            )
        super().__init__(f"{len(documents)} documents in memory")
        self.documents = part.of(documents)

    def raw_documents(self) -> Iterator[Document]:
        return iter(self.documents)


class JoinedCorpus(Corpus):
    """Several corpora, one after another.

    Args:
        corpora: sequence of `Corpus`.
    """

    def __init__(self, corpora: Sequence[Corpus]):
        super().__init__("+".join(corpus.description for corpus in corpora))
        self.corpora = corpora
        self.skipped = {file: why for corpus in corpora for file, why in corpus.skipped.items()}

    @property
    def sources(self) -> Sequence[Corpus]:
        return [source for corpus in self.corpora for source in corpus.sources]

    def raw_documents(self) -> Iterator[str | Document]:
        for corpus in self.corpora:
            yield from corpus.raw_documents()


class FileCorpus(Corpus):
    """Text files.

    Args:
        path: path of a file or folder.
        strict: bool. Whether to refuse unusable files instead of skipping them.
        form: `TextFormat`.
        part: `Part`. Of a file that is divided a fault ends it: the others cannot know.
    """

    def __init__(
        self,
        path: Path,
        strict: bool = False,
        form: TextFormat = TextFormat(),  # noqa: B008
        part: Part = WHOLE,
    ):
        super().__init__(path.name)
        self.form = form
        if not path.exists():
            nearest = nearest_path(path)
            hint = "" if nearest is None else f". Did you mean {str(nearest)!r}?"
            raise ValueError(
                f"`source` must be {SOURCES}. Received: {str(path)!r}, which does not exist{hint}"
            )
        files = find_text_files(path)
        if not files:
            raise ValueError(
                f"`source` must be a folder with files {', '.join(FOLDER_SUFFIXES)}, in it or its "
                f"sub-folders. Received: {str(path)!r}, which has none{_others_in(path)}"
            )
        spans = spans_of(files, form, part)
        found = {str(span): find_fault(span, form) for span in spans}
        self.skipped = {span: fault for span, fault in found.items() if fault}
        self.spans = [span for span in spans if str(span) not in self.skipped]
        is_divided = any(not span.is_whole and str(span) in self.skipped for span in spans)
        if self.skipped:
            self._report(strict or is_divided or (part == WHOLE and not self.spans), len(found))

    def raw_documents(self) -> Iterator[str]:
        for span in self.spans:
            yield from read_documents(span, self.form)

    def _report(self, is_refused: bool, num_files: int) -> None:
        faults = listed_faults(self.skipped)
        if is_refused:
            raise ValueError(
                f"`source` must be text in {self.form.encoding.upper()}, plain or JSON lines with "
                f'a string "{self.form.text_field}", unless `encoding` or `text_field` say '
                f"otherwise. Received: {len(self.skipped)} of {num_files} files that are not: "
                f"{faults}"
            )
        warnings.warn(
            f"{len(self.skipped)} of {num_files} text files are skipped: {faults}. `encoding` says "
            "what those are that are not UTF-8, `text_field` where the text of .jsonl files is",
            stacklevel=4,
        )


class NltkCorpus(Corpus):
    """An NLTK corpus; its files are the documents, its sentences are kept.

    Words that are Penn Treebank notation are written as in plain text (`-LRB-` is "(").

    Args:
        name: string. The corpus's name in `nltk.corpus`.
        strict: bool. Whether to refuse damaged files instead of skipping them.
        part: `Part`.
    """

    def __init__(self, name: str, strict: bool = False, part: Part = WHOLE):
        super().__init__(f"nltk:{name}")
        self._part = part
        reader = getattr(nltk.corpus, name, None)
        if not isinstance(reader, LazyCorpusLoader | CorpusReader):
            raise ValueError(
                "`source` must name a corpus of `nltk.corpus` after 'nltk:'. "
                f"Received: source={self.description!r}"
            )
        if isinstance(reader, LazyCorpusLoader):
            load_nltk_resource(name, partial(getattr, reader, "ensure_loaded"))
        if not hasattr(reader, "sents"):
            raise ValueError(
                "`source` must name an NLTK corpus that has sentences. "
                f"Received: source={self.description!r}, a {type(reader).__name__}"
            )
        self._reader = reader
        self._strict = strict
        self._has_traces = name == "treebank"

    def raw_documents(self) -> Iterator[Document]:
        for file in self._part.of(self._reader.fileids()):
            try:
                # The readers of plain text split sentences with Punkt.
                sentences = load_nltk_resource("punkt_tab", partial(self._sentences, file))
            except (OSError, EOFError, ValueError, zlib.error) as error:
                self._skip(file, error)
            else:
                yield [[_PENN_WORDS.get(word, word) for word in words] for words in sentences]

    def _skip(self, file: str, error: Exception) -> None:
        path = str(self._reader.abspath(file))
        if self._strict:
            raise ValueError(
                "`source` must be a corpus whose files can all be read. "
                f"Received: {self.description!r} with {path}: {error}"
            ) from error
        if path not in self.skipped:
            self.skipped[path] = str(error)
            warnings.warn(f"A text file is skipped: {path}: {error}", stacklevel=3)

    def _sentences(self, file: str) -> list[list[str]]:
        if self._has_traces:
            tagged = self._reader.tagged_sents(file)
            sentences = ([word for word, tag in words if tag != "-NONE-"] for words in tagged)
        else:
            sentences = (list(words) for words in self._reader.sents(file))
        return [words for words in sentences if words]


class TfdsCorpus(Corpus):
    """A text set of TensorFlow Datasets, each example a document. TensorFlow is needed only if
    the set was prepared in a format that only TensorFlow reads.

    Args:
        name: string. `"NAME"` or `"NAME@SPLIT"`; the split is "train" unless given.
        text_field: string. The field of an example that has the text.
        part: `Part`.
    """

    def __init__(self, name: str, text_field: str = "text", part: Part = WHOLE):
        super().__init__(f"tfds:{name}")
        self._part = part
        self._text_field = text_field
        self._name, _, split = name.partition("@")
        self._split = split or "train"

    def raw_documents(self) -> Iterator[str]:
        import tensorflow_datasets as tfds

        examples: Any
        try:
            source = tfds.data_source(self._name, split=self._split)
            examples = (source[index] for index in self._part.of(range(len(source))))
        except tfds.core.DatasetNotFoundError as error:
            raise ValueError(
                "`source` must name a TFDS set after 'tfds:'. "
                f"Received: source={self.description!r}, which TFDS does not know"
            ) from error
        except NotImplementedError:  # prepared in a format which only TensorFlow reads
            examples = tfds.as_numpy(tfds.load(self._name, split=self._split))
            if self._part != WHOLE:
                examples = islice(examples, *self._part.edges(len(examples)))
        for example in examples:
            text = example.get(self._text_field)
            if not isinstance(text, str | bytes):
                raise ValueError(
                    "`source` must name a TFDS set whose examples have a field "
                    f"{self._text_field!r} with the text, unless `text_field` says another. "
                    f"Received: source={self.description!r} with {sorted(example)}"
                )
            yield text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text


def _load_named(source: str, strict: bool, text_field: str, part: Part) -> Corpus:
    if source.startswith("nltk:"):
        return NltkCorpus(source.removeprefix("nltk:"), strict, part)
    if source.startswith("tfds:"):
        return TfdsCorpus(source.removeprefix("tfds:"), text_field, part)
    return BundledCorpus(part)


def _others_in(path: Path) -> str:
    """The kinds of the other files in a folder, in words."""
    found = {file.suffix for file in path.rglob("*") if file.is_file()}
    return f", but {', '.join(sorted(found)[:5])}" if found else ""
