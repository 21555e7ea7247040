"""The step of two processes over that of one with half the batch: what sums over processes cost.

    KERAS_BACKEND=torch python benchmarks/replica_time.py [--rounds 9] [--steps 5] [--output FILE]

Two processes of one thread each take blocks of steps in turn: alone with their half of the batch,
alone again, and together. Ratios of the CPU seconds of a process are taken within a round, those
together to the mean of both alone; the ratio of alone to alone says what noise does.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from timing import append_row, time_in_turn

WEIGHTINGS = ("minimax", "upgrad")
ROWS, LENGTH, SLOTS, VOCABULARY = 8, 64, 10, 4000


def make_model(weighting):
    """A PosBert of two layers of width 128."""
    import keras
    import keras_hub

    from keras_taskrobust.text import PosBert

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=2,
        hidden_dim=128,
        intermediate_dim=512,
        max_sequence_length=LENGTH,
    )
    model = PosBert(backbone)
    model.compile(keras.optimizers.AdamW(1e-4, global_clipnorm=1.0), weighting=weighting)
    return model


def make_batch(rng):
    """Half of a batch."""
    slots = (ROWS, SLOTS)
    x = {
        "token_ids": rng.integers(5, VOCABULARY, (ROWS, LENGTH), dtype="int32"),
        "segment_ids": np.zeros((ROWS, LENGTH), "int32"),
        "padding_mask": np.ones((ROWS, LENGTH), "int32"),
        "mask_positions": rng.integers(1, LENGTH, slots, dtype="int32"),
    }
    labels = rng.integers(5, VOCABULARY, slots, dtype="int32")
    groups = rng.integers(-1, 9, slots, dtype="int32")
    y = {
        "masked_lm": {"labels": labels, "groups": groups},
        "next_sentence": rng.integers(0, 2, ROWS, dtype="int32"),
    }
    return x, y


def measure(rank, folder, rounds, steps):
    """Writes the CPU seconds of a step, `(rounds, 3)`, under each weighting."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    address = f"file://{folder.resolve()}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    batch = make_batch(np.random.default_rng(rank))

    def block(model, together):
        distributed.barrier()
        begin = time.process_time()
        with mock.patch.object(distributed, "is_initialized", return_value=together):
            for _ in range(steps):
                model.train_on_batch(*batch)
        return (time.process_time() - begin) / steps

    for weighting in WEIGHTINGS:
        model = make_model(weighting)
        blocks = [functools.partial(block, model, together) for together in (False, False, True)]
        np.save(folder / f"{weighting}-{rank}.npy", time_in_turn(blocks, rounds))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--process", nargs=2)
    arguments = parser.parse_args()
    if arguments.process:
        rank, folder = arguments.process
        measure(int(rank), Path(folder), arguments.rounds, arguments.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, *sys.argv, "--process", str(rank), folder],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(2)
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("A process has failed.")
        for weighting in WEIGHTINGS:
            files = [Path(folder) / f"{weighting}-{rank}.npy" for rank in range(2)]
            seconds = np.concatenate([np.load(file) for file in files])
            alone = seconds[:, :2].mean(1)
            ratios = seconds[:, 2] / alone
            noise = seconds[:, 1] / seconds[:, 0]
            row = {"model": "PosBert 2x128", "weighting": weighting}
            row["seconds_alone"] = f"{np.median(alone):.4f}"
            for name, values in (("together", ratios), ("alone_again", noise)):
                low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
                row |= {name: f"{middle:.3f}", f"{name}_quartiles": f"{low:.3f} {high:.3f}"}
            print(row)
            if arguments.output:
                append_row(arguments.output, row)


if __name__ == "__main__":
    main()
