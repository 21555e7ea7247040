"""Fine-tuning a pre-trained encoder on an image task: train, score."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_taskrobust.data_loading import read_ahead
from keras_taskrobust.downstream.depth import BerHu
from keras_taskrobust.downstream.finetuning_run import FineTuned, FineTuningRun
from keras_taskrobust.downstream.image_encoder import OpenedModel
from keras_taskrobust.downstream.image_examples import (
    ImageTaskData,
    held_out_batches,
    training_batches,
)
from keras_taskrobust.downstream.image_model import (
    DistilledModel,
    build_encoder,
    build_image_model,
    examples_of,
    layer_decay_optimizer,
)
from keras_taskrobust.downstream.settings import ImageFineTuning
from keras_taskrobust.downstream.task import mean_score
from keras_taskrobust.vision.image_source import IGNORE_LABEL


def image_size_of(opened: OpenedModel, settings: ImageFineTuning) -> tuple[int, int]:
    """Height and width of the images that a model is fine-tuned on: the settings', or its own."""
    backbone = getattr(opened.model, "backbone", opened.model)
    height, width = settings.image_size or backbone.image_shape[:2]
    return height, width


def strides_of(opened: OpenedModel, settings: ImageFineTuning) -> dict[str, int]:
    """The image pixels per pixel of the maps that a model takes for inputs."""
    modalities = getattr(opened.model, "modalities", ())
    return {m.name: m.stride for m in modalities if m.name in settings.modalities and m.stride > 1}


def finetune_images(
    opened: OpenedModel,
    data: ImageTaskData,
    settings: ImageFineTuning,
    seed: int = 0,
    head: Sequence[np.ndarray] | None = None,
) -> FineTuned:
    """Fine-tunes a pre-trained encoder on an image task.

    Args:
        opened: `OpenedModel`, the weights to start from. It is not changed.
        data: `ImageTaskData` in the size of `image_size_of`, with the strides of `strides_of`.
        settings: `ImageFineTuning`.
        seed: int. Chooses order and augmentation. Initial weights of the head and drop path
            follow Keras's global seed.
        head: the weights of a head trained beforehand, as `head_variables` orders them; by
            default the head is new.

    Returns:
        `FineTuned`. Its predictions are as `ImageTask` describes them.

    Raises:
        FloatingPointError: the loss became infinite or not a number.
        ValueError: settings, model and data do not fit each other.
    """
    return _ImageRun(opened, data, settings, head).finetune(seed)


def score_images(model: Any, data: ImageTaskData, settings: ImageFineTuning) -> float:
    """Scores a fine-tuned model on the held-out images of a task.

    Classes are predicted among those that the held-out images have: of the 1,000 of ImageNet,
    ImageNet-A and ImageNet-R have 200.

    Args:
        model: `ImageModel` with the outputs of the task.
        data: `ImageTaskData`, which need not be those it was fine-tuned on.
        settings: `ImageFineTuning`.

    Returns:
        The mean of the task's metrics.
    """
    if data.task.target == "label":
        classes = np.unique(data.labels)
        logits = _outputs(model, data, settings)[:, classes]
        predictions = classes[logits.argmax(axis=-1)]
    else:
        predictions = _predict(model, data, settings)
    return mean_score(data.task.evaluate(data.labels, predictions))


class _ImageRun(FineTuningRun):
    """One fine-tuning: the model, the task's data, the settings."""

    def __init__(
        self, opened: OpenedModel, data: ImageTaskData, settings: ImageFineTuning, head: Any = None
    ):
        per_epoch = max(1, len(data.train) // settings.batch_size)
        steps = settings.epochs * per_epoch
        steps = min(steps, settings.max_steps or steps)
        super().__init__(
            build_image_model(opened, data.task, settings),
            settings,
            _loss(data.task.target, settings),
            per_epoch,
            -(-steps // settings.reports),
            head,
        )
        self.settings: ImageFineTuning = settings
        self.opened = opened
        self.data = data

    def batches(self, seed):
        return training_batches(self.data, self.settings, seed)

    def optimizer(self, learning_rate, steps, epochs):
        warmup = int(steps * self.settings.warmup_epochs / self.settings.epochs)
        return layer_decay_optimizer(self.model, self.settings, learning_rate, steps, warmup)

    def score(self, predictions: np.ndarray) -> float:
        return mean_score(self.evaluate(predictions))

    def evaluate(self, predictions):
        return self.data.task.evaluate(self.data.labels, predictions)

    def evaluate_trivial(self):
        return self.data.task.evaluate_trivial(self.data.train_labels, self.data.labels)

    def further_scores(self, predictions, test_predictions):
        labels = self.data.labels
        errors = {name: self.data.task.errors(labels, found) for name, found in predictions.items()}
        return {"errors": errors}

    def examples(self, number):
        batches = training_batches(self.data, self.settings, seed=0, augment=False)
        return examples_of((batches[index] for index in range(len(batches))), number)

    def distilled(self):
        former = build_encoder(self.opened, self.data.task, self.settings, drop_path=0.0)
        return DistilledModel(self.model, former, self.settings.strength)

    def predict(self) -> np.ndarray:
        return _predict(self.model, self.data, self.settings)


def _predict(model: keras.Model, data: ImageTaskData, settings: ImageFineTuning) -> np.ndarray:
    """The predictions of the held-out images, as `ImageTask` describes them."""

    def prediction(outputs):
        if data.task.target != "depth":
            return outputs.argmax(axis=-1)
        mean, deviation = data.depth_scale
        return outputs[..., 0] * deviation + mean

    return _outputs(model, data, settings, prediction)


def _outputs(
    model: keras.Model,
    data: ImageTaskData,
    settings: ImageFineTuning,
    function: Callable = lambda outputs: outputs,
) -> np.ndarray:
    """A function of the model's outputs for the held-out images, batch by batch."""
    found = []
    for batch in read_ahead(held_out_batches(data, settings)):
        outputs = np.asarray(model.predict_on_batch(batch), "float32")
        # TensorFlow's replicas have each predicted all of it.
        rows = len(next(iter(batch.values())))
        found.append(function(outputs[:rows]))
    return np.concatenate(found)[: len(data.held_out)]


def _loss(target: str, settings: ImageFineTuning) -> keras.losses.Loss:
    if target == "depth":
        return BerHu()
    if target == "semseg":
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=IGNORE_LABEL
        )
    return keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=settings.label_smoothing
    )
