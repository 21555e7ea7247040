"""The cost of a minimax step over Keras's own step of the same network with one pooled loss.

Run it once a backend:

    KERAS_BACKEND=jax python benchmarks/step_time.py

Each round times a block of steps of three models with equal weights, in an order that rotates: the
stock model, a second stock model, and the minimax model. Ratios are taken within a round, that of
minimax to the mean of the two stock models. The ratio of stock to stock shows what the machine's
noise alone does.
"""

import dataclasses
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import keras_hub
import numpy as np
import tyro
from timing import append_row, time_in_turn

import keras_taskrobust as ktr
from keras_taskrobust.text.pos import POS_TASKS
from keras_taskrobust.text.pos_bert import PosBert

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclasses.dataclass
class Case:
    """A network, its data, and how both models are compiled."""

    steps: int
    batch_size: int
    minimax: Callable
    stock: Callable
    x: object
    y: object
    stock_y: object
    stock_weight: object


def pos_bert_case(steps=2, batch_size=32, sequence_length=128, predictions=20, vocabulary=8000):
    """PosBert, 4 layers of 256, with its next-sentence head as an auxiliary loss."""
    rng = np.random.default_rng(0)
    number = steps * batch_size
    x = {
        "token_ids": rng.integers(5, vocabulary, (number, sequence_length), dtype="int32"),
        "segment_ids": np.zeros((number, sequence_length), "int32"),
        "padding_mask": np.ones((number, sequence_length), "int32"),
        "mask_positions": rng.integers(1, sequence_length, (number, predictions), dtype="int32"),
    }
    labels = rng.integers(5, vocabulary, (number, predictions), dtype="int32")
    groups = rng.integers(-1, len(POS_TASKS), (number, predictions), dtype="int32")
    next_sentence = rng.integers(0, 2, number, dtype="int32")

    def build():
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary,
            num_layers=4,
            num_heads=4,
            hidden_dim=256,
            intermediate_dim=1024,
            max_sequence_length=sequence_length,
        )
        return PosBert(backbone)

    def minimax():
        model = build()
        model.compile(keras.optimizers.AdamW(1e-4), weighting="minimax")
        return model

    def stock():
        model = build().network
        losses = {"masked_lm": cross_entropy, "next_sentence": cross_entropy}
        model.compile(keras.optimizers.AdamW(1e-4), loss=losses)
        return model

    return Case(
        steps,
        batch_size,
        minimax,
        stock,
        x,
        {"masked_lm": {"labels": labels, "groups": groups}, "next_sentence": next_sentence},
        {"masked_lm": labels, "next_sentence": next_sentence},
        {
            "masked_lm": (groups >= 0).astype("float32"),
            "next_sentence": np.ones(number, "float32"),
        },
    )


def mlp_case(steps=300, batch_size=128, groups=9):
    """A perceptron of 256-64-64-64 with groups of samples, and some samples in none."""
    rng = np.random.default_rng(0)
    number = steps * batch_size
    x = rng.normal(size=(number, 256)).astype("float32")
    labels = rng.integers(0, 64, number, dtype="int32")
    group_ids = rng.integers(-1, groups, number, dtype="int32")

    def network():
        inputs = keras.Input((256,))
        hidden = keras.layers.Dense(64, activation="relu")(inputs)
        hidden = keras.layers.Dense(64, activation="relu")(hidden)
        return keras.Model(inputs, keras.layers.Dense(64)(hidden))

    def minimax():
        model = ktr.MinimaxModel(network())
        loss = ktr.GroupedLoss(cross_entropy, tuple(f"group_{k}" for k in range(groups)))
        model.compile(keras.optimizers.Adam(1e-3), loss=loss, weighting="minimax")
        return model

    def stock():
        model = network()
        model.compile(keras.optimizers.Adam(1e-3), loss=cross_entropy)
        return model

    y = {"labels": labels, "groups": group_ids}
    weight = (group_ids >= 0).astype("float32")
    return Case(steps, batch_size, minimax, stock, x, y, labels, weight)


CASES = {"pos_bert_4x256": pos_bert_case, "mlp_256_64_64_64": mlp_case}


def time_rounds(case: Case, rounds: int, clock: Callable[[], float]) -> np.ndarray:
    """Seconds per step, `(rounds, 3)`: stock, stock again, minimax."""
    models = [case.stock(), case.stock(), case.minimax()]
    for model in models[1:]:
        for own, first in zip(_network_weights(model), _network_weights(models[0]), strict=True):
            own.assign(keras.ops.convert_to_numpy(first))

    def block(index):
        is_minimax = index == 2
        start = clock()
        models[index].fit(
            case.x,
            case.y if is_minimax else case.stock_y,
            sample_weight=None if is_minimax else case.stock_weight,
            batch_size=case.batch_size,
            shuffle=False,
            verbose=0,
        )
        return (clock() - start) / case.steps

    return time_in_turn([lambda index=index: block(index) for index in range(3)], rounds)


def _network_weights(model):
    return getattr(model, "network", model).trainable_variables


def summarise(name: str, seconds: np.ndarray) -> dict:
    """Medians and quartiles of a case."""
    minimax, again = seconds[:, 2] / seconds[:, :2].mean(axis=1), seconds[:, 1] / seconds[:, 0]
    quartiles = np.percentile(minimax, [25, 50, 75]), np.percentile(again, [25, 50, 75])
    return {
        "backend": keras.backend.backend(),
        "case": name,
        "rounds": len(seconds),
        "stock_seconds": f"{np.median(seconds[:, 0]):.6f}",
        "minimax_over_stock": f"{quartiles[0][1]:.4f}",
        "minimax_quartiles": f"{quartiles[0][0]:.4f}-{quartiles[0][2]:.4f}",
        "stock_over_stock": f"{quartiles[1][1]:.4f}",
        "stock_quartiles": f"{quartiles[1][0]:.4f}-{quartiles[1][2]:.4f}",
    }


def run_cases(
    cases: dict[str, Callable[[], Case]],
    rounds: int,
    output: Path | None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Prints a line a case, and appends it to a csv file, if one is given."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", file=sys.stderr)
    for name, make_case in cases.items():
        row = summarise(name, time_rounds(make_case(), rounds, clock))
        print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        if output is not None:
            append_row(output, row)


def main(cases: tuple[str, ...] = tuple(CASES), rounds: int = 15, output: Path | None = None):
    """Prints a line a case, and appends it to a csv file.

    Args:
        cases: which of the cases to run.
        rounds: rounds of three blocks.
        output: csv file; by default none.
    """
    run_cases({name: CASES[name] for name in cases}, rounds, output)


if __name__ == "__main__":
    tyro.cli(main)
