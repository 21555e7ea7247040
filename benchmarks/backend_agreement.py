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

    from keras_taskrobust.text import PosBert

    arrays = dict(np.load(folder / "batches.npz"))
    y = {
        "masked_lm": {"labels": arrays.pop("labels"), "groups": arrays.pop("groups")},
        "next_sentence": arrays.pop("next_sentence"),
    }

    def build(name):
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
        model.compile(keras.optimizers.AdamW(1e-3), weighting=name)
        return model

    train_recorded(folder, build, WEIGHTINGS, (arrays, y), STEPS)


def train_recorded(folder: Path, build, weightings, data, steps: int) -> None:
    """Trains on the backend in use, from one file of initial weights; stores each step's losses.

    Args:
        folder: of `initial_weights.npz`, which is written if it is missing, and the losses.
        build: callable: the name of a weighting to a compiled model.
        weightings: the names.
        data: `(x, y)`, or `(x,)`, of arrays, the same number of rows for every step.
        steps: int.
    """
    import keras

    results = {}
    rows = len(keras.tree.flatten(data)[0]) // steps
    for name in weightings:
        model = build(name)
        initial = folder / "initial_weights.npz"
        if not initial.exists():
            np.savez(initial, *model.network.get_weights())
        with np.load(initial) as weights:
            model.network.set_weights([weights[name] for name in weights])
        losses = []
        for step in range(steps):
            part = slice(step * rows, step * rows + rows)
            batch = keras.tree.map_structure(lambda array, part=part: array[part], data)
            model.reset_metrics()
            logs = model.train_on_batch(*batch, return_dict=True)
            losses.append([logs["loss"], *(logs[f"{task}_loss"] for task in model.task_names)])
        results[name] = np.array(losses)
        print(f"{keras.backend.backend()}, {name}: loss {losses[0][0]:.6f} to {losses[-1][0]:.6f}")
    np.savez(folder / f"{keras.backend.backend()}.npz", **results)


def train_on_each(backends, command) -> None:
    """Runs a Python command once a backend, one after the other."""
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, *command], env=environment, check=True)


def compare_losses(folder: Path, weightings, backends) -> float:
    """Prints the largest relative difference under each weighting; returns the largest of all."""
    runs = [np.load(folder / f"{backend}.npz") for backend in backends]
    differences = {}
    for name in weightings:
        values = np.stack([run[name] for run in runs])
        differences[name] = np.nanmax(np.ptp(values, axis=0) / np.abs(values).min(0))
        print(f"{name}: largest relative difference of a loss {differences[name]:.1e}")
    return max(differences.values())


def main() -> None:
    """Runs the backends one after the other and compares them."""
    with tempfile.TemporaryDirectory() as name:
        make_batches(Path(name) / "batches.npz")
        train_on_each(BACKENDS, [__file__, name])
        compare_losses(Path(name), WEIGHTINGS, BACKENDS)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        main()
