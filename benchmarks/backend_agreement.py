"""Twenty steps of PosBert on each backend, from one file of weights and stored masks.

    python benchmarks/backend_agreement.py

Starts one process a backend, and prints the largest relative difference of the losses.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WEIGHTINGS = ("minimax", "uncertainty", "group_dro", "dwa", "gradnorm")
BACKENDS = ("tensorflow", "jax", "torch")
STEPS = 20


def make_batches(path: Path) -> None:
    """Stores the masked batches."""
    rng = np.random.default_rng(0)
    shape, slots = (STEPS * 8, 32), (STEPS * 8, 6)
    np.savez(
        path,
        token_ids=rng.integers(5, 500, shape, dtype="int32"),
        segment_ids=np.zeros(shape, "int32"),
        padding_mask=np.ones(shape, "int32"),
        mask_positions=rng.integers(1, 32, slots, dtype="int32"),
        labels=rng.integers(5, 500, slots, dtype="int32"),
        groups=rng.integers(-1, 9, slots, dtype="int32"),
        next_sentence=rng.integers(0, 2, shape[0], dtype="int32"),
    )


def train(folder: Path) -> None:
    """Trains under every weighting; stores the losses of each step."""
    import keras
    import keras_hub

    from keras_taskrobust.text import POS_TASKS, PosBert

    arrays = dict(np.load(folder / "batches.npz"))
    y = {
        "masked_lm": {"labels": arrays.pop("labels"), "groups": arrays.pop("groups")},
        "next_sentence": arrays.pop("next_sentence"),
    }
    results = {}
    for name in WEIGHTINGS:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=500,
            num_layers=2,
            num_heads=2,
            hidden_dim=32,
            intermediate_dim=64,
            max_sequence_length=32,
            dropout=0.0,
        )
        model = PosBert(backbone)
        weights = folder / "initial.weights.h5"
        if not weights.exists():
            model.network.save_weights(weights)
        model.network.load_weights(weights)
        model.compile(keras.optimizers.AdamW(1e-3), weighting=name)
        losses = []
        for step in range(STEPS):
            batch = slice(step * 8, step * 8 + 8)
            x, targets = keras.tree.map_structure(lambda a, b=batch: a[b], (arrays, y))
            model.reset_metrics()
            logs = model.train_on_batch(x, targets, return_dict=True)
            losses.append([logs["loss"], *(logs[f"{task}_loss"] for task in POS_TASKS)])
        results[name] = np.array(losses)
    np.savez(folder / f"{keras.backend.backend()}.npz", **results)


def main() -> None:
    """Runs the backends one after the other and compares them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_batches(folder / "batches.npz")
        for backend in BACKENDS:
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([sys.executable, __file__, name], env=environment, check=True)
        runs = {backend: np.load(folder / f"{backend}.npz") for backend in BACKENDS}
        for weighting in WEIGHTINGS:
            values = np.stack([runs[backend][weighting] for backend in BACKENDS])
            difference = np.nanmax(np.ptp(values, axis=0) / np.abs(values).min(0))
            print(f"{weighting}: largest relative difference of a loss {difference:.1e}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        main()
