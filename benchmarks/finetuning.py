"""The cost of our fine-tuning over KerasHub's own classifiers and their `fit`.

    KERAS_BACKEND=jax python benchmarks/finetuning.py

Texts: a BERT of 4 layers of 256, 64 tokens, batches of 32. Images: a ViT of 6 layers of 192, 64
pixels in patches of 8, batches of 32, by the classification recipe with its extras switched off
(augmentation, drop path, layer-wise decay, smoothing). Random examples of two classes. Both sides
start from the same backbone, build the classifier, compile, train for the same number of steps of
AdamW and are scored on 64 held-out examples after each epoch. Rounds of KerasHub, KerasHub again
and ours in an order that rotates; ratios are taken within a round, ours to the mean of both.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import keras
import keras_hub
import numpy as np
import tyro
from step_time import summarise
from timing import append_row, time_in_turn

from keras_taskrobust.downstream import text_task
from keras_taskrobust.downstream.image_encoder import OpenedModel
from keras_taskrobust.downstream.image_examples import open_image_task
from keras_taskrobust.downstream.image_finetuning import finetune_images
from keras_taskrobust.downstream.settings import FineTuning, ImageFineTuning
from keras_taskrobust.downstream.text_finetuning import EncodedTask, finetune_text
from keras_taskrobust.downstream.text_task import Examples
from keras_taskrobust.training.schedules import LinearWarmupDecay
from keras_taskrobust.vision import ImageSource, normalize_rgb

BATCH_SIZE = 32
EPOCHS = 3
HELD_OUT = 64
RATE = 1e-4

VOCABULARY = 8000
LENGTH = 64
TEXT_SETTINGS = FineTuning(learning_rate=RATE, batch_size=BATCH_SIZE, epochs=EPOCHS)

PIXELS = 64
IMAGE_SETTINGS = ImageFineTuning(
    learning_rate=RATE,
    batch_size=BATCH_SIZE,
    epochs=EPOCHS,
    warmup_epochs=0,
    layer_decay=1.0,
    drop_path=0.0,
    image_size=None,
    pooling="global",
    least_crop=1.0,
    reports=EPOCHS,
)


class LabelledImages(ImageSource):
    """Images and their classes, in memory."""

    def __init__(self, rgb, labels):
        super().__init__(("rgb", "label"), class_names=(), label_names=("no", "yes"))
        self._rgb, self._labels = rgb, labels

    def __len__(self):
        return len(self._rgb)

    def read(self, index):
        return {"rgb": self._rgb[index], "label": self._labels[index]}


@dataclasses.dataclass(frozen=True)
class Sides:
    """What both sides run, from the backbone to the last score."""

    keras_hub: Callable[[], None]
    ours: Callable[[], None]


def fit_like_a_user(classifier, schedule, weight_decay, train, held_out) -> None:
    """What a user of KerasHub writes once the classifier is there."""
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(optimizer, loss=loss, metrics=["accuracy"])
    classifier.fit(
        *train, batch_size=BATCH_SIZE, epochs=EPOCHS, validation_data=held_out, verbose=0
    )


def texts(steps: int) -> Sides:
    """A BERT on random tokens."""

    def split(number, seed):
        rng = np.random.default_rng(seed)
        arrays = {
            "token_ids": rng.integers(5, VOCABULARY, (number, LENGTH), dtype="int32"),
            "segment_ids": np.zeros((number, LENGTH), "int32"),
            "padding_mask": np.ones((number, LENGTH), "int32"),
        }
        return arrays, rng.integers(0, 2, number, dtype="int32")

    def backbone():
        keras.utils.set_random_seed(0)
        return keras_hub.models.BertBackbone(
            VOCABULARY, 4, 4, 256, 1024, max_sequence_length=LENGTH
        )

    def examples(part):
        arrays, labels = part
        return arrays, Examples((("",) * len(labels),), labels, "random")

    train, held_out = split(steps * BATCH_SIZE, 0), split(HELD_OUT, 1)
    data = EncodedTask(examples(train), {"dev": examples(held_out)}, {})
    warmup = int(TEXT_SETTINGS.warmup_share * steps * EPOCHS)

    def theirs():
        classifier = keras_hub.models.BertTextClassifier(
            backbone(), num_classes=2, dropout=TEXT_SETTINGS.dropout
        )
        schedule = LinearWarmupDecay(RATE, warmup, steps * EPOCHS)
        fit_like_a_user(classifier, schedule, TEXT_SETTINGS.weight_decay, train, held_out)

    def ours():
        finetune_text(backbone(), text_task("SST-2"), data, TEXT_SETTINGS)

    return Sides(theirs, ours)


def images(steps: int) -> Sides:
    """A ViT on random images."""

    def split(number, seed):
        rng = np.random.default_rng(seed)
        rgb = rng.integers(0, 256, (number, PIXELS, PIXELS, 3), dtype="uint8")
        return rgb, rng.integers(0, 2, number, dtype="int32")

    def backbone():
        keras.utils.set_random_seed(0)
        return keras_hub.models.ViTBackbone((PIXELS, PIXELS, 3), 8, 6, 3, 192, 768)

    train, held_out = split(steps * BATCH_SIZE, 0), split(HELD_OUT, 1)
    data = open_image_task(
        "classification", LabelledImages(*train), LabelledImages(*held_out), (PIXELS, PIXELS)
    )

    def theirs():
        classifier = keras_hub.models.ViTImageClassifier(backbone(), 2, activation=None)
        schedule = keras.optimizers.schedules.CosineDecay(RATE, steps * EPOCHS)
        parts = [(normalize_rgb(rgb), labels) for rgb, labels in (train, held_out)]
        fit_like_a_user(classifier, schedule, IMAGE_SETTINGS.weight_decay, *parts)

    def ours():
        finetune_images(OpenedModel(backbone(), None), data, IMAGE_SETTINGS)

    return Sides(theirs, ours)


CASES = {"bert_4x256": texts, "vit_6x192": images}


def seconds_of(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(
    cases: tuple[str, ...] = tuple(CASES),
    rounds: int = 5,
    steps_per_epoch: int = 30,
    output: Path | None = None,
):
    """Prints a line a case, and appends it to a csv file.

    Args:
        cases: which of the cases to run.
        rounds: rounds of three runs.
        steps_per_epoch: steps of an epoch; there are three epochs.
        output: csv file; by default none.
    """
    for name in cases:
        sides = CASES[name](steps_per_epoch)
        runs = (sides.keras_hub, sides.keras_hub, sides.ours)
        seconds = time_in_turn([lambda run=run: seconds_of(run) for run in runs], rounds)
        row = summarise(name, seconds / (EPOCHS * steps_per_epoch))
        row = {
            key.replace("minimax", "ours").replace("stock", "keras_hub"): value
            for key, value in row.items()
        }
        print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        if output is not None:
            append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
