"""Raw documents -> shards of tagged tokens on disk, in parallel and resumable."""

import hashlib
import json
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_taskrobust.text.corpora import Corpus, split_document
from keras_taskrobust.text.pos import PosTagger
from keras_taskrobust.text.splitting import Document, TextSplitter
from keras_taskrobust.text.vocabulary import WordPieceEncoder

SHARD_CHARACTERS = 500_000

_FEW_SHARDS = 8  # up to here starting processes costs more than they save
_SHARDS_AHEAD = 2  # per process
_LARGEST_UINT16 = 65536

RawShard = list[str | Document]
Annotation = tuple[str, str, WordPieceEncoder, str]  # the arguments of `Annotator`


class Annotator:
    """Raw documents to token ids, each with the task of its word.

    Args:
        tagger: string. `"nltk"` or `"textblob"`.
        sentences: string. `"punkt"` or `"rules"`, the sentence splitter.
        encoder: a `WordPieceEncoder`.
        tag_set: string. `"nine"` or `"penn"`.
    """

    def __init__(self, tagger: str, sentences: str, encoder: WordPieceEncoder, tag_set: str):
        self._tagger = PosTagger(tagger, tag_set)
        self._splitter = TextSplitter(sentences)
        self._encoder = encoder

    def __call__(self, raw_documents: RawShard) -> dict[str, np.ndarray]:
        """Annotates documents.

        Args:
            raw_documents: list of documents, plain text or split.

        Returns:
            dict of arrays: "token_ids" uint16 (int32 for vocabularies beyond 65,536 pieces),
            "tasks" int8 and "word_starts" bool, one entry a token; "sentence_lengths" int32 in
            tokens and "document_lengths" int32 in sentences. Empty sentences and
            documents are left out.
        """
        token_ids: list[int] = []
        tasks: list[int] = []
        pieces_of_word: list[int] = []
        sentence_lengths: list[int] = []
        document_lengths: list[int] = []
        for raw_document in raw_documents:
            document = split_document(raw_document, self._splitter)
            num_sentences = len(sentence_lengths)
            for words, word_tasks in zip(document, self._tagger.tag(document), strict=True):
                start = len(token_ids)
                for word, task in zip(words, word_tasks, strict=True):
                    pieces = self._encoder.pieces(word)
                    if pieces:
                        token_ids += pieces
                        tasks.append(task)
                        pieces_of_word.append(len(pieces))
                if len(token_ids) > start:
                    sentence_lengths.append(len(token_ids) - start)
            if len(sentence_lengths) > num_sentences:
                document_lengths.append(len(sentence_lengths) - num_sentences)
        word_starts = np.zeros((len(token_ids),), bool)
        word_starts[np.cumsum([0, *pieces_of_word])[:-1]] = True
        return {
            "token_ids": np.array(token_ids, dtype=token_dtype(self._encoder)),
            "tasks": np.repeat(np.array(tasks, dtype=np.int8), pieces_of_word),
            "word_starts": word_starts,
            "sentence_lengths": np.array(sentence_lengths, dtype=np.int32),
            "document_lengths": np.array(document_lengths, dtype=np.int32),
        }


def token_dtype(encoder: WordPieceEncoder) -> np.dtype:
    """The dtype in which token ids are stored."""
    return np.dtype(np.uint16 if encoder.vocabulary_size <= _LARGEST_UINT16 else np.int32)


def raw_shards(corpus: Corpus, characters: int) -> Iterator[RawShard]:
    """Cuts a corpus into runs of documents with about so many characters."""
    shard: RawShard = []
    length = 0
    for document in corpus.raw_documents():
        shard.append(document)
        length += _num_characters(document)
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


def write_shards(
    corpus: Corpus,
    directory: Path,
    settings: dict,
    annotator: Annotation,
    workers: int | None,
    progress: bool,
) -> tuple[list[Path], str]:
    """Annotates a corpus into shards, keeping those which an earlier run has finished.

    Args:
        corpus: a `Corpus`.
        directory: path of the folder of the shards.
        settings: dict. What decides the content beside the text, with "shard_characters".
        annotator: the arguments of `Annotator`.
        workers: int >= 1, or `None` for one a core.
        progress: bool. Whether to show a progress bar.

    Returns:
        tuple of the paths of the shards, in order, and the fingerprint of the whole corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    fingerprint = hashlib.sha256()
    bar = Progress(
        TextColumn("tagging"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeElapsedColumn(),
        disable=not progress,
    )

    def missing() -> Iterator[tuple[Path, str, RawShard]]:
        for number, shard in enumerate(raw_shards(corpus, settings["shard_characters"])):
            path, key = directory / f"{number:06d}.npz", shard_key(settings, shard)
            paths.append(path)
            fingerprint.update(key.encode())
            if _read_key(path) == key:
                bar.advance(task)
            else:
                yield path, key, shard
        bar.update(task, total=len(paths))

    with bar:
        task = bar.add_task("", total=None)
        _annotate_all(missing(), annotator, workers, lambda: bar.advance(task))
    return paths, fingerprint.hexdigest()


def corpus_fingerprint(corpus: Corpus, settings: dict) -> str:
    """The fingerprint that `write_shards` returns, without annotating anything."""
    fingerprint = hashlib.sha256()
    for shard in raw_shards(corpus, settings["shard_characters"]):
        fingerprint.update(shard_key(settings, shard).encode())
    return fingerprint.hexdigest()


def _num_characters(document: str | Document) -> int:
    if isinstance(document, str):
        return len(document)
    return sum(len(word) + 1 for words in document for word in words)


def _annotate_all(
    shards: Iterator[tuple[Path, str, RawShard]],
    annotator: Annotation,
    workers: int | None,
    advance: Callable[[], None],
) -> None:
    first = list(islice(shards, _FEW_SHARDS + 1 if workers is None else 0))
    shards = chain(first, shards)
    if workers == 1 or (workers is None and len(first) <= _FEW_SHARDS):
        annotate = None
        for path, key, shard in shards:
            annotate = annotate or Annotator(*annotator)
            _write_shard(path, key, annotate(shard))
            advance()
        return
    workers = workers or os.cpu_count() or 1
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, annotator
    )
    running: set[Future] = set()
    try:
        for path, key, shard in shards:
            running.add(pool.submit(_annotate_in_worker, path, key, shard))
            if len(running) >= workers * _SHARDS_AHEAD:
                running = _collect(running, advance)
        while running:
            running = _collect(running, advance)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collect(running: set[Future], advance: Callable[[], None]) -> set[Future]:
    done, running = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        advance()
    return running


_worker_annotator: Annotator | None = None


def _start_worker(*annotator: *Annotation) -> None:
    global _worker_annotator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends its workers
    _worker_annotator = Annotator(*annotator)


def _annotate_in_worker(path: Path, key: str, shard: RawShard) -> None:
    if _worker_annotator is None:
        raise RuntimeError("`_start_worker` must run first. Received: a process without it")
    _write_shard(path, key, _worker_annotator(shard))


def _write_shard(path: Path, key: str, arrays: dict[str, Any]) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.savez(file, key=np.array(key), **arrays)
    os.replace(temporary, path)


def _read_key(path: Path) -> str:
    """The key of a finished shard, "" if there is none or it is damaged."""
    if not path.exists():
        return ""
    try:
        with np.load(path) as shard:
            return str(shard["key"])
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError):
        return ""
