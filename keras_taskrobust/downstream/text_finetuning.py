"""Fine-tuning a BERT on a text task: open, train, score."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import keras
import keras_hub
import numpy as np

from keras_taskrobust.downstream import robust
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.task import mean_score
from keras_taskrobust.downstream.text_encoding import encode_examples, labelled_batches
from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask
from keras_taskrobust.text.vocabulary import WordPieceEncoder
from keras_taskrobust.training.callbacks import StopOnBrokenLoss
from keras_taskrobust.training.schedules import LinearWarmupDecay

_LONGEST = 128
_PREDICTION_BATCH = 64

Predictions = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedTask:
    """The splits of a task as token arrays: each `(arrays, Examples)`."""

    train: tuple[dict[str, np.ndarray], Examples]
    dev: dict[str, tuple[dict[str, np.ndarray], Examples]]
    test: dict[str, tuple[dict[str, np.ndarray], Examples]]


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """What a fine-tuning run leaves.

    Attributes:
        classifier: the `keras_hub.models.BertTextClassifier`, with the weights of the best epoch.
        history: one dict an epoch: "step", "loss" and "score", of the first held-out split.
        scores: "last" and "best" (the epoch with the best score) to metric names to values on
            the held-out splits.
        test_scores: the same on the test splits that have labels.
        trivial_scores: metric names to the values of the best constant prediction.
        dev_predictions: held-out split to predictions `(N,)` of the best epoch.
        test_predictions: prediction file to predictions `(N,)` of the best epoch.
        seconds: float. What training and scoring took.
    """

    classifier: Any
    history: list[dict[str, float]]
    scores: dict[str, dict[str, float]]
    test_scores: dict[str, dict[str, float]]
    trivial_scores: dict[str, float]
    dev_predictions: Predictions
    test_predictions: Predictions
    seconds: float


def open_bert(
    preset: str, dtype_policy: str = "float32", from_scratch: bool = False
) -> tuple[Any, WordPieceEncoder]:
    """Opens a BERT and its vocabulary.

    Args:
        preset: string. Folder, name or URI (`hf://...`) of a KerasHub BERT preset.
        dtype_policy: string. Keras's dtype policy.
        from_scratch: bool. Whether the encoder gets new random weights.

    Returns:
        A `keras_hub.models.BertBackbone` and a `WordPieceEncoder`.

    Raises:
        ValueError: there is no BERT preset.
    """
    try:
        backbone = keras_hub.models.BertBackbone.from_preset(
            preset, load_weights=not from_scratch, dtype=dtype_policy
        )
        encoder = WordPieceEncoder.from_preset(preset)
    except (ValueError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            "`preset` must be the folder, name or URI of a KerasHub BERT with its tokenizer. "
            f"Received: preset={preset!r}: {reason}"
        ) from error
    return backbone, encoder


def encode_task(
    data: TaskData, encoder: WordPieceEncoder, positions: int, settings: FineTuning
) -> EncodedTask:
    """Tokenizes the splits of a task.

    Args:
        data: `TaskData`.
        encoder: the vocabulary of the BERT.
        positions: int. The positions of the BERT.
        settings: `FineTuning`.

    Returns:
        `EncodedTask`.

    Raises:
        ValueError: the sequence length asked for is more than the positions.
    """
    length = settings.sequence_length or min(_LONGEST, positions)
    if length > positions:
        raise ValueError(
            f"`sequence_length` must be at most {positions}, the positions of the encoder. "
            f"Received: sequence_length={length}"
        )

    def encode(examples):
        return encode_examples(examples, encoder, length), examples

    return EncodedTask(
        encode(data.train),
        {name: encode(examples) for name, examples in data.dev.items()},
        {name: encode(examples) for name, examples in data.test.items()},
    )


def finetune_text(
    backbone: Any, task: TextTask, data: EncodedTask, settings: FineTuning, seed: int = 0
) -> FineTuned:
    """Fine-tunes a BERT on a task.

    Args:
        backbone: a `keras_hub.models.BertBackbone` with the weights to start from. It is changed.
        task: the `TextTask`.
        data: its `EncodedTask`.
        settings: `FineTuning`.
        seed: int. Chooses the order of the examples. Initial weights of the head and dropout
            follow Keras's global seed.

    Returns:
        `FineTuned`.

    Raises:
        FloatingPointError: the loss became infinite or not a number.
    """
    start_time = time.perf_counter()
    classifier = keras_hub.models.BertTextClassifier(
        backbone, num_classes=task.num_outputs, dropout=settings.dropout
    )
    run = _Run(classifier, task, data, settings)
    chosen, history = run.train_all(seed)
    scores, test_scores = {}, {}
    for name in ("last", "best"):
        classifier.set_weights(chosen[name])
        dev = {split: run.predict(arrays) for split, (arrays, _) in data.dev.items()}
        test = {file: run.predict(arrays) for file, (arrays, _) in data.test.items()}
        scores[name] = _evaluate(task, data.dev, dev)
        test_scores[name] = _evaluate(task, data.test, test)
    return FineTuned(
        classifier,
        history,
        scores,
        test_scores,
        _evaluate_trivial(task, data),
        dev,
        test,
        time.perf_counter() - start_time,
    )


class _Run:
    """One fine-tuning: the classifier, the task's data, the settings."""

    def __init__(self, classifier, task: TextTask, data: EncodedTask, settings: FineTuning):
        self.classifier = classifier
        self.task = task
        self.data = data
        self.settings = settings
        if settings.method == "lora":
            classifier.backbone.enable_lora(settings.lora_rank)
        self.loss = (
            keras.losses.MeanSquaredError()
            if task.is_regression
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )

    def train_all(self, seed):
        """The weights of the last and of the best epoch, and the history of the first member."""
        start = self.classifier.get_weights()
        members, histories = [], []
        for member in range(self.settings.soup_size):
            self.classifier.set_weights(start)
            weights, history = self._train_member(seed * self.settings.soup_size + member)
            members.append(weights)
            histories.append(history)
        chosen = {
            name: self._combine(start, [member[name] for member in members])
            for name in ("last", "best")
        }
        return chosen, histories[0]

    def predict(self, arrays) -> np.ndarray:
        """`(N,)` class ids or numbers."""
        number = len(arrays["token_ids"])
        batch = min(_PREDICTION_BATCH, number)
        # A full last batch spares a second compilation.
        rows = np.arange(-(-number // batch) * batch) % number
        padded = {name: array[rows] for name, array in arrays.items()}
        outputs = self.classifier.predict(padded, batch_size=batch, verbose=0)[:number]
        outputs = np.asarray(outputs, "float32")
        return outputs[:, 0] if self.task.is_regression else outputs.argmax(-1)

    def score(self) -> float:
        """The score on the first held-out split, on which models are selected."""
        arrays, examples = next(iter(self.data.dev.values()))
        return mean_score(self.task.evaluate(examples.labels, self.predict(arrays)))

    def _train_member(self, seed):
        settings, backbone = self.settings, self.classifier.backbone
        if settings.method in ("probe_then_full", "ewc"):
            backbone.trainable = False
            self._fit(self.classifier, seed, settings.probe_epochs, settings.probe_learning_rate)
            backbone.trainable = True
        if settings.method == "linear_probe":
            backbone.trainable = False
        return self._fit(self._model_to_train(), seed, settings.epochs, settings.learning_rate)

    def _model_to_train(self):
        settings, classifier = self.settings, self.classifier
        if settings.method == "lwf":
            return robust.distil_from_start(classifier, settings.strength)
        if settings.method in ("l2_sp", "ewc"):
            variables = classifier.backbone.trainable_variables
            fisher = self._fisher(variables) if settings.method == "ewc" else None
            robust.penalize_distance(classifier, variables, settings.strength, fisher)
        return classifier

    def _fisher(self, variables):
        arrays, examples = self.data.train
        number = min(self.settings.fisher_examples, len(examples))
        rows = np.linspace(0, len(examples) - 1, number).astype(int)
        x = {name: array[rows] for name, array in arrays.items()}
        diagonals = robust.fisher_diagonal(self.classifier, x, examples.labels[rows], self.loss)
        of_variable = dict(
            zip(map(id, self.classifier.trainable_variables), diagonals, strict=True)
        )
        return [of_variable[id(variable)] for variable in variables]

    def _fit(self, model, seed, epochs, learning_rate):
        """Trains; the weights of the last and of the best epoch, and the history."""
        arrays, examples = self.data.train
        batches = labelled_batches(arrays, examples.labels, self.settings.batch_size, seed)
        per_epoch = max(1, len(examples) // self.settings.batch_size)
        steps = min(epochs * per_epoch, self.settings.max_steps or epochs * per_epoch)
        model.compile(self._optimizer(learning_rate, steps), loss=self.loss)
        history: list[dict[str, float]] = []
        best = self.classifier.get_weights()
        for start in range(0, steps, per_epoch):
            end = min(start + per_epoch, steps)
            logs = model.fit(
                batches[start:end],
                steps_per_epoch=end - start,
                shuffle=False,
                verbose=0,
                callbacks=[StopOnBrokenLoss()],
            ).history
            score = self.score()
            if score > max((line["score"] for line in history), default=-np.inf):
                best = self.classifier.get_weights()
            history.append({"step": end, "loss": float(logs["loss"][-1]), "score": score})
        return {"last": self.classifier.get_weights(), "best": best}, history

    def _optimizer(self, learning_rate, steps):
        warmup = int(self.settings.warmup_share * steps)
        optimizer = keras.optimizers.AdamW(
            LinearWarmupDecay(learning_rate, warmup, steps),
            weight_decay=self.settings.weight_decay,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    def _combine(self, start, members):
        """The soup of the members' weights, then the step back to the start."""
        settings = self.settings
        if settings.soup_size == 1:
            weights = members[0]
        elif settings.soup == "model_stock":
            weights = robust.model_stock(start, members)
        elif settings.soup == "greedy":
            weights = robust.greedy_soup(members, self._score_weights)
        else:
            weights = robust.uniform_soup(members)
        if settings.wise_share == 1:
            return weights
        # The start has no trained head: the head stays the fine-tuned one.
        shared = {id(variable) for variable in self.classifier.backbone.weights}
        mixed = robust.interpolate(start, weights, settings.wise_share)
        return [
            mix if id(variable) in shared else weight
            for variable, mix, weight in zip(self.classifier.weights, mixed, weights, strict=True)
        ]

    def _score_weights(self, weights):
        self.classifier.set_weights(weights)
        return self.score()


def _evaluate(task: TextTask, splits: Mapping, predictions: Predictions) -> dict[str, float]:
    """The metrics on the splits that have labels, named with the split if there are several."""
    scores = {
        split: task.evaluate(examples.labels, predictions[split])
        for split, (_, examples) in splits.items()
        if examples.labels is not None
    }
    return _flat(scores)


def _evaluate_trivial(task: TextTask, data: EncodedTask) -> dict[str, float]:
    labels = data.train[1].labels
    return _flat(
        {
            split: task.evaluate_trivial(labels, examples.labels)
            for split, (_, examples) in data.dev.items()
        }
    )


def _flat(scores: Mapping[str, dict[str, float]]) -> dict[str, float]:
    return {
        metric if len(scores) == 1 else f"{split} {metric}": value
        for split, of_split in scores.items()
        for metric, value in of_split.items()
    }
