"""Raw text -> annotated tokens on disk: tagged once, written once, resumable."""

import contextlib
import importlib.metadata
import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.files import replacing
from keras_taskrobust.randomness import generator
from keras_taskrobust.text.annotated_text import (
    FORMAT,
    MANIFEST,
    VOCABULARY,
    AnnotatedText,
    array_path,
    is_whole,
    read_json,
    write_json,
)
from keras_taskrobust.text.corpora import Corpus, load_corpus
from keras_taskrobust.text.packing import pack_pairs, pack_sentences
from keras_taskrobust.text.pieces import (
    fewest_documents,
    too_few_documents,
    with_enough_documents,
)
from keras_taskrobust.text.pos import tasks_of_tag_set
from keras_taskrobust.text.preparation import preparing
from keras_taskrobust.text.shards import (
    SHARD_CHARACTERS,
    corpus_fingerprint,
    count_words,
    read_tokens,
    tagging_of,
    token_dtype,
    write_shards,
)
from keras_taskrobust.text.tagged_parts import PARTS, joined_parts
from keras_taskrobust.text.vocabulary import (
    SMALLEST_VOCABULARY,
    WordPieceEncoder,
    load_vocabulary,
    save_vocabulary,
    vocabulary_of_words,
)

_TOKENS = "tokens.json"  # says that the arrays of tokens are complete
_SHARDS = "shards"
_SHORTEST_SEQUENCE = 8
_PACKAGES = ("keras-taskrobust", "nltk", "textblob", "tokenizers", "numpy")


def annotate(
    source: Any,
    directory: str | os.PathLike,
    encoder: WordPieceEncoder | int | Any,
    tagger: str = "auto",
    sequence_length: int = 128,
    next_sentence: bool = True,
    held_out: float = 0.0,
    short_probability: float = 0.1,
    seed: int = 0,
    workers: int | None = None,
    strict: bool = False,
    shard_characters: int = SHARD_CHARACTERS,
    progress: bool = True,
    tag_set: str = "nine",
    documents: str = "auto",
    encoding: str = "utf-8",
    text_field: str = "text",
) -> AnnotatedText:
    """Tags and tokenises a corpus, packs it into records, and writes it to a folder.

    The corpus is read once, after a look at its first documents. The text is tagged in parts, each
    written when it is done. A run that was interrupted continues with the parts that are missing;
    parts made from other text or with other settings are made again. If the folder is complete,
    then only what differs is done: nothing, or the packing. The result does not depend on
    interruptions or the number of processes. What `annotate_part` has tagged is joined, once all
    parts are there.

    More than a few parts are tagged in several processes. They load neither Keras nor the script
    that calls this, one that is killed is replaced, and they end with the process that calls this.

    Args:
        source: a `Corpus`, or what `load_corpus` opens.
        directory: path of the folder, made if missing.
        encoder: a `WordPieceEncoder`, a KerasHub BERT tokenizer, or an int >= 16: the size of a
            vocabulary that is trained on the corpus, as by `train_vocabulary`.
        tagger: string. `"nltk"`, `"textblob"` or `"auto"`, as in `PosTagger`.
        sequence_length: int >= 8. The length of the records, special tokens included.
        next_sentence: bool. Whether records are pairs of segments as in BERT, half of the
            second segments from another document. Otherwise records hold the sentences
            of one document, one after the other.
        held_out: float in [0, 1). The share of the documents in the split "held_out".
        short_probability: float in [0, 1]. The share of pairs with a random smaller length, as in
            BERT; without `next_sentence` it has no effect.
        seed: int >= 0. Decides the split and the pairs.
        workers: int >= 1. The number of processes; `None`: one a core if the text is long.
        strict: bool. Whether unusable text files are refused instead of skipped.
        shard_characters: int >= 1. The size of a part.
        progress: bool. Whether to show a progress bar.
        tag_set: string. `"nine"`: the tasks are `POS_TASKS`. `"penn"`: `PENN_TASKS`.
        documents: string. What ends a document in a text file, as in `load_corpus`, as are
            the next two. A corpus of too few documents to be split is cut into pieces, with a
            warning.
        encoding: string.
        text_field: string.

    Returns:
        The split "train" as an `AnnotatedText`.

    Raises:
        ValueError: an argument is out of range, `directory` is a file, the corpus is too small to
            be split, or there are parts that do not fit it or each other.
    """
    checks.integer("sequence_length", sequence_length, least=_SHORTEST_SEQUENCE)
    checks.share("held_out", held_out)
    checks.between("short_probability", short_probability, 0, 1)
    checks.integer("seed", seed, least=0)
    checks.integer_or_none("workers", workers, least=1)
    checks.integer("shard_characters", shard_characters, least=1)
    directory = Path(directory)
    if directory.is_file():
        raise ValueError(f"`directory` must be a folder. Received: {str(directory)!r}, a file")
    corpus = load_corpus(source, strict, documents, encoding, text_field)
    if checks.is_integer(encoder):
        checks.integer("encoder", encoder, least=SMALLEST_VOCABULARY)
    elif not isinstance(encoder, WordPieceEncoder):
        encoder = WordPieceEncoder.from_tokenizer(encoder)
    annotator, tagging = tagging_of(tagger, tag_set, shard_characters)
    packing = {
        "sequence_length": sequence_length,
        "next_sentence": next_sentence,
        "held_out": held_out,
        "short_probability": short_probability,
        "seed": seed,
    }
    corpus = with_enough_documents(corpus, packing)
    tokens = _read_or_warn(directory / _TOKENS)
    if not _are_current(tokens, directory, corpus, tagging, encoder, progress):
        _remove(directory / MANIFEST, directory / _TOKENS)
        if (directory / PARTS).exists():
            shards, fingerprint = joined_parts(corpus, directory, tagging, progress)
        else:
            shards, fingerprint = write_shards(
                corpus, directory / _SHARDS, tagging, annotator, workers, progress
            )
        tokens = _write_tokens(shards, directory, tagging, encoder, progress)
        tokens |= {"tagging": tagging, "fingerprint": fingerprint}
        write_json(directory / _TOKENS, tokens)
    if not isinstance(encoder, WordPieceEncoder):
        encoder = WordPieceEncoder(tokens["vocabulary"])
    _save_vocabulary(directory / VOCABULARY, encoder)
    for folder in (_SHARDS, PARTS):
        shutil.rmtree(directory / folder, ignore_errors=True)
    manifest = _read_or_warn(directory / MANIFEST)
    if not (manifest.get("packing") == packing and _are_whole(directory, manifest["arrays"])):
        _remove(directory / MANIFEST)
        _pack(directory, corpus, tokens, packing)
    return AnnotatedText(directory, encoder)


def _read_or_warn(path: Path) -> dict:
    content = read_json(path)
    if not content and path.exists():
        warnings.warn(f"{path} is damaged; it is made again", stacklevel=3)
    return content


def _save_vocabulary(path: Path, encoder: WordPieceEncoder) -> None:
    try:
        if tuple(load_vocabulary(path)) == encoder.vocabulary:
            return
    except (OSError, ValueError):  # missing or damaged
        pass
    save_vocabulary(encoder.vocabulary, path)


def _are_current(
    tokens: dict,
    directory: Path,
    corpus: Corpus,
    tagging: dict,
    encoder: WordPieceEncoder | int,
    progress: bool,
) -> bool:
    """Whether tokens are whole and of these settings and, for which it is read, this corpus."""
    if isinstance(encoder, WordPieceEncoder):
        are_alike = tokens.get("settings") == {**tagging, **_settings_of(encoder)}
    else:
        are_alike = tokens.get("tagging") == tagging and tokens.get("vocabulary_size") == encoder
    if not (are_alike and _are_whole(directory, tokens["arrays"])):
        return False
    # A vocabulary of its own was among what older texts have the fingerprint of.
    settings = tokens.get("tagging", tokens["settings"])
    return tokens["fingerprint"] == corpus_fingerprint(corpus, settings, progress)


def _settings_of(encoder: WordPieceEncoder) -> dict[str, Any]:
    return {
        "vocabulary_hash": encoder.hash,
        "lowercase": encoder.lowercase,
        "strip_accents": encoder.strip_accents,
    }


def _write_tokens(
    shards: list[Path],
    directory: Path,
    tagging: dict,
    encoder: WordPieceEncoder | int,
    progress: bool,
) -> dict[str, Any]:
    """Writes the tokens of shards. Returns their settings and layouts, and a trained vocabulary."""
    trained: dict[str, Any] = {}
    if not isinstance(encoder, WordPieceEncoder):
        with preparing("vocabulary", "", None, progress):
            vocabulary = vocabulary_of_words(count_words(shards), encoder)
        trained = {"vocabulary_size": encoder, "vocabulary": vocabulary}
        encoder = WordPieceEncoder(vocabulary)
    with preparing("tokens", "parts", len(shards), progress) as advance:
        arrays = _join_shards(shards, directory, encoder, advance)
    return {"settings": {**tagging, **_settings_of(encoder)}, "arrays": arrays, **trained}


def _join_shards(
    shards: list[Path], directory: Path, encoder: WordPieceEncoder, advance: Callable[[], None]
) -> dict[str, dict]:
    """Writes the shards' tokens one after the other. Returns the layouts of the arrays."""
    dtypes = {
        "token_ids": token_dtype(encoder),
        "tasks": np.dtype(np.int8),
        "word_starts": np.dtype(bool),
    }
    lengths: dict[str, list[np.ndarray]] = {"sentence": [], "document": []}
    num_tokens = 0
    with contextlib.ExitStack() as stack:
        partial = {n: stack.enter_context(replacing(array_path(directory, n))) for n in dtypes}
        files = {n: stack.enter_context(path.open("wb")) for n, path in partial.items()}
        for path in shards:
            tokens = read_tokens(path, encoder)
            for name, file in files.items():
                file.write(tokens[name].tobytes())
            for name, parts in lengths.items():
                parts.append(tokens[f"{name}_lengths"])
            num_tokens += len(tokens["tasks"])
            advance()
    layouts = {name: _layout(dtype, (num_tokens,)) for name, dtype in dtypes.items()}
    for name, parts in lengths.items():
        starts = np.concatenate([[0], *parts]).cumsum(dtype=np.int64)
        layouts[f"{name}_starts"] = _write_array(directory, f"{name}_starts", starts)
    return layouts


def _pack(directory: Path, corpus: Corpus, tokens: dict, packing: dict) -> None:
    """Splits the documents, packs each split, and writes records and manifest."""
    arrays = {
        name: np.fromfile(array_path(directory, name), tokens["arrays"][name]["dtype"])
        for name in ("document_starts", "sentence_starts")
    }
    document_starts, sentence_starts = arrays["document_starts"], arrays["sentence_starts"]
    task_names = tasks_of_tag_set(tokens["settings"].get("tag_set", "nine"))
    pack = partial(pack_pairs, short_probability=packing["short_probability"], seed=packing["seed"])
    layouts, splits = dict(tokens["arrays"]), {}
    for split, documents in _split(len(document_starts) - 1, packing).items():
        records = (pack if packing["next_sentence"] else pack_sentences)(
            documents.tolist(),
            document_starts,
            sentence_starts,
            sequence_length=packing["sequence_length"],
        )
        layouts[f"records_{split}"] = _write_array(directory, f"records_{split}", records)
        splits[split] = {
            "documents": len(documents),
            "records": len(records),
            "next_sentences": int(records[:, -1].sum()),
            **_count(directory, task_names, documents, document_starts, sentence_starts),
        }
    manifest = {
        "format": FORMAT,
        "corpus": corpus.description,
        "skipped": corpus.skipped,
        "fingerprint": tokens["fingerprint"],
        "settings": tokens["settings"],
        "packing": packing,
        "arrays": layouts,
        "splits": splits,
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    write_json(directory / MANIFEST, manifest)


def _split(num_documents: int, packing: dict) -> dict[str, np.ndarray]:
    """Draws the documents of each split."""
    fewest = fewest_documents(packing)
    num_held_out = 0
    if packing["held_out"] > 0.0:
        num_held_out = max(fewest, round(packing["held_out"] * num_documents))
    if num_documents - num_held_out < fewest:
        raise too_few_documents(num_documents, packing)
    order = generator(packing["seed"]).permutation(num_documents)
    splits = {"train": np.sort(order[num_held_out:])}
    if num_held_out:
        splits["held_out"] = np.sort(order[:num_held_out])
    return splits


def _count(
    directory: Path,
    task_names: tuple[str, ...],
    documents: np.ndarray,
    document_starts: np.ndarray,
    sentence_starts: np.ndarray,
) -> dict:
    """Counts a split's sentences, tokens, and tokens of each task."""
    tasks = np.memmap(array_path(directory, "tasks"), dtype=np.int8, mode="r")
    counts = np.zeros((len(task_names) + 1,), np.int64)
    for document in documents:
        start, end = sentence_starts[document_starts[document : document + 2]]
        counts += np.bincount(tasks[start:end] + 1, minlength=len(counts))
    return {
        "sentences": int((document_starts[documents + 1] - document_starts[documents]).sum()),
        "tokens": int(counts.sum()),
        "tasks": dict(zip(task_names, counts[1:].tolist(), strict=True)),
    }


def _are_whole(directory: Path, layouts: dict[str, dict]) -> bool:
    paths = {name: array_path(directory, name) for name in layouts}
    damaged = [str(paths[name]) for name in layouts if not is_whole(paths[name], layouts[name])]
    if damaged:
        warnings.warn(
            f"{', '.join(damaged)} missing or damaged; what it comes from is done again",
            stacklevel=3,
        )
    return not damaged


def _layout(dtype: np.dtype, shape: tuple[int, ...]) -> dict:
    return {"dtype": dtype.str, "shape": list(shape)}


def _write_array(directory: Path, name: str, array: np.ndarray) -> dict:
    with replacing(array_path(directory, name)) as partial:
        array.tofile(partial)
    return _layout(array.dtype, array.shape)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
