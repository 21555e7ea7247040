"""A corpus made ready for PoS-BERT's pre-training, without Keras."""

import dataclasses
from pathlib import Path

from keras_taskrobust.files import folder_to_write
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.text_settings import TextPretraining
from keras_taskrobust.text import (
    AnnotatedText,
    PosMasking,
    TargetCounts,
    WordPieceEncoder,
    annotate,
    annotate_part,
    count_targets,
    load_corpus,
    load_vocabulary,
)
from keras_taskrobust.text.shards import SHARD_CHARACTERS, corpus_fingerprint
from keras_taskrobust.text.splitting import TextSplitter


@dataclasses.dataclass(frozen=True)
class PreparedText:
    """A corpus, tagged and cut into sequences."""

    encoder: WordPieceEncoder
    train: AnnotatedText
    held_out: AnnotatedText
    _counts: dict[str, TargetCounts] = dataclasses.field(default_factory=dict, init=False)

    def target_counts(self, masking: PosMasking) -> TargetCounts:
        """How often each word piece of the training text is a target of each task.

        They are counted when they are first asked for, once for all runs on the text.

        Args:
            masking: that of the runs.
        """
        if masking.maskable not in self._counts:
            self._counts[masking.maskable] = count_targets(self.train, masking)
        return self._counts[masking.maskable]

    def fingerprints(self) -> dict[str, str]:
        """Digests of what a run reads."""
        return {
            "corpus": self.train.manifest["fingerprint"],
            "vocabulary": self.encoder.hash,
            "annotated text": self.train.fingerprint,
            "annotated held-out text": self.held_out.fingerprint,
        }


def prepare_text_part(recipe: TextPretraining, directory: Path, part: str) -> int:
    """Tags one of several parts of the corpus; `prepare_text` joins them.

    Args:
        recipe: the settings.
        directory: the folder, as for `prepare_text`. Other processes may make other parts in it.
        part: string, such as `"2/8"`.

    Returns:
        int. The documents of the part.

    Raises:
        ValueError: there is no such part or corpus, or another process makes this one.
    """
    return annotate_part(
        recipe.corpus,
        _annotated(directory),
        part,
        tagger=recipe.tagger,
        workers=recipe.workers,
        strict=recipe.strict,
        tag_set=recipe.tag_set,
        documents=recipe.documents,
        encoding=recipe.encoding,
        text_field=recipe.text_field,
    )


@locks_directory
def prepare_text(recipe: TextPretraining, directory: Path) -> PreparedText:
    """Tags and tokenizes the corpus once; a finished folder is opened, a half-written continued.

    Parts that `prepare_text_part` has tagged are joined.

    Args:
        recipe: the settings.
        directory: the folder of a run or comparison; the vocabulary and the arrays go to its
            `text/`.

    Returns:
        `PreparedText`.

    Raises:
        ValueError: the folder cannot be written to or another process is in it, or there is no such
            corpus.
    """
    annotated = _annotated(directory)
    corpus = load_corpus(
        recipe.corpus, recipe.strict, recipe.documents, recipe.encoding, recipe.text_field
    )
    text = annotate(
        corpus,
        annotated,
        _encoder(recipe, corpus, annotated.parent),
        tagger=recipe.tagger,
        sequence_length=recipe.sequence_length,
        next_sentence=recipe.next_sentence != "none",
        held_out=recipe.held_out,
        workers=recipe.workers,
        strict=recipe.strict,
        tag_set=recipe.tag_set,
    )
    return PreparedText(text.encoder, text, AnnotatedText(annotated, text.encoder, "held_out"))


def _annotated(directory):
    return folder_to_write(directory, "text") / "annotated"


def _encoder(recipe, corpus, directory):
    """The recipe's encoder, or the size of the vocabulary that `annotate` is to train."""
    if recipe.tokenizer is not None:
        with starting_keras():
            return WordPieceEncoder.from_preset(recipe.tokenizer)
    if any(directory.glob("vocabulary-*.txt")):  # of a version that trained it here
        settings = {
            "vocabulary_size": recipe.vocabulary_size,
            "sentences": TextSplitter().sentences,
            "shard_characters": SHARD_CHARACTERS,
        }
        path = directory / f"vocabulary-{corpus_fingerprint(corpus, settings)[:8]}.txt"
        if path.exists():
            return WordPieceEncoder(load_vocabulary(path))
    return recipe.vocabulary_size
