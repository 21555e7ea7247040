"""A corpus that is tagged in parts, by several processes or machines, and the parts joined."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from keras_taskrobust import checks
from keras_taskrobust.files import path_inside
from keras_taskrobust.locks import locked
from keras_taskrobust.parts import Part, all_parts, refuse_other_parts
from keras_taskrobust.text.annotated_text import read_json, write_json
from keras_taskrobust.text.corpora import Corpus, load_corpus
from keras_taskrobust.text.pieces import CutCorpus
from keras_taskrobust.text.shards import (
    SHARD_CHARACTERS,
    fingerprint_of,
    is_finished,
    key_of,
    num_documents,
    shard_key,
    tagging_of,
    write_shards,
)
from keras_taskrobust.text.splitting import Document

PARTS = "parts"
_PART = "part.json"  # says that a part is complete


def annotate_part(
    source: Any,
    directory: str | os.PathLike,
    part: str,
    tagger: str = "auto",
    workers: int | None = None,
    strict: bool = False,
    shard_characters: int = SHARD_CHARACTERS,
    progress: bool = True,
    tag_set: str = "nine",
    documents: str = "auto",
    encoding: str = "utf-8",
    text_field: str = "text",
) -> int:
    """Tags one of several parts of a corpus, on any machine, and reads no other.

    Once all parts are in the folder, `annotate` with the same source and settings joins them. The
    result is, to the byte, that of `annotate` alone. A part that was interrupted goes on.

    Large text files are divided where a document ends; others are whole in one part. Of the parts
    only the tagging is done: the vocabulary needs all of them.

    Args:
        source: what `load_corpus` opens, but no `Corpus`.
        directory: path of the folder that `annotate` is given. Parts of several machines are
            brought together there: their folders are `parts/1-of-8`, `parts/2-of-8` and so on.
        part: string. `"2/8"` is the second of eight.
        tagger: string. As in `annotate`, as are all others.
        workers: int.
        strict: bool.
        shard_characters: int.
        progress: bool.
        tag_set: string.
        documents: string.
        encoding: string.
        text_field: string.

    Returns:
        int. The documents of the part.

    Raises:
        ValueError: an argument is out of range, there are parts of another number, or another
            process makes this one.

    Example:

    ```python
    for part in ("1/2", "2/2"):  # each on a machine of its own
        annotate_part("my-texts/", "text", part)
    text = annotate("my-texts/", "text", 30522)
    ```
    """
    checks.integer_or_none("workers", workers, least=1)
    checks.integer("shard_characters", shard_characters, least=1)
    own = Part.read(part)
    folder = Path(directory, PARTS)
    refuse_other_parts(folder, own)
    annotator, tagging = tagging_of(tagger, tag_set, shard_characters)
    corpus = load_corpus(source, strict, documents, encoding, text_field, own)
    folder = folder / own.name
    with locked(folder):
        shards = [
            write_shards(one, folder / str(number), tagging, annotator, workers, progress)[0]
            for number, one in enumerate(corpus.sources)
        ]
        names = [[path.relative_to(folder).as_posix() for path in paths] for paths in shards]
        content = {"corpus": corpus.description, "tagging": tagging, "shards": names}
        write_json(folder / _PART, content)
    return sum(num_documents(path) for paths in shards for path in paths)


def joined_parts(
    corpus: Corpus, directory: Path, tagging: dict, progress: bool
) -> tuple[list[Path], str]:
    """What `write_shards` returns, of the parts that `annotate_part` has left.

    The corpus is read once, and compared with them.

    Args:
        corpus: a `Corpus`.
        directory: path of the folder that has the parts.
        tagging: dict, as `tagging_of` gives it.
        progress: bool. Whether to show a progress bar.

    Returns:
        tuple of the paths of the shards, in order, and the fingerprint of the whole corpus.

    Raises:
        ValueError: a part is missing or damaged, or does not fit the others, the settings or the
            corpus.
    """
    parts = _read_parts(directory / PARTS, corpus, tagging)
    shards = [
        path for of_source in zip(*parts, strict=True) for paths in of_source for path in paths
    ]
    documents = _compared(corpus, shards, tagging)
    return shards, fingerprint_of(documents, tagging, progress)


def _read_parts(folder: Path, corpus: Corpus, tagging: dict) -> list[list[list[Path]]]:
    """The shards of each part, of each of the corpus's sources."""
    shards = []
    for part, path in all_parts(folder, lambda path: bool(read_json(path / _PART))).items():
        content = read_json(path / _PART)
        _check_settings(part, content, corpus, tagging)
        paths = [[path_inside(path, name) for name in names] for names in content["shards"]]
        damaged = [one for of_source in paths for one in of_source if not is_finished(one)]
        if damaged:
            raise ValueError(
                f"All parts must be whole. Received: part {part} without {damaged[0]}: make it "
                "again"
            )
        shards.append(paths)
    return shards


def _check_settings(part: Part, content: dict, corpus: Corpus, tagging: dict) -> None:
    former = content.get("tagging", {})
    names = sorted(n for n in former | tagging if former.get(n) != tagging.get(n))
    if names:
        changes = (f"{n} {former.get(n)} in place of {tagging.get(n)}" for n in names)
        raise ValueError(
            "Parts must be made with the settings that they are joined with. Received: part "
            f"{part} with {', '.join(changes)}"
        )
    if content.get("corpus") != corpus.description:
        raise ValueError(
            f"Parts must be of the corpus that they are joined for, {corpus.description}. "
            f"Received: part {part} of {content.get('corpus')}"
        )


def _compared(corpus: Corpus, shards: Sequence[Path], tagging: dict) -> Iterator[str | Document]:
    """Yields the documents of a corpus, or raises a `ValueError` if shards have other ones."""
    documents = corpus.raw_documents()
    for path in shards:
        own = list(islice(documents, num_documents(path)))
        if shard_key(tagging, own) != key_of(path):
            part = path.parent.parent.name.replace("-of-", "/")
            raise _other_text(f"part {part}, whose {path.name[:6]} has other text", corpus)
        yield from own
    if next(documents, None) is not None:
        raise _other_text("parts of a shorter one", corpus)


def _other_text(received: str, corpus: Corpus) -> ValueError:
    reason = ""
    if isinstance(corpus, CutCorpus):
        reason = ". One of too few documents is cut into pieces, and is not for parts"
    return ValueError(
        "Parts must be of the corpus that they are joined for, as it is now and with the same "
        f"`documents`, `encoding` and `text_field`. Received: {received}{reason}"
    )
