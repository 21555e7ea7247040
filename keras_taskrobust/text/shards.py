"""Raw documents -> shards of tagged tokens on disk, in parallel and resumable."""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_taskrobust.files import READING_ERRORS
from keras_taskrobust.text.annotator import (
    SHARD_ARRAYS,
    Annotation,
    Annotator,
    RawShard,
    write_shard,
)
from keras_taskrobust.text.corpora import Corpus
from keras_taskrobust.text.splitting import Document
from keras_taskrobust.text.tagging_processes import annotate_in_processes

SHARD_CHARACTERS = 500_000

_FILES = {f"{name}.npy" for name in SHARD_ARRAYS}

_FEW_SHARDS = 2  # up to here starting processes costs more than they save


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
    bar = Progress(
        TextColumn("tagging"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeElapsedColumn(),
        disable=not progress,
    )

    def missing() -> Iterator[tuple[Path, RawShard]]:
        for number, shard in enumerate(raw_shards(corpus, settings["shard_characters"])):
            key = shard_key(settings, shard)
            # A process of an earlier run writes nothing to this path but what belongs there.
            path = directory / f"{number:06d}-{key}.npz"
            paths.append(path)
            fingerprint.update(key.encode())
            if _is_finished(path):
                bar.advance(task)
            else:
                yield path, shard
        bar.update(task, total=len(paths))

    with bar:
        task = bar.add_task("", total=None)
        _annotate_all(missing(), annotation, workers, lambda: bar.advance(task))
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


def _is_finished(path: Path) -> bool:
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
