"""Pre-training PoS-BERT: prepare, train, score, save."""

import dataclasses
from pathlib import Path

import keras
import keras_hub

from keras_taskrobust.evaluation.held_out import score_groups
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.files import folder_to_write
from keras_taskrobust.locks import locks_directory
from keras_taskrobust.recipes.fingerprints import check_fingerprints
from keras_taskrobust.recipes.text_settings import TextPretraining
from keras_taskrobust.recipes.training_run import (
    claim_data,
    claim_folder,
    finish_run,
    finished_run,
    load_run,
    train,
)
from keras_taskrobust.text import (
    AnnotatedText,
    PosMasking,
    WordPieceEncoder,
    annotate,
    load_corpus,
    load_vocabulary,
    masked_batches,
)
from keras_taskrobust.text.pos_bert import MASKED_LM, PosBert
from keras_taskrobust.text.shards import SHARD_CHARACTERS, corpus_fingerprint
from keras_taskrobust.text.splitting import TextSplitter
from keras_taskrobust.training.schedules import LinearWarmupDecay


@dataclasses.dataclass(frozen=True)
class PreparedText:
    """A corpus, tagged and cut into sequences."""

    encoder: WordPieceEncoder
    train: AnnotatedText
    held_out: AnnotatedText

    def fingerprints(self) -> dict[str, str]:
        """Digests of what a run reads."""
        return {
            "corpus": self.train.manifest["fingerprint"],
            "vocabulary": self.encoder.hash,
            "annotated text": self.train.fingerprint,
            "annotated held-out text": self.held_out.fingerprint,
        }


@locks_directory
def prepare_text(recipe: TextPretraining, directory: Path) -> PreparedText:
    """Tags and tokenizes the corpus once; a finished folder is opened, a half-written continued.

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
    folder = folder_to_write(directory, "text")
    corpus = load_corpus(recipe.corpus, strict=recipe.strict)
    annotated = folder / "annotated"
    text = annotate(
        corpus,
        annotated,
        _encoder(recipe, corpus, folder),
        tagger=recipe.tagger,
        sequence_length=recipe.sequence_length,
        next_sentence=recipe.next_sentence != "none",
        held_out=recipe.held_out,
        workers=recipe.workers,
        strict=recipe.strict,
        tag_set=recipe.tag_set,
    )
    return PreparedText(text.encoder, text, AnnotatedText(annotated, text.encoder, "held_out"))


def build_pos_bert(recipe: TextPretraining, encoder: WordPieceEncoder) -> PosBert:
    """A compiled `PosBert` with the recipe's initial weights, optimizer and weighting."""
    keras.utils.set_random_seed(recipe.seed)
    policy = keras.dtype_policies.get(recipe.dtype_policy)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=encoder.vocabulary_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        intermediate_dim=recipe.intermediate_dim,
        dropout=recipe.dropout,
        max_sequence_length=recipe.sequence_length,
        dtype=policy,
    )
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=recipe.sequence_length
    )
    next_sentence = None if recipe.next_sentence == "none" else recipe.next_sentence
    masking = _masking(recipe, encoder)
    model = PosBert(backbone, preprocessor, next_sentence, masking.group_names)
    schedule = LinearWarmupDecay(recipe.peak_learning_rate, recipe.warmup_steps, recipe.steps)
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=recipe.weight_decay, beta_2=recipe.beta_2, epsilon=recipe.epsilon
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        weighting=recipe.make_weighting(),
        gradient_diagnostics=recipe.gradient_diagnostics,
    )
    return model


def train_pos_bert(
    model: PosBert, recipe: TextPretraining, text: PreparedText, directory: Path, label: str
) -> float:
    """Trains until `recipe.steps`, from the newest checkpoint in `directory` if there is one.

    Args:
        model: a model as `build_pos_bert` makes it.
        recipe: the settings.
        text: the data.
        directory: the folder for `history.csv` and the checkpoint.
        label: what the progress bar calls the run.

    Returns:
        float. Seconds spent.
    """
    batches = masked_batches(
        text.train, _masking(recipe, text.encoder), recipe.batch_size, seed=recipe.seed
    )
    return train(model, recipe, lambda step: batches[step:], directory, label)


def score_pos_bert(model: PosBert, recipe: TextPretraining, text: PreparedText):
    """Held-out `TaskScores`, with masks that depend on neither the run's seed nor its weighting."""
    masking = _masking(dataclasses.replace(recipe, seed=0, masking_copies=1), text.encoder)
    batches = masked_batches(
        text.held_out, masking, recipe.batch_size, shuffle=False, epochs=1, drop_remainder=False
    )
    return score_groups(model, batches, MASKED_LM, masking.group_names)


@locks_directory
def pretrain_text(
    recipe: TextPretraining, directory: Path, text: PreparedText | None = None, label: str = ""
) -> Run:
    """One run: prepare, train, score, save.

    A finished run is not computed again; a killed one goes on from its checkpoint.

    Args:
        recipe: the settings.
        directory: the folder of the run: `recipe.json`, `history.csv`, `scores.npz` and `preset/`,
            which `keras_hub.models.BertTextClassifier.from_preset` opens.
        text: the data, or `None` to prepare it in `directory`.
        label: what progress bar and report call the run; by default its weighting.

    Returns:
        `Run`.

    Raises:
        ValueError: `directory` holds a run with other settings, or from other data, or another
            process is in it.
    """
    label = label or recipe.weighting
    claim_folder(directory, recipe)
    run = finished_run(directory, label)
    if run is not None:
        if text is not None:
            check_fingerprints(directory, text.fingerprints(), is_finished=True)
        return run
    text = text or prepare_text(recipe, directory)
    claim_data(directory, text.fingerprints())
    model = build_pos_bert(recipe, text.encoder)
    seconds = train_pos_bert(model, recipe, text, directory, label)
    model.save_to_preset(folder_to_write(directory, "preset"))
    finish_run(directory, score_pos_bert(model, recipe, text), seconds)
    return load_run(directory, label)


def _encoder(recipe, corpus, directory):
    """The recipe's encoder, or the size of the vocabulary that `annotate` is to train."""
    if recipe.tokenizer is not None:
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


def _masking(recipe, encoder):
    return PosMasking(
        encoder,
        rate=recipe.masked_share,
        max_predictions=recipe.max_predictions,
        maskable=recipe.maskable,
        whole_word=recipe.whole_word,
        copies=recipe.masking_copies,
        seed=recipe.seed,
        tag_set=recipe.tag_set,
    )
