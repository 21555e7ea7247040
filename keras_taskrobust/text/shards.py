"""Raw documents -> shards of tagged words on disk, in parallel and resumable; words -> tokens."""

import hashlib
import json
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np

from keras_taskrobust.files import READING_ERRORS
from keras_taskrobust.text.annotated_text import FORMAT
from keras_taskrobust.text.annotator import (
    SHARD_ARRAYS,
    Annotation,
    Annotator,
    RawShard,
    write_shard,
)
from keras_taskrobust.text.corpora import Corpus, num_characters
from keras_taskrobust.text.pos import PosTagger
from keras_taskrobust.text.preparation import preparing
from keras_taskrobust.text.splitting import Document, TextSplitter
from keras_taskrobust.text.tagging_processes import annotate_in_processes
from keras_taskrobust.text.vocabulary import WordPieceEncoder

SHARD_CHARACTERS = 500_000

_FILES = {f"{name}.npy" for name in SHARD_ARRAYS}
_LARGEST_UINT16 = 65536
_FEW_SHARDS = 2  # up to here starting processes costs more than they save


def tagging_of(tagger: str, tag_set: str, shard_characters: int) -> tuple[Annotation, dict]:
    """How text is tagged.

    Args:
        tagger: string, as in `PosTagger`.
        tag_set: string, as in `PosTagger`.
        shard_characters: int, the size of a shard.

    Returns:
        tuple of the arguments of `Annotator`, and the dict of what decides a shard's content beside
        the text.
    """
    pos_tagger = PosTagger(tagger, tag_set)
    sentences = TextSplitter().sentences
    settings = {
        "format": FORMAT,
        "tagger": pos_tagger.description,
        "sentences": sentences,
        "shard_characters": shard_characters,
        # Texts of the nine tasks are those from before there were others.
        **({} if tag_set == "nine" else {"tag_set": tag_set}),
    }
    return (pos_tagger.name, sentences, tag_set), settings


def raw_shards(documents: Iterable[str | Document], characters: int) -> Iterator[RawShard]:
    """Cuts documents into runs with about so many characters."""
    shard: RawShard = []
    length = 0
    for document in documents:
        shard.append(document)
        length += num_characters(document)
        if length >= characters:
            yield shard
            shard, length = [], 0
    if shard:
        yield shard


def shard_key(settings: dict, shard: RawShard) -> str:
    """Hashes what decides a shard's content: the settings and the documents."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for document in shard:
        digest.update(json.dumps(document).encode())
    return digest.hexdigest()


def key_of(path: Path) -> str:
    """The `shard_key` in the name of a shard."""
    return path.stem.partition("-")[2]


def num_documents(path: Path) -> int:
    """How many documents a shard has, blank ones included."""
    with np.load(path) as shard:
        return len(shard["document_lengths"])


def write_shards(
    corpus: Corpus,
    directory: Path,
    settings: dict,
    annotation: Annotation,
    workers: int | None,
    progress: bool,
) -> tuple[list[Path], str]:
    """Annotates a corpus into shards, keeping those which an earlier run has finished.

    Args:
        corpus: a `Corpus`.
        directory: path of the folder of the shards.
        settings: dict. What decides the content beside the text, with "shard_characters".
        annotation: the arguments of `Annotator`.
        workers: int >= 1, or `None` for one a core.
        progress: bool. Whether to show a progress bar.

    Returns:
        tuple of the paths of the shards, in order, and the fingerprint of the whole corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    fingerprint = hashlib.sha256()

    def missing() -> Iterator[tuple[Path, RawShard]]:
        cut = raw_shards(corpus.raw_documents(), settings["shard_characters"])
        for number, shard in enumerate(cut):
            key = shard_key(settings, shard)
            # A process of an earlier run writes nothing to this path but what belongs there.
            path = directory / f"{number:06d}-{key}.npz"
            paths.append(path)
            fingerprint.update(key.encode())
            if is_finished(path):
                advance()
            else:
                yield path, shard

    with preparing("tagging", "parts", None, progress) as advance:
        _annotate_all(missing(), annotation, workers, advance)
    return paths, fingerprint.hexdigest()


def corpus_fingerprint(corpus: Corpus, settings: dict, progress: bool = False) -> str:
    """The fingerprint that `write_shards` returns, without annotating anything."""
    return fingerprint_of(corpus.raw_documents(), settings, progress)


def fingerprint_of(
    documents: Iterable[str | Document], settings: dict, progress: bool = False
) -> str:
    """`corpus_fingerprint` of the corpus that has these documents."""
    fingerprint = hashlib.sha256()
    with preparing("reading", "parts", None, progress) as advance:
        for shard in raw_shards(documents, settings["shard_characters"]):
            fingerprint.update(shard_key(settings, shard).encode())
            advance()
    return fingerprint.hexdigest()


def count_words(shards: Iterable[Path]) -> Counter[str]:
    """How often each word occurs in the text of shards."""
    counts: Counter[str] = Counter()
    for path in shards:
        with np.load(path) as shard:
            words = _words_of(shard)
            numbers = np.bincount(shard["word_ids"], minlength=len(words))
            counts.update(dict(zip(words, numbers.tolist(), strict=True)))
    return counts


def read_tokens(path: Path, encoder: WordPieceEncoder) -> dict[str, np.ndarray]:
    """Reads a shard and cuts its words into pieces.

    Args:
        path: path of the shard.
        encoder: a `WordPieceEncoder`.

    Returns:
        dict of arrays: "token_ids" uint16 (int32 for vocabularies beyond 65,536 pieces), "tasks"
        int8 and "word_starts" bool, one entry a token; "sentence_lengths" in tokens and
        "document_lengths" in sentences. Empty sentences and documents are left out.
    """
    with np.load(path) as shard:
        arrays = dict(shard)
    pieces = [encoder.pieces(word) for word in _words_of(arrays)]
    all_pieces = np.array([piece for ids in pieces for piece in ids], token_dtype(encoder))
    sizes = np.array([len(ids) for ids in pieces], np.int64)
    word_ids = arrays["word_ids"]
    lengths = sizes[word_ids]
    starts = np.cumsum(lengths) - lengths
    first_pieces = (np.cumsum(sizes) - sizes)[word_ids]
    source = np.arange(lengths.sum()) + np.repeat(first_pieces - starts, lengths)
    word_starts = np.zeros(len(source), bool)
    word_starts[starts[lengths > 0]] = True
    sentence_lengths = _sums(lengths, arrays["sentence_lengths"])
    document_lengths = _sums(sentence_lengths > 0, arrays["document_lengths"])
    return {
        "token_ids": all_pieces[source],
        "tasks": np.repeat(arrays["tasks"], lengths),
        "word_starts": word_starts,
        "sentence_lengths": sentence_lengths[sentence_lengths > 0],
        "document_lengths": document_lengths[document_lengths > 0],
    }


def token_dtype(encoder: WordPieceEncoder) -> np.dtype:
    """The dtype in which token ids are stored."""
    return np.dtype(np.uint16 if encoder.vocabulary_size <= _LARGEST_UINT16 else np.int32)


def _words_of(shard: Mapping[str, np.ndarray]) -> list[str]:
    return json.loads(shard["words"].tobytes())


def _sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The sums of consecutive runs of values, of the given lengths."""
    totals = np.concatenate([[0], np.cumsum(values)])
    return np.diff(totals[np.concatenate([[0], np.cumsum(lengths)])])


def _annotate_all(
    shards: Iterator[tuple[Path, RawShard]],
    annotation: Annotation,
    workers: int | None,
    advance: Callable[[], None],
) -> None:
    first = list(islice(shards, _FEW_SHARDS + 1 if workers is None else 0))
    shards = chain(first, shards)
    if workers == 1 or (workers is None and len(first) <= _FEW_SHARDS):
        annotate = None
        for path, shard in shards:
            annotate = annotate or Annotator(*annotation)
            write_shard(path, annotate(shard))
            advance()
        return
    annotate_in_processes(shards, annotation, workers or os.cpu_count() or 1, advance)


def is_finished(path: Path) -> bool:
    """Whether there is a shard that can be read to its end."""
    if not path.exists():
        return False
    try:
        with zipfile.ZipFile(path) as shard:
            damaged = shard.testzip()
            if damaged is None and set(shard.namelist()) != _FILES:
                damaged = "its table of contents"
    except READING_ERRORS as error:
        damaged = str(error)
    if damaged is not None:
        warnings.warn(f"{path} is damaged ({damaged}); it is made again", stacklevel=3)
    return damaged is None
