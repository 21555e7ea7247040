"""Raw documents -> tagged tokens: what a process that tags does, and all that it imports."""

from pathlib import Path

import numpy as np

from keras_taskrobust.files import replacing
from keras_taskrobust.text.pos import PosTagger
from keras_taskrobust.text.splitting import Document, TextSplitter, split_document
from keras_taskrobust.text.vocabulary import WordPieceEncoder

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


#: What a shard holds, each array one of `Annotator`'s.
SHARD_ARRAYS = ("token_ids", "tasks", "word_starts", "sentence_lengths", "document_lengths")


def token_dtype(encoder: WordPieceEncoder) -> np.dtype:
    """The dtype in which token ids are stored."""
    return np.dtype(np.uint16 if encoder.vocabulary_size <= _LARGEST_UINT16 else np.int32)


def write_shard(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays of an `Annotator`, all of them or none."""
    with replacing(path) as partial:
        np.savez(partial, allow_pickle=False, **arrays)
