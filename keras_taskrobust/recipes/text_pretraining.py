"""Pre-training PoS-BERT: the paper's settings, a tiny version, and the run itself."""

import csv
import dataclasses
import json
import time
from pathlib import Path
from typing import Literal

import keras
import keras_hub

from keras_taskrobust import weighting as weightings
from keras_taskrobust.evaluation.held_out import score_groups
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.recipes.progress import ProgressBar
from keras_taskrobust.text import (
    AnnotatedText,
    PosMasking,
    WordPieceEncoder,
    annotate,
    load_corpus,
    load_vocabulary,
    masked_batches,
    save_vocabulary,
    train_vocabulary,
)
from keras_taskrobust.text.pos_bert import MASKED_LM, PosBert
from keras_taskrobust.training.callbacks import Checkpoint, StopOnBrokenLoss
from keras_taskrobust.training.schedules import LinearWarmupDecay


@dataclasses.dataclass(frozen=True)
class TextPretraining:
    """Pre-trains a PoS-BERT, from raw text to a KerasHub preset."""

    corpus: str = "bundled"
    """Raw text: bundled, nltk:NAME, tfds:NAME, or the path of a file or folder."""
    strict: bool = False
    """Refuse text files that are empty, binary or not UTF-8, instead of skipping them."""
    tagger: Literal["auto", "nltk", "textblob"] = "auto"
    """The part-of-speech tagger."""
    tokenizer: str | None = None
    """A KerasHub BERT preset whose vocabulary is used; by default one is trained on the corpus."""
    vocabulary_size: int = 30522
    """Pieces of a vocabulary trained on the corpus."""
    held_out: float = 0.02
    """Share of the documents that is kept for evaluation."""
    sequence_length: int = 128
    """Tokens in a sequence, [CLS] and [SEP] included."""
    next_sentence: Literal["auxiliary", "task", "none"] = "auxiliary"
    """Next-sentence prediction: outside the weighting, a further task, or none."""

    masked_share: float = 0.15
    """Share of the maskable tokens that is masked."""
    max_predictions: int = 20
    """Masked tokens in a sequence, at most."""
    maskable: Literal["tasks", "all"] = "tasks"
    """Mask the tokens of the nine tasks, or all; the rest is then a tenth task, `other`."""
    whole_word: bool = False
    """Mask all pieces of a word or none."""
    masking_copies: int | None = None
    """Static maskings a sequence, taken in turn; by default a new masking every epoch."""

    num_layers: int = 12
    """Transformer layers."""
    num_heads: int = 12
    """Attention heads."""
    hidden_dim: int = 768
    """Width."""
    intermediate_dim: int = 3072
    """Width of the feed-forward layers."""
    dropout: float = 0.1
    """Dropout rate."""
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Keras's dtype policy."""

    weighting: str = "minimax"
    """How the tasks are weighed: one of keras_taskrobust.weighting.available()."""
    alpha: float = 1.0
    """Sharpness of minimax's softmax."""
    loss_momentum: float = 0.0
    """Moving average of the losses that minimax's weights come from; 0 for none."""

    batch_size: int = 256
    """Sequences in a step."""
    steps: int = 1_000_000
    """Optimizer steps."""
    warmup_steps: int = 10_000
    """Steps over which the learning rate rises; then it falls linearly to 0."""
    peak_learning_rate: float = 1e-4
    """Largest learning rate."""
    weight_decay: float = 0.01
    """AdamW's weight decay; biases and normalisations are spared."""
    beta_2: float = 0.999
    """AdamW's second beta."""
    epsilon: float = 1e-6
    """AdamW's epsilon."""

    steps_per_report: int = 1000
    """Steps between two lines of history."""
    reports_per_checkpoint: int = 10
    """Lines of history between two checkpoints."""
    seed: int = 0
    """Fixes initial weights, order, masks and dropout."""
    workers: int | None = None
    """Processes that tag; by default one a core."""

    def __post_init__(self):
        if self.weighting not in weightings.available():
            raise ValueError(
                f"`weighting` must be one of {', '.join(weightings.available())}. "
                f"Received: weighting={self.weighting!r}"
            )
        if self.steps < 1 or self.steps % self.steps_per_report:
            raise ValueError(
                "`steps` must be a positive multiple of `steps_per_report`. "
                f"Received: steps={self.steps}, steps_per_report={self.steps_per_report}"
            )


PAPER = TextPretraining(next_sentence="auxiliary")
TINY = TextPretraining(
    vocabulary_size=4000,
    held_out=0.1,
    sequence_length=64,
    max_predictions=10,
    num_layers=2,
    num_heads=2,
    hidden_dim=128,
    intermediate_dim=512,
    batch_size=32,
    steps=600,
    warmup_steps=60,
    peak_learning_rate=1e-3,
    steps_per_report=10,
)
RECIPES = {
    "pos-bert-base": (
        "Wang et al. 2023: 12 layers of 768, batch 256, 1,000,000 steps. Corpus, sequence length "
        "and alpha are not given there and are ours; its static maskings are --masking-copies 10.",
        PAPER,
    ),
    "pos-bert-tiny": ("2 layers of 128, 600 steps: minutes on two CPU cores.", TINY),
}


@dataclasses.dataclass(frozen=True)
class PreparedText:
    """A corpus, tagged and cut into sequences."""

    encoder: WordPieceEncoder
    train: AnnotatedText
    held_out: AnnotatedText


def prepare_text(recipe: TextPretraining, directory: Path) -> PreparedText:
    """Tags and tokenizes the corpus once; a finished folder is opened, a half-written continued.

    Args:
        recipe: the settings.
        directory: the folder for the vocabulary and the arrays.

    Returns:
        `PreparedText`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus(recipe.corpus, strict=recipe.strict)
    encoder = _encoder(recipe, corpus, directory / "vocabulary.txt")
    annotate(
        corpus,
        directory / "annotated",
        encoder,
        tagger=recipe.tagger,
        sequence_length=recipe.sequence_length,
        next_sentence=recipe.next_sentence != "none",
        held_out=recipe.held_out,
        workers=recipe.workers,
        strict=recipe.strict,
    )
    splits = (AnnotatedText(directory / "annotated", encoder, s) for s in ("train", "held_out"))
    return PreparedText(encoder, *splits)


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
    model.compile(optimizer, weighting=_weighting(recipe))
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
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(directory, every=recipe.reports_per_checkpoint)
    done = checkpoint.restore(model)
    history = directory / "history.csv"
    _truncate_history(history, done)
    batches = masked_batches(
        text.train, _masking(recipe, text.encoder), recipe.batch_size, seed=recipe.seed
    )
    epochs = recipe.steps // recipe.steps_per_report
    start = time.perf_counter()
    model.fit(
        batches[done * recipe.steps_per_report :],
        epochs=epochs,
        initial_epoch=done,
        steps_per_epoch=recipe.steps_per_report,
        shuffle=False,
        verbose=0,
        callbacks=[
            StopOnBrokenLoss(),
            keras.callbacks.CSVLogger(history, append=done > 0),
            checkpoint,
            ProgressBar(label, recipe.steps, done * recipe.steps_per_report),
        ],
    )
    return time.perf_counter() - start


def score_pos_bert(model: PosBert, recipe: TextPretraining, text: PreparedText):
    """Held-out `TaskScores`, with masks that depend on neither the run's seed nor its weighting."""
    masking = _masking(dataclasses.replace(recipe, seed=0, masking_copies=1), text.encoder)
    batches = masked_batches(
        text.held_out, masking, recipe.batch_size, shuffle=False, epochs=1, drop_remainder=False
    )
    return score_groups(model, batches, MASKED_LM, masking.group_names)


def pretrain_text(
    recipe: TextPretraining, directory: Path, text: PreparedText | None = None, label: str = ""
) -> Run:
    """One run: prepare, train, score, save.

    A finished run is not computed again; a killed one goes on from its checkpoint.

    Args:
        recipe: the settings.
        directory: the folder of the run: `recipe.json`, `history.csv`, `scores.npz` and `preset/`,
            which `keras_hub.models.BertTextClassifier.from_preset` opens.
        text: the data, or `None` to prepare it in `directory / "text"`.
        label: what progress bar and report call the run; by default its weighting.

    Returns:
        `Run`.

    Raises:
        ValueError: `directory` holds a run with other settings.
    """
    label = label or recipe.weighting
    _claim(directory, recipe)
    finished = directory / "finished.json"
    if finished.exists():
        seconds = json.loads(finished.read_text())["seconds"]
    else:
        text = text or prepare_text(recipe, directory / "text")
        model = build_pos_bert(recipe, text.encoder)
        seconds = train_pos_bert(model, recipe, text, directory, label)
        score_pos_bert(model, recipe, text).save(directory / "scores.npz")
        model.save_to_preset(directory / "preset")
        finished.write_text(json.dumps({"seconds": seconds}))
    return load_run(directory, label)


def load_run(directory: Path, label: str) -> Run:
    """Reads what `pretrain_text` wrote."""
    from keras_taskrobust.evaluation.scores import TaskScores

    settings = json.loads((directory / "recipe.json").read_text())
    seconds = json.loads((directory / "finished.json").read_text())["seconds"]
    scores = TaskScores.load(directory / "scores.npz")
    history = _read_history(directory / "history.csv", settings["steps_per_report"])
    return Run(label, settings["seed"], scores, history, seconds)


def _encoder(recipe, corpus, vocabulary_path):
    if recipe.tokenizer is not None:
        return WordPieceEncoder.from_preset(recipe.tokenizer)
    if not vocabulary_path.exists():
        sentences = (sentence for document in corpus for sentence in document)
        save_vocabulary(train_vocabulary(sentences, recipe.vocabulary_size), vocabulary_path)
    return WordPieceEncoder(load_vocabulary(vocabulary_path))


def _masking(recipe, encoder):
    return PosMasking(
        encoder,
        rate=recipe.masked_share,
        max_predictions=recipe.max_predictions,
        maskable=recipe.maskable,
        whole_word=recipe.whole_word,
        copies=recipe.masking_copies,
        seed=recipe.seed,
    )


def _weighting(recipe):
    if recipe.weighting == "minimax":
        return weightings.SoftmaxWeightedLoss(recipe.alpha, recipe.loss_momentum)
    return weightings.get(recipe.weighting)


def _claim(directory, recipe):
    """Writes the settings, or refuses a folder that belongs to others."""
    path = directory / "recipe.json"
    settings = dataclasses.asdict(recipe)
    if path.exists():
        found = json.loads(path.read_text())
        changed = sorted(k for k in settings if found.get(k) != settings[k])
        if changed:
            raise ValueError(
                f"{directory} holds a run with other settings: choose another folder. "
                f"Received other values of: {', '.join(changed)}"
            )
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=1))


def _truncate_history(path, epochs):
    """Drops what a killed run logged after its last checkpoint."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [row for row in rows if row[0] == "epoch" or int(row[0]) < epochs]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(kept if epochs else [])


def _read_history(path, steps_per_report):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Keras's logger reserves columns for validation, too.
    names = [name for name in rows[0] if not name.startswith("val_")]
    history = {name: [float(row[name]) for row in rows] for name in names}
    history["step"] = [(epoch + 1) * steps_per_report for epoch in history.pop("epoch")]
    return history
