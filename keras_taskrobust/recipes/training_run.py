"""The folder of one run: its settings, its training, its result. A killed run in it goes on."""

import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.scores import TaskScores
from keras_taskrobust.files import write_atomically
from keras_taskrobust.reading import batches_for_fit
from keras_taskrobust.recipes.pretraining_recipe import Pretraining
from keras_taskrobust.recipes.progress import ProgressBar
from keras_taskrobust.training import MinimaxModel
from keras_taskrobust.training.callbacks import Checkpoint, StopOnBrokenLoss

#: The results that a run may leave, and what they are.
RESULTS = {
    "preset": "KerasHub preset of the encoder",
    "model.keras": "the whole model, for keras.saving.load_model",
    "history.csv": "task losses and weights over the steps",
    "scores.npz": "held-out scores of each record",
}
#: The pictures that a run may leave, and what they show.
PICTURES = {
    "reconstructions_at_start.png": "Held-out images before training: for each task the input, the "
    "visible patches, the prediction and the truth.",
    "reconstructions_half_way.png": "The same images and patches half-way through training.",
    "reconstructions.png": "The same images and patches after training.",
}
#: What they are drawn from.
RECONSTRUCTIONS = {
    "at_start": "reconstructions_at_start.npz",
    "half_way": "reconstructions_half_way.npz",
    "at_end": "reconstructions.npz",
}


def results_of(directory: Path) -> dict[str, str]:
    """Which of `RESULTS` and `PICTURES` are in the folder of a run."""
    return _those_in(directory, RESULTS | PICTURES)


def pictures_of(directory: Path) -> dict[str, str]:
    """Which of `PICTURES` are in the folder of a run."""
    return _those_in(directory, PICTURES)


def claim_folder(directory: Path, recipe: Pretraining) -> None:
    """Writes the settings into `directory`.

    Those of a start that did not come to train are written over.

    Args:
        directory: the folder of the run.
        recipe: the settings.

    Raises:
        ValueError: it holds a run with other settings, or with damaged ones.
    """
    path = directory / "recipe.json"
    content = json.dumps(dataclasses.asdict(recipe), indent=1)
    if path.exists() and path.read_bytes() == content.encode():
        return
    if path.exists() and _has_trained(directory):
        found, settings = _read_settings(directory), json.loads(content)
        changed = sorted(k for k in settings if found.get(k) != settings[k])
        if changed:
            raise ValueError(
                f"{directory} holds a run with other settings: choose another folder. "
                f"Received other values of: {', '.join(changed)}"
            )
    write_atomically(path, content.encode())


def is_finished(directory: Path) -> bool:
    """Whether `finish_run` was called for the run in `directory`."""
    return (directory / "finished.json").exists()


def finish_run(directory: Path, scores: TaskScores, seconds: float) -> None:
    """Writes what a trained model scores, and that its run is done.

    Args:
        directory: the folder of the run.
        scores: the held-out scores.
        seconds: what the training took.
    """
    scores.save(directory / "scores.npz")
    write_atomically(directory / "finished.json", json.dumps({"seconds": seconds}).encode())


def load_run(directory: Path, label: str) -> Run:
    """Reads a finished run.

    Args:
        directory: the folder of the run.
        label: what the report calls it.

    Returns:
        `Run`.

    Raises:
        ValueError: its settings or its end are damaged.
    """
    settings = _read_settings(directory)
    seconds = _read_json(directory / "finished.json", ("seconds",))["seconds"]
    scores = TaskScores.load(directory / "scores.npz")
    history = _read_history(directory / "history.csv", settings["steps_per_report"])
    return Run(label, settings["seed"], scores, history, seconds)


def train(
    model: MinimaxModel,
    recipe: Pretraining,
    batches,
    directory: Path,
    label: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> float:
    """Trains until `recipe.steps`, from the newest checkpoint in `directory` if there is one.

    Args:
        model: a compiled model, with its initial weights.
        recipe: the settings.
        batches: callable: the number of the first step to a `grain` data set from there on.
        directory: the folder for `history.csv` and the checkpoint.
        label: what the progress bar calls the run.
        callbacks: further callbacks.

    Returns:
        float. Seconds spent.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(directory, every=recipe.reports_per_checkpoint)
    done = checkpoint.restore(model)
    history = directory / "history.csv"
    _truncate_history(history, done)
    start = time.perf_counter()
    model.fit(
        batches_for_fit(batches(done * recipe.steps_per_report)),
        epochs=recipe.steps // recipe.steps_per_report,
        initial_epoch=done,
        steps_per_epoch=recipe.steps_per_report,
        shuffle=False,
        verbose=0,
        callbacks=[
            StopOnBrokenLoss(),
            keras.callbacks.CSVLogger(history, append=done > 0),
            checkpoint,
            *callbacks,
            ProgressBar(label, recipe.steps, done * recipe.steps_per_report),
        ],
    )
    return time.perf_counter() - start


def _read_settings(directory: Path) -> dict[str, Any]:
    return _read_json(directory / "recipe.json", ("seed", "steps_per_report"))


def _read_json(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict) or not content.keys() >= set(names):
        raise ValueError(
            f"{path} must be JSON with {' and '.join(names)}, as its run wrote it. "
            "Received: a damaged file; remove the run's folder to train it again"
        )
    return content


def _has_trained(directory):
    """Whether there is a line of history, or a checkpoint."""
    history = directory / "history.csv"
    is_logged = history.exists() and history.stat().st_size > 0
    return is_logged or Checkpoint(directory).latest()[0] is not None


def _those_in(directory, texts):
    return {name: text for name, text in texts.items() if (directory / name).exists()}


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
