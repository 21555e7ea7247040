"""The cost of our fine-tuning over KerasHub's own classifier and its `fit`.

    KERAS_BACKEND=jax python benchmarks/finetuning.py

A BERT of 4 layers of 256, 64 tokens, batches of 32, on random sentences of two classes. Both sides
start from the same backbone, build the classifier, compile, train for the same number of steps of
the same AdamW and are scored on 64 held-out examples after each epoch. Rounds of KerasHub, KerasHub
again and ours in an order that rotates; ratios are taken within a round, ours to the mean of both.
"""

import time

import keras
import keras_hub
import numpy as np
import tyro
from step_time import summarise

from keras_taskrobust.downstream.settings import FineTuning
from keras_taskrobust.downstream.text_finetuning import EncodedTask, finetune_text
from keras_taskrobust.downstream.text_task import Examples, text_task
from keras_taskrobust.training.schedules import LinearWarmupDecay

VOCABULARY = 8000
LENGTH = 64
SETTINGS = FineTuning(learning_rate=1e-4, epochs=3)
HELD_OUT = 64


def split(number: int, seed: int):
    """Random token arrays and labels."""
    rng = np.random.default_rng(seed)
    arrays = {
        "token_ids": rng.integers(5, VOCABULARY, (number, LENGTH), dtype="int32"),
        "segment_ids": np.zeros((number, LENGTH), "int32"),
        "padding_mask": np.ones((number, LENGTH), "int32"),
    }
    labels = rng.integers(0, 2, number, dtype="int32")
    return arrays, Examples((("",) * number,), labels, "random")


def build_backbone():
    keras.utils.set_random_seed(0)
    return keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=4,
        num_heads=4,
        hidden_dim=256,
        intermediate_dim=1024,
        max_sequence_length=LENGTH,
    )


def run_keras_hub(train, held_out) -> None:
    """What a user of KerasHub writes."""
    classifier = keras_hub.models.BertTextClassifier(
        build_backbone(), num_classes=2, dropout=SETTINGS.dropout
    )
    steps = SETTINGS.epochs * len(train[1]) // SETTINGS.batch_size
    schedule = LinearWarmupDecay(SETTINGS.learning_rate, int(SETTINGS.warmup_share * steps), steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=SETTINGS.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(optimizer, loss=loss, metrics=["accuracy"])
    classifier.fit(
        train[0],
        train[1].labels,
        batch_size=SETTINGS.batch_size,
        epochs=SETTINGS.epochs,
        validation_data=(held_out[0], held_out[1].labels),
        verbose=0,
    )


def run_ours(train, held_out) -> None:
    """The same with this library."""
    data = EncodedTask(train, {"dev": held_out}, {})
    finetune_text(build_backbone(), text_task("SST-2"), data, SETTINGS)


def main(rounds: int = 5, steps_per_epoch: int = 30):
    """Prints a line.

    Args:
        rounds: rounds of three runs.
        steps_per_epoch: steps of an epoch; there are three epochs.
    """
    train, held_out = split(steps_per_epoch * SETTINGS.batch_size, 0), split(HELD_OUT, 1)
    runs = (run_keras_hub, run_keras_hub, run_ours)
    seconds = np.zeros((rounds, 3))
    for number in range(rounds):
        for place in range(3):
            index = (number + place) % 3
            start = time.perf_counter()
            runs[index](train, held_out)
            seconds[number, index] = time.perf_counter() - start
    row = summarise("finetuning_bert_4x256", seconds / (SETTINGS.epochs * steps_per_epoch))
    names = {"stock": "keras_hub", "minimax": "ours"}
    for key, value in row.items():
        for old, new in names.items():
            key = key.replace(old, new)
        print(f"{key}={value}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
