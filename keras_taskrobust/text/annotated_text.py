"""The annotated text on disk, as a random access source of records."""

import functools
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_taskrobust.files import READING_ERRORS, path_inside, write_atomically
from keras_taskrobust.text.vocabulary import WordPieceEncoder, load_vocabulary

FORMAT = 1
MANIFEST = "manifest.json"
VOCABULARY = "vocab.txt"
SPLITS = ("train", "held_out")

_KEYS = {"settings", "packing", "arrays", "splits"}
_TOKEN_ARRAYS = ("token_ids", "tasks", "word_starts")


class AnnotatedText:
    """Records of annotated tokens, read from the folder that `annotate` has written.

    Arrays are mapped into memory, not read. `len(text)` is the number of records, `text[i]`
    one record, `text.batch(indices)` many at once.

    Args:
        directory: path of the folder.
        encoder: a `WordPieceEncoder` or `None`. If given, it must be the one that made the
            text; otherwise it is made from the folder's vocabulary.
        split: string. `"train"` or `"held_out"`.

    Attributes:
        encoder: the `WordPieceEncoder`.
        manifest: dict. What the text was made from and how, with its counts.
        sequence_length: int. The length S of every record.
        has_next_sentence: bool. Whether records are pairs with a label.
        task_counts: dict. The number of tokens of each task in the split, each once.
        task_names: tuple of strings. The tasks, in the order of their indices.

    Raises:
        ValueError: the folder is not a finished annotation, or was made with another
            vocabulary.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        encoder: WordPieceEncoder | None = None,
        split: str = "train",
    ):
        directory = Path(directory)
        self.manifest = _read_manifest(directory)
        if split not in self.manifest["splits"]:
            raise ValueError(
                f"`split` must be one of {tuple(self.manifest['splits'])}, which the text in "
                f"{str(directory)!r} has. Received: split={split!r}"
            )
        settings = self.manifest["settings"]
        if encoder is None:
            encoder = WordPieceEncoder(
                load_vocabulary(directory / VOCABULARY),
                settings["lowercase"],
                settings["strip_accents"],
            )
        if encoder.hash != settings["vocabulary_hash"]:
            raise ValueError(
                "`encoder` must be the one that made the annotated text, of hash "
                f"{settings['vocabulary_hash']}. Received: an encoder of hash {encoder.hash} for "
                f"{str(directory)!r}"
            )
        self.encoder = encoder
        self.split = split
        self.sequence_length: int = self.manifest["packing"]["sequence_length"]
        self.has_next_sentence: bool = self.manifest["packing"]["next_sentence"]
        self.task_counts: dict[str, int] = self.manifest["splits"][split]["tasks"]
        self.task_names = tuple(self.task_counts)
        arrays = {
            name: _map(array_path(directory, name), layout)
            for name, layout in self.manifest["arrays"].items()
        }
        self._token_ids, self._tasks, self._word_starts = (arrays[name] for name in _TOKEN_ARRAYS)
        self._records = arrays[f"records_{split}"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of all that is read of the split: other tokens, tasks or records, another one.

        It is taken when it is first asked for, and reads the whole arrays.
        """
        digest = hashlib.sha256()
        for array in (self._token_ids, self._tasks, self._word_starts, self._records):
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads one record; the keys are those of `batch`, the arrays without their axis B."""
        if not 0 <= index < len(self):
            raise IndexError(f"`index` must be in [0, {len(self)}). Received: index={index}")
        return {key: values[0] for key, values in self.batch(np.array([index])).items()}

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Reads records.

        Args:
            indices: integer array of shape `(B,)` with values in `range(len(self))`.

        Returns:
            dict of arrays: "record" `(B,)` int64, the indices; "token_ids" `(B, S)` int32, [CLS]
            A [SEP] B [SEP] and padding; "tasks" `(B, S)` int8, index in `task_names` or -1;
            "word_ids" `(B, S)` int32, the number of the token's word in the record, -1 for special
            tokens and padding; "segment_ids" `(B, S)` int32; "lengths" `(B,)` int32, without
            padding; and, if the records are pairs, "next_sentence" `(B,)` int32, 1 if B
            follows A in the text, 0 if B is from another document.
        """
        rows = self._records[indices]
        first_start, first_end, second_start, second_end, labels = rows.T[:, :, None]
        positions = np.arange(self.sequence_length)
        first_stop = 1 + first_end - first_start  # the position of the first [SEP]
        second_stop = first_stop + 1 + second_end - second_start
        in_first = (positions >= 1) & (positions < first_stop)
        in_second = (positions > first_stop) & (positions < second_stop)
        in_text = in_first | in_second
        source = np.where(in_first, positions - 1 + first_start, 0)
        source = np.where(in_second, positions - 1 - first_stop + second_start, source)
        separators = positions == first_stop
        lengths = first_stop + 1
        if self.has_next_sentence:
            separators |= positions == second_stop
            lengths = second_stop + 1
        special = np.where(separators, self.encoder.separator_id, self.encoder.pad_id)
        special[:, 0] = self.encoder.cls_id
        # A segment may start inside of a word, whose end then counts as a word.
        starts = self._word_starts[source] | (positions == 1) | (positions == first_stop + 1)
        words = np.cumsum(starts & in_text, axis=1, dtype=np.int32) - np.int32(1)
        second_segment = (positions > first_stop) & (positions < lengths)
        records = {
            "record": np.asarray(indices, dtype=np.int64),
            "token_ids": np.where(in_text, self._token_ids[source], special).astype(np.int32),
            "tasks": np.where(in_text, self._tasks[source], np.int8(-1)),
            "word_ids": np.where(in_text, words, np.int32(-1)),
            "segment_ids": second_segment.astype(np.int32),
            "lengths": lengths[:, 0].astype(np.int32),
        }
        if self.has_next_sentence:
            records["next_sentence"] = labels[:, 0].astype(np.int32)
        return records


def _read_manifest(directory: Path) -> dict:
    manifest = read_json(directory / MANIFEST)
    if not manifest.keys() >= _KEYS:
        raise ValueError(
            "`directory` must be a finished annotation. Received: "
            f"{str(directory)!r}, which has no whole {MANIFEST}: it was interrupted or never "
            "begun; run `annotate` on it again, which continues where it ended"
        )
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"`directory` must be an annotation of format {FORMAT}. Received: {str(directory)!r} "
            f"of format {manifest.get('format')}; run `annotate` on it again"
        )
    return manifest


def write_json(path: Path, content: dict) -> None:
    """Writes JSON with its own digest, for `read_json`."""
    content = {**content, "digest": _digest(content)}
    write_atomically(path, json.dumps(content, indent=2).encode("utf-8"))


def read_json(path: Path) -> dict:
    """What `write_json` has written; nothing if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("digest", None)  # files of older versions have none
    except READING_ERRORS:
        return {}
    return content if digest in (None, _digest(content)) else {}


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def array_path(directory: Path, name: str) -> Path:
    """Where an array is."""
    return path_inside(directory, f"{name}.bin")


def is_whole(path: Path, layout: dict) -> bool:
    """Whether an array's file has the size that its layout (dtype and shape) says."""
    return path.exists() and path.stat().st_size == _num_bytes(layout)


def _num_bytes(layout: dict) -> int:
    dtype = np.dtype(layout["dtype"])
    if dtype.hasobject:  # of which a file would hold addresses in memory
        raise ValueError(f"An array must be of numbers. Received: dtype {layout['dtype']!r}")
    return dtype.itemsize * math.prod(layout["shape"])


def _map(path: Path, layout: dict) -> np.ndarray:
    if not is_whole(path, layout):
        found = path.stat().st_size if path.exists() else 0
        raise ValueError(
            f"{path.name} must have the {_num_bytes(layout)} bytes that the manifest says. "
            f"Received: {str(path)!r} of {found} bytes; run `annotate` on the folder again"
        )
    shape = tuple(layout["shape"])
    return np.asarray(np.memmap(path, dtype=layout["dtype"], mode="r", shape=shape))
