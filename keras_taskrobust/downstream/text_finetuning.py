"""Fine-tuning a BERT on a text task: open, train, score."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_hub
import numpy as np

from keras_taskrobust.downstream import robust
from keras_taskrobust.downstream.finetuning_run import FineTuned, FineTuningRun
from keras_taskrobust.downstream.preset_files import find_preset, wrong_preset
from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.task import mean_score
from keras_taskrobust.downstream.text_encoding import encode_examples, labelled_batches
from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask
from keras_taskrobust.plain_text import one_line
from keras_taskrobust.text import encoder_block as encoder_block
from keras_taskrobust.text.vocabulary import WordPieceEncoder
from keras_taskrobust.training.schedules import LinearWarmupDecay

_LONGEST = 128
_PREDICTION_BATCH = 64
_WANTED = (
    "the folder of a run or of its preset, or the folder, name or URI (hf://...) of a KerasHub "
    "BERT with its tokenizer"
)

Predictions = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedTask:
    """The splits of a task as token arrays: each `(arrays, Examples)`."""

    train: tuple[dict[str, np.ndarray], Examples]
    dev: dict[str, tuple[dict[str, np.ndarray], Examples]]
    test: dict[str, tuple[dict[str, np.ndarray], Examples]]


def open_bert(
    preset: str, dtype_policy: str = "float32", from_scratch: bool = False
) -> tuple[Any, WordPieceEncoder]:
    """Opens a BERT and its vocabulary.

    Args:
        preset: string. The folder of a run or of its preset, or folder, name or URI (`hf://...`)
            of a KerasHub BERT preset.
        dtype_policy: string. Keras's dtype policy.
        from_scratch: bool. Whether the encoder gets new random weights.

    Returns:
        A `keras_hub.models.BertBackbone` and a `WordPieceEncoder`.

    Raises:
        ValueError: there is no BERT preset.
    """
    found = find_bert(preset)
    try:
        backbone = keras_hub.models.BertBackbone.from_preset(
            found, load_weights=not from_scratch, dtype=dtype_policy
        )
        encoder = WordPieceEncoder.from_preset(found)
    except (ValueError, OSError) as error:
        raise wrong_preset(preset, _WANTED, one_line(str(error))) from error
    return backbone, encoder


def find_bert(preset: str) -> str:
    """`find_preset` for a BERT."""
    return find_preset(preset, _WANTED, keras_hub.models.BertBackbone.presets)


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
    backbone: Any,
    task: TextTask,
    data: EncodedTask,
    settings: FineTuning,
    seed: int = 0,
    head: Sequence[np.ndarray] | None = None,
) -> FineTuned:
    """Fine-tunes a BERT on a task.

    Args:
        backbone: a `keras_hub.models.BertBackbone` with the weights to start from. It is changed.
        task: the `TextTask`.
        data: its `EncodedTask`.
        settings: `FineTuning`.
        seed: int. Chooses the order of the examples. Initial weights of the head and dropout
            follow Keras's global seed.
        head: the weights of a head trained beforehand, as `head_variables` orders them; by
            default the head is new.

    Returns:
        `FineTuned`. Its predictions are dicts of splits, or of test files, to `(N,)` class ids or
        numbers.

    Raises:
        FloatingPointError: the loss became infinite or not a number.
    """
    classifier = keras_hub.models.BertTextClassifier(
        backbone, num_classes=task.num_outputs, dropout=settings.dropout
    )
    return _TextRun(classifier, task, data, settings, head).finetune(seed)


def score_text(classifier: Any, task: TextTask, data: EncodedTask) -> float:
    """Scores a fine-tuned classifier on the held-out splits of a task.

    Args:
        classifier: a `keras_hub.models.BertTextClassifier` with the task's classes.
        task: the `TextTask`, which need not be the one it was fine-tuned on.
        data: its `EncodedTask`.

    Returns:
        The mean of the metrics of all held-out splits.
    """
    return mean_score(_evaluate(task, data.dev, _predict(classifier, task, data.dev)))


class _TextRun(FineTuningRun):
    """One fine-tuning: the classifier, the task's data, the settings."""

    def __init__(
        self,
        classifier: keras.Model,
        task: TextTask,
        data: EncodedTask,
        settings: FineTuning,
        head: Any = None,
    ):
        loss = (
            keras.losses.MeanSquaredError()
            if task.is_regression
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        steps = max(1, len(data.train[1]) // settings.batch_size)
        super().__init__(classifier, settings, loss, steps, steps, head)
        self.settings: FineTuning = settings
        self.task = task
        self.data = data

    def batches(self, seed):
        arrays, examples = self.data.train
        return labelled_batches(arrays, examples.labels, self.settings.batch_size, seed)

    def optimizer(self, learning_rate, steps, epochs):
        warmup = int(self.settings.warmup_share * steps)
        optimizer = keras.optimizers.AdamW(
            LinearWarmupDecay(learning_rate, warmup, steps),
            weight_decay=self.settings.weight_decay,
        )
        pulled = robust.pulled_variables(self.model)
        optimizer.exclude_from_weight_decay(pulled, ["bias", "gamma", "beta"])
        return optimizer

    def predict(self) -> dict[str, np.ndarray]:
        return _predict(self.model, self.task, self.data.dev)

    def predict_test(self) -> dict[str, np.ndarray]:
        return _predict(self.model, self.task, self.data.test)

    def score(self, predictions: Any) -> float:
        """The score on the first held-out split."""
        split, (_, examples) = next(iter(self.data.dev.items()))
        return mean_score(self.task.evaluate(examples.labels, predictions[split]))

    def evaluate(self, predictions):
        return _evaluate(self.task, self.data.dev, predictions)

    def evaluate_trivial(self):
        labels = self.data.train[1].labels
        return _flat(
            {
                split: self.task.evaluate_trivial(labels, examples.labels)
                for split, (_, examples) in self.data.dev.items()
            }
        )

    def further_scores(self, predictions, test_predictions):
        scores = {
            name: _evaluate(self.task, self.data.test, found)
            for name, found in test_predictions.items()
        }
        return {"test_scores": scores}

    def examples(self, number):
        arrays, examples = self.data.train
        rows = np.linspace(0, len(examples) - 1, min(number, len(examples))).astype(int)
        return {name: array[rows] for name, array in arrays.items()}, examples.labels[rows]

    def distilled(self):
        return robust.distil_from_start(self.model, self.settings.strength)


def _predict(classifier: keras.Model, task: TextTask, splits: Mapping) -> dict[str, np.ndarray]:
    """Names of splits to `(N,)` class ids or numbers."""
    return {
        split: _predict_split(classifier, task, arrays) for split, (arrays, _) in splits.items()
    }


def _predict_split(
    classifier: keras.Model, task: TextTask, arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    number = len(arrays["token_ids"])
    batch = min(_PREDICTION_BATCH, number)
    # A full last batch spares a second compilation.
    rows = np.arange(-(-number // batch) * batch) % number
    padded = {name: array[rows] for name, array in arrays.items()}
    # Past the `predict` of KerasHub's models, whose reading ahead makes grain warn the user.
    outputs = keras.Model.predict(classifier, padded, batch_size=batch, verbose=0)[:number]
    outputs = np.asarray(outputs, "float32")
    return outputs[:, 0] if task.is_regression else outputs.argmax(-1)


def _evaluate(task: TextTask, splits: Mapping, predictions: Predictions) -> dict[str, float]:
    """The metrics on the splits that have labels, named with the split if there are several."""
    scores = {
        split: task.evaluate(examples.labels, predictions[split])
        for split, (_, examples) in splits.items()
        if examples.labels is not None
    }
    return _flat(scores)


def _flat(scores: Mapping[str, dict[str, float]]) -> dict[str, float]:
    return {
        metric if len(scores) == 1 else f"{split} {metric}": value
        for split, of_split in scores.items()
        for metric, value in of_split.items()
    }
