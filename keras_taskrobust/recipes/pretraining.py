"""Pre-training, of whatever modality: claim a folder, train, score, export."""

import abc
import contextlib
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import keras

from keras_taskrobust import distribution
from keras_taskrobust.data_loading import WHOLE
from keras_taskrobust.evaluation.runs import Run
from keras_taskrobust.evaluation.scores import TaskScores
from keras_taskrobust.locks import held_elsewhere, locked
from keras_taskrobust.recipes.environment import versions
from keras_taskrobust.recipes.fingerprints import check_fingerprints
from keras_taskrobust.recipes.guide import write_guide
from keras_taskrobust.recipes.settings import Pretraining
from keras_taskrobust.recipes.training_run import (
    claim_data,
    claim_folder,
    finish_run,
    finished_run,
    load_run,
    restored,
    train,
)
from keras_taskrobust.training import MinimaxModel
from keras_taskrobust.training.trivial_losses import MEASURE

Stage = Literal["at_start", "half_way", "at_end"]


class PreparedData(Protocol):
    """What runs are trained and scored on."""

    @property
    def train(self) -> Sized: ...

    @property
    def held_out(self) -> Sized: ...

    def fingerprints(self) -> dict[str, str]:
        """Digests of what a run reads."""


Recipe = TypeVar("Recipe", bound=Pretraining)
Data = TypeVar("Data", bound=PreparedData)


class PretrainingFamily(abc.ABC, Generic[Recipe, Data]):
    """All that pre-training asks of a modality: a subclass and its settings are a new one.

    Attributes:
        model: string. What reports call the model.
        unit: string. What a batch has several of.
        preset: string. What of the folder of a run fine-tuning starts from.
        introduction: string. What a report of a comparison begins with.
        weightings: the rows of a comparison, by default.
        demo: the settings of the demo.
    """

    model: ClassVar[str]
    unit: ClassVar[str]
    preset: ClassVar[str]
    introduction: ClassVar[str]
    weightings: ClassVar[Mapping[str, dict]]
    demo: ClassVar[Pretraining]

    @abc.abstractmethod
    def prepare(self, recipe: Recipe, directory: Path) -> Data:
        """Prepares the data, once for several runs that differ in weighting and seed.

        Args:
            recipe: the settings.
            directory: the folder of a run or comparison, for what is kept of them.
        """

    def settled(self, recipe: Recipe, data: Data) -> Recipe:
        """The settings with what the data decide: the number of steps."""
        return recipe.with_steps(len(data.train))

    @abc.abstractmethod
    def build(self, recipe: Recipe, data: Data) -> MinimaxModel:
        """A compiled model with the recipe's initial weights, optimizer and weighting."""

    @abc.abstractmethod
    def batches(
        self, recipe: Recipe, data: Data, part: tuple[int, int] = WHOLE
    ) -> Callable[[int], Any]:
        """From the number of a step to the batches from there on, as `train` takes them.

        Args:
            recipe: the settings.
            data: what `prepare` returned.
            part: `(i, n)`: of n equal parts of each batch the i-th is read, and no other.
        """

    @abc.abstractmethod
    def score(self, model: Any, recipe: Recipe, data: Data) -> TaskScores:
        """Held-out scores, with masks that depend on neither the run's seed nor its weighting."""

    @abc.abstractmethod
    def export(self, model: Any, directory: Path) -> None:
        """Writes what fine-tuning starts from into the folder of a run."""

    @abc.abstractmethod
    def describe(self, recipe: Recipe, data: Data) -> dict[str, str]:
        """The lines of a report's settings that say what is trained on what."""

    def draw(self, model: Any, recipe: Recipe, data: Data, directory: Path, stage: Stage) -> None:
        """Writes pictures of what the model predicts into the folder of a run; by default none."""


def pretrain(
    family: PretrainingFamily[Recipe, Data],
    recipe: Recipe,
    directory: Path,
    data: Data | None = None,
    label: str = "",
) -> Run:
    """One run: prepare, train, score, save.

    A finished run is not computed again; a killed one goes on from its checkpoint. Under
    `keras_taskrobust.distribution` several devices and processes train it, of which the main one
    writes; all read the same folder. Their number may change when it goes on.

    Args:
        family: `PretrainingFamily`.
        recipe: the settings.
        directory: the folder of the run: `recipe.json`, `history.csv`, `scores.npz`, and what the
            family draws and exports.
        data: what `family.prepare` returned, or `None` to prepare them in `directory`.
        label: what progress bar and report call the run; by default its weighting.

    Returns:
        `Run`.

    Raises:
        ValueError: `directory` holds a run with other settings, or from other data, or another
            process is in it; or there are no such data.
    """
    label = label or recipe.weighting
    recipe = recipe.on_device()
    distribution.check_alike("settings", recipe.decisive())
    check_shares(recipe)
    is_main = distribution.is_main()
    with contextlib.ExitStack() as stack:
        with distribution.main_first():
            stack.enter_context(locked(directory) if is_main else held_elsewhere())
            if is_main:
                claim_folder(directory, recipe)
            run = finished_run(directory, label)
            if run is not None:
                if data is not None:
                    check_fingerprints(directory, data.fingerprints(), is_finished=True)
                return run
            if data is None:
                data = family.prepare(recipe, directory)
            if is_main:
                claim_data(directory, data.fingerprints())
        distribution.check_alike("data and versions", {**data.fingerprints(), **versions()})
        return _computed(family, recipe, directory, data, label)


def check_shares(recipe: Pretraining) -> None:
    """Refuses settings whose batches or weights the devices cannot have equal parts of.

    Args:
        recipe: the settings.

    Raises:
        ValueError: in the main process, they cannot.
        FailedElsewhereError: in the others, the same.
    """
    distribution.check_batch(recipe.batch_size)
    number = distribution.model_parallel()
    for name in recipe.CUT:
        if getattr(recipe, name) % number:
            distribution.refuse(
                f"`{name}` must be a multiple of `model_parallel`, the devices that share a model. "
                f"Received: {name}={getattr(recipe, name)}, model_parallel={number}"
            )


def _computed(family, recipe, directory, data, label):
    """The run in a folder that is claimed."""
    recipe = family.settled(recipe, data)
    is_main, is_scoped = distribution.is_main(), distribution.is_scoped()

    def draw(stage):
        if type(family).draw is PretrainingFamily.draw:
            return
        with distribution.whole(model.variables), distribution.alone():
            if not is_main:
                return
            shown = model
            if is_scoped:
                shown = family.build(recipe, data)
                shown.set_weights(model.get_weights())
            family.draw(shown, recipe, data, directory, stage)

    with distribution.scope():
        model = family.build(recipe, data)
    draw("at_start")
    with distribution.scope():
        batches = family.batches(recipe, data, distribution.part())
        whole = family.batches(recipe, data)
        half_way = _HalfWay(draw, recipe.steps // recipe.steps_per_report // 2)
        seconds = train(model, recipe, batches, directory, label, [half_way], whole)
    with distribution.main_first(), distribution.alone():
        if is_main:
            if is_scoped:
                model = restored(family.build(recipe, data), recipe, directory)
            scores = family.score(model, recipe, data)
            family.draw(model, recipe, data, directory, "at_end")
            family.export(model, directory)
            finish_run(directory, scores, seconds)
            write_guide(directory)
    return load_run(directory, label)


def compile_with(
    model: MinimaxModel,
    recipe: Pretraining,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    trivial_losses: Mapping[str, float] | str = MEASURE,
    **adam: Any,
) -> None:
    """Compiles a model with AdamW and the weighting of the settings.

    Args:
        model: the model.
        recipe: the settings.
        schedule: of the learning rate.
        trivial_losses: as for `MinimaxModel.compile`, where they are known from all the data.
        **adam: more arguments of AdamW.
    """
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=recipe.weight_decay,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
        **adam,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        weighting=recipe.make_weighting(),
        gradient_diagnostics=recipe.gradient_diagnostics,
        trivial_losses=trivial_losses,
        # `StopOnBrokenLoss` raises.
        on_nonfinite=None if recipe.on_nonfinite == "raise" else recipe.on_nonfinite,
    )


class _HalfWay(keras.callbacks.Callback):
    """Draws half-way through training."""

    def __init__(self, draw: Callable[[Stage], None], epochs: int):
        super().__init__()
        self._draw = draw
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self._epochs:
            self._draw("half_way")
