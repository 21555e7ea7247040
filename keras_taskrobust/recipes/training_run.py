"""The folder of one run: its settings, its training, its result. A killed run in it goes on."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_taskrobust import distribution
from keras_taskrobust.data_loading import batches_for_fit
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.scores import TaskScores
from keras_taskrobust.files import READING_ERRORS, sync_files, write_atomically
from keras_taskrobust.interruption import saving_first
from keras_taskrobust.recipes.environment import environment
from keras_taskrobust.recipes.fingerprints import check_fingerprints, record_fingerprints
from keras_taskrobust.recipes.history import HistoryLog, cut_history, read_history
from keras_taskrobust.recipes.progress import ProgressBar
from keras_taskrobust.recipes.settings import Pretraining
from keras_taskrobust.recipes.stored import TEXT, mapping_to
from keras_taskrobust.recipes.tensorboard import TensorBoardLog
from keras_taskrobust.training import MinimaxModel
from keras_taskrobust.training.callbacks import Checkpoint, StopOnBrokenLoss

#: The results that a run may leave, and what they are.
RESULTS = {
    "preset": "KerasHub preset of the encoder",
    "model.keras": "the whole model: import keras_taskrobust.vision (of texts: PosBert from "
    "keras_taskrobust.text), then keras.saving.load_model",
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

    Those of a start that did not come to train are written over, and so are those that change no
    number. `steps` may grow as long as the learning rate still rises.

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
        found = _read_settings(directory)
        steps_per_report = found["steps_per_report"]
        checkpoint = Checkpoint(directory, steps_per_epoch=steps_per_report)
        done = max(checkpoint.found(), default=0) * steps_per_report
        changed = recipe.changes(found, done)
        if changed:
            hint = " (`steps` decides how the learning rate falls)" if "steps" in changed else ""
            raise ValueError(
                f"{directory} holds a run with other settings: choose another folder. "
                f"Received other values of: {', '.join(changed)}{hint}"
            )
    write_atomically(path, content.encode())


def claim_data(directory: Path, data: Mapping[str, str]) -> None:
    """Writes down what a run is computed from and with; one that goes on must have the same.

    Args:
        directory: the folder of the run.
        data: names of what it reads, such as "corpus", to digests.

    Raises:
        ValueError: the run in the folder began with other data, another backend or version.
    """
    if Checkpoint(directory).found():
        check_fingerprints(directory, data)
    else:
        record_fingerprints(directory, data)


def finish_run(directory: Path, scores: TaskScores, seconds: float) -> None:
    """Writes what a trained model scores, and that its run is done.

    Args:
        directory: the folder of the run.
        scores: the held-out scores.
        seconds: what the training took.
    """
    scores.save(directory / "scores.npz")
    sync_files(directory)
    content = {"seconds": seconds, "environment": environment()}
    write_atomically(directory / "finished.json", json.dumps(content).encode())


def finished_run(directory: Path, label: str) -> Run | None:
    """Reads the run in `directory` if it is finished. A damaged one is not, and warned of.

    Args:
        directory: the folder of the run.
        label: what the report calls it.
    """
    if not (directory / "finished.json").exists():
        return None
    try:
        return load_run(directory, label)
    except ValueError as error:
        warnings.warn(f"A finished run is damaged and ends anew. {error}", stacklevel=2)
        return None


def load_run(directory: Path, label: str) -> Run:
    """Reads a finished run.

    Args:
        directory: the folder of the run.
        label: what the report calls it.

    Returns:
        `Run`.

    Raises:
        ValueError: what it left is damaged.
    """
    settings = _read_settings(directory)
    finished = _read_json(directory / "finished.json", {"seconds": (int, float)})
    scores = _read_or_refuse(directory / "scores.npz", "held-out scores", TaskScores.load)
    # Where epochs set the steps, those of the settings are others.
    end = settings["steps"] if settings.get("epochs") is None else None
    history = _read_or_refuse(
        directory / "history.csv",
        "lines of history",
        lambda path: read_history(path, settings["steps_per_report"], end),
    )
    computed_with = finished.get("environment", {})
    if not mapping_to(TEXT).accepts(computed_with):
        computed_with = {}
    return Run(label, settings["seed"], scores, history, finished["seconds"], computed_with)


def train(
    model: MinimaxModel,
    recipe: Pretraining,
    batches: Callable[[int], Any],
    directory: Path,
    label: str,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    whole_batches: Callable[[int], Any] | None = None,
) -> float:
    """Trains until `recipe.steps`, from the newest checkpoint in `directory` if there is one.

    Args:
        model: a compiled model, with its initial weights.
        recipe: the settings.
        batches: callable: the number of the first step to a `grain` data set from there on.
        directory: the folder for `history.csv` and the checkpoints.
        label: what the progress bar calls the run.
        callbacks: further callbacks, of all processes. What they do at the end of an epoch is done
            before its checkpoint.
        whole_batches: as `batches`, where those are a part of each batch; by default they are all
            of it.

    Returns:
        float. Seconds spent, over all starts, on what was kept.
    """
    is_main = distribution.is_main()
    checkpoint = Checkpoint(
        directory,
        recipe.reports_per_checkpoint,
        recipe.steps_per_report,
        recipe.steps,
        recipe.checkpoint_minutes,
    )
    done = checkpoint.restore(model)
    distribution.check_alike("checkpoints", {"reports": done, "steps": checkpoint.steps_of_epoch})
    if is_main:
        cut_history(directory, done, recipe.steps_per_report)
    step = done * recipe.steps_per_report + checkpoint.steps_of_epoch
    if step == 0 and model.trivial_losses is not None:
        is_needed = model.weighting.needs_trivial_losses
        first_ones = FromTheStart(whole_batches or batches)
        model.measure_trivial_losses(first_ones, allow_unseen=not is_needed)
    reports = (directory, recipe.steps_per_report, recipe.steps)
    of_main = [
        HistoryLog(*reports),
        *([TensorBoardLog(*reports, step)] if recipe.tensorboard else []),
    ]
    callbacks = [StopOnBrokenLoss(), *(of_main if is_main else []), *callbacks, checkpoint]
    if is_main:
        callbacks.append(ProgressBar(label, recipe.steps, step))
    with saving_first():
        for epochs, steps in _epochs_from(step, recipe):
            model.fit(
                distribution.for_fit(functools.partial(batches_for_fit, batches(step))),
                epochs=epochs[-1] + 1,
                initial_epoch=epochs[0],
                steps_per_epoch=steps,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
            step += len(epochs) * steps
    return checkpoint.seconds


def restored(model: MinimaxModel, recipe: Pretraining, directory: Path) -> MinimaxModel:
    """The same compiled model with the state of the newest checkpoint."""
    Checkpoint(directory, steps_per_epoch=recipe.steps_per_report, steps=recipe.steps).restore(
        model
    )
    return model


def _epochs_from(step: int, recipe: Pretraining) -> Iterator[tuple[range, int]]:
    """The epochs from a step on, those of one length together: a begun one, whole ones, the rest.

    Args:
        step: int. The steps done before.
        recipe: the settings.

    Yields:
        Epochs, and the steps that are left of each.
    """
    length, end = recipe.steps_per_report, recipe.steps
    while step < end:
        first, begun = divmod(step, length)
        number = 1 if begun else max((end - step) // length, 1)
        steps = min(length - begun, end - step)
        yield range(first, first + number), steps
        step += number * steps


class FromTheStart:
    """The batches of a run from its first step, as often as they are asked for.

    Args:
        batches: callable, as for `train`.
    """

    def __init__(self, batches: Callable[[int], Any]):
        self._batches = batches

    def __iter__(self) -> Iterator[tuple]:
        return batches_for_fit(self._batches(0))


def _read_settings(directory: Path) -> dict[str, Any]:
    return _read_json(
        directory / "recipe.json", {"seed": int, "steps": int, "steps_per_report": int}
    )


def _read_json(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with values of these types."""
    try:
        content = json.loads(path.read_text())
    except READING_ERRORS:
        content = None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise ValueError(
            f"{path} must be JSON with {' and '.join(kinds)}, as its run wrote it. "
            "Received: a damaged file or none; remove the run's folder to train it again"
        )
    return content


def _read_or_refuse(path, what, read):
    try:
        return read(path)
    except READING_ERRORS as error:
        raise ValueError(
            f"{path} must hold {what}, as its run wrote it. Received: a damaged file or none "
            f"({' '.join(str(error).split())}); remove the run's folder to train it again"
        ) from error


def _has_trained(directory):
    """Whether there is a line of history, or a checkpoint."""
    history = directory / "history.csv"
    is_logged = history.exists() and history.stat().st_size > 0
    return is_logged or bool(Checkpoint(directory).found())


def _those_in(directory, texts):
    return {name: text for name, text in texts.items() if (directory / name).exists()}
