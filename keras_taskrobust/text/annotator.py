"""Raw documents -> tagged words: what a process that tags does, and all that it imports."""

import json
from itertools import chain
from pathlib import Path

import numpy as np

from keras_taskrobust.files import replacing
from keras_taskrobust.text.pos import PosTagger
from keras_taskrobust.text.splitting import Document, TextSplitter, split_document

RawShard = list[str | Document]
Annotation = tuple[str, str, str]  # the arguments of `Annotator`


class Annotator:
    """Raw documents to words, each with its task.

    Args:
        tagger: string. `"nltk"` or `"textblob"`.
        sentences: string. `"punkt"` or `"rules"`, the sentence splitter.
        tag_set: string. `"nine"` or `"penn"`.
    """

    def __init__(self, tagger: str, sentences: str, tag_set: str):
        self._tagger = PosTagger(tagger, tag_set)
        self._splitter = TextSplitter(sentences)

    def __call__(self, raw_documents: RawShard) -> dict[str, np.ndarray]:
        """Annotates documents.

        Args:
            raw_documents: list of documents, plain text or split.

        Returns:
            dict of arrays: "words" uint8, a JSON list of the different words; "word_ids" int32,
            indices into it, and "tasks" int8, one entry a word of the text; "sentence_lengths"
            int32 in words and "document_lengths" int32 in sentences.
        """
        ids: dict[str, int] = {}
        word_ids: list[int] = []
        tasks: list[int] = []
        documents = [split_document(each, self._splitter) for each in raw_documents]
        sentences = list(chain.from_iterable(documents))
        for words, word_tasks in zip(sentences, self._tagger.tag(sentences), strict=True):
            word_ids += [ids.setdefault(word, len(ids)) for word in words]
            tasks += word_tasks
        return {
            "words": np.frombuffer(json.dumps(list(ids)).encode(), np.uint8),
            "word_ids": np.array(word_ids, dtype=np.int32),
            "tasks": np.array(tasks, dtype=np.int8),
            "sentence_lengths": np.array([len(words) for words in sentences], dtype=np.int32),
            "document_lengths": np.array([len(each) for each in documents], dtype=np.int32),
        }


#: What a shard holds, each array one of `Annotator`'s.
SHARD_ARRAYS = ("words", "word_ids", "tasks", "sentence_lengths", "document_lengths")


def write_shard(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays of an `Annotator`, all of them or none."""
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **arrays)
