"""One fine-tuning of any model: epochs, robust methods, weight averages."""

import abc
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_taskrobust import distribution
from keras_taskrobust.data_loading import batches_for_fit, part_of_batches
from keras_taskrobust.downstream import robust
from keras_taskrobust.downstream.settings import Adaptation
from keras_taskrobust.downstream.watching import TellWatcher
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.callbacks import StopOnBrokenLoss
from keras_taskrobust.training.fused_layers import FusedLayers
from keras_taskrobust.training.keras_internals import layers_of
from keras_taskrobust.training.optimizers import build_optimizer

History = list[dict[str, float]]
#: The methods that train the head beforehand.
_WITH_PROBE = ("probe_then_full", "ewc")
#: The methods whose penalties depend on batches, or on single examples.
_ON_ONE_DEVICE = ("lwf", "ewc")


def check_devices(settings: Adaptation) -> None:
    """Refuses what cannot be fine-tuned on the devices that were started.

    Args:
        settings: `Adaptation`.

    Raises:
        ValueError: in the main process, batches cannot be cut into equal parts, or the method takes
            one device, or they are several workers of TensorFlow.
        FailedElsewhereError: in the others, the same.
    """
    distribution.check_batch(settings.batch_size)
    if distribution.processes() > 1 and keras.config.backend() == "tensorflow":
        distribution.refuse(
            "`processes` must be 1 for fine-tuning under TensorFlow, whose several workers Keras's "
            "`fit` does not bear: take `devices`, or JAX or PyTorch. "
            f"Received: processes={distribution.processes()}"
        )
    if distribution.replicas() > 1 and settings.method in _ON_ONE_DEVICE:
        distribution.refuse(
            f"`method` must be none of {', '.join(_ON_ONE_DEVICE)} on several devices: take one. "
            f"Received: method={settings.method} on {distribution.replicas()} devices"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The weights of a model that was fine-tuned, and what it predicts with them.

    Attributes:
        weights: list of arrays.
        predictions: of the held-out examples, as `FineTuningRun.predict` returns them.
    """

    weights: list[np.ndarray]
    predictions: Any


@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """What a fine-tuning run leaves, of its last report and of the best, that with the best score.

    Attributes:
        model: the model, with the weights of the best report.
        history: one dict a report: "step", "loss" and "score", of held-out examples.
        scores: "last" and "best" to metric names to values on the held-out examples.
        further_scores: names of what is recorded beside them and enters no report, "test_scores"
            of a text task or "errors" of an image task, to the same.
        trivial_scores: metric names to the values of a prediction that does not look at inputs.
        predictions: "last" and "best" to the predictions of the held-out examples.
        test_predictions: the same of test examples, where a task has them.
        weights: "last" and "best" to the weights of the model.
        seconds: float. What training and scoring took.
    """

    model: Any
    history: History
    scores: dict[str, dict[str, float]]
    further_scores: dict[str, dict[str, dict[str, float]]]
    trivial_scores: dict[str, float]
    predictions: dict[str, Any]
    test_predictions: dict[str, Any]
    weights: dict[str, list[np.ndarray]]
    seconds: float


class FineTuningRun(abc.ABC):
    """Trains a model on a task. Subclasses say on which batches, with which optimizer and score.

    Args:
        model: `keras.Model` whose `backbone` is the pre-trained part.
        settings: `Adaptation`.
        loss: Keras loss.
        steps_per_epoch: int.
        steps_per_report: int. The held-out examples are scored after as many steps.
        head: the weights of a head trained beforehand, as `head_variables` orders them; by
            default the head is new.
    """

    def __init__(
        self,
        model: Any,
        settings: Adaptation,
        loss: keras.losses.Loss,
        steps_per_epoch: int,
        steps_per_report: int,
        head: Sequence[np.ndarray] | None = None,
    ):
        self.model = model
        self.settings = settings
        self.loss = loss
        self.steps_per_epoch = steps_per_epoch
        self.steps_per_report = steps_per_report
        self.has_trained_head = head is not None
        if head is not None:
            for variable, weight in zip(head_variables(model), head, strict=True):
                variable.assign(weight)
        if settings.method == "lora":
            model.backbone.enable_lora(settings.lora_rank)
        self._variables = list(model.weights)

    @abc.abstractmethod
    def batches(self, seed: int) -> Any:
        """Endless training batches, a `grain.MapDataset`."""

    @abc.abstractmethod
    def optimizer(self, learning_rate: float, steps: int, epochs: int) -> keras.Optimizer:
        """The optimizer of `steps` steps, which were to be `epochs` epochs."""

    @abc.abstractmethod
    def predict(self) -> Any:
        """The predictions of the held-out examples."""

    @abc.abstractmethod
    def score(self, predictions: Any) -> float:
        """The score of such predictions that models are selected by, higher being better."""

    @abc.abstractmethod
    def evaluate(self, predictions: Any) -> dict[str, float]:
        """The metrics of such predictions."""

    @abc.abstractmethod
    def evaluate_trivial(self) -> dict[str, float]:
        """The metrics of a prediction that does not look at inputs."""

    @abc.abstractmethod
    def further_scores(
        self, predictions: Mapping[str, Any], test_predictions: Mapping[str, Any]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """As in `FineTuned`, from the predictions of both reports."""

    def predict_test(self) -> Any:
        """The predictions of the test examples."""
        return {}

    @abc.abstractmethod
    def examples(self, number: int) -> tuple[Any, Any]:
        """Inputs and targets of some training examples, the same ones every time."""

    @abc.abstractmethod
    def distilled(self) -> keras.Model:
        """The model to train in place of `model` so that its encoder's outputs stay."""

    def finetune(self, seed: int) -> FineTuned:
        """Trains, and scores the weights of the last and of the best report.

        Args:
            seed: int. Chooses the order of the examples.

        Returns:
            `FineTuned`.
        """
        began = time.perf_counter()
        outcomes, history = self.train_all(seed)
        predictions = {name: outcome.predictions for name, outcome in outcomes.items()}
        test_predictions = {}
        for name, outcome in outcomes.items():  # the best come last, and stay
            self._assign(outcome.weights)
            with distribution.alone():
                test_predictions[name] = self.predict_test()
        return FineTuned(
            self.model,
            history,
            {name: self.evaluate(found) for name, found in predictions.items()},
            self.further_scores(predictions, test_predictions),
            self.evaluate_trivial(),
            predictions,
            test_predictions,
            {name: outcome.weights for name, outcome in outcomes.items()},
            time.perf_counter() - began,
        )

    def train_all(self, seed: int) -> tuple[dict[str, Outcome], History]:
        """Trains the model, or all members of a soup.

        Args:
            seed: int. Chooses the order of the examples.

        Returns:
            The outcomes of the last and of the best report, and the history of the first member.
        """
        start = self._weights()
        self._tell_watcher = TellWatcher(self._all_steps())
        members, histories = [], []
        for member in range(self.settings.soup_size):
            self._assign(start)
            outcomes, history = self._train_member(seed * self.settings.soup_size + member)
            robust.release(self.model)
            members.append(outcomes)
            histories.append(history)
        chosen = {
            name: self._combine(start, [member[name] for member in members])
            for name in ("last", "best")
        }
        return chosen, histories[0]

    def _train_member(self, seed):
        settings, backbone = self.settings, self.model.backbone
        if settings.method in _WITH_PROBE:
            frozen = [layer for layer in layers_of(backbone) if layer.trainable]
            backbone.trainable = False
            self._fit(self.model, seed, settings.probe_epochs, settings.probe_learning_rate)
            _thaw(backbone, frozen)
        if settings.method == "linear_probe":
            backbone.trainable = False
        return self._fit(self._model_to_train(), seed, settings.epochs, settings.learning_rate)

    def _model_to_train(self):
        settings, model = self.settings, self.model
        if settings.method == "lwf":
            return self.distilled()
        if settings.method in ("l2_sp", "ewc"):
            variables = model.backbone.trainable_variables
            fisher = self._fisher(variables) if settings.method == "ewc" else None
            robust.penalize_distance(model, variables, settings.strength, fisher)
        return model

    def _fisher(self, variables):
        x, y = self.examples(self.settings.fisher_examples)
        diagonals = robust.fisher_diagonal(self.model, x, y, self.loss)
        of_variable = dict(zip(map(id, self.model.trainable_variables), diagonals, strict=True))
        return [of_variable[id(variable)] for variable in variables]

    def _fit(self, model, seed, epochs, learning_rate):
        """Trains; the outcomes of the last and of the best report, and the history."""
        batches = self.batches(seed)
        if distribution.replicas() > 1:
            distribution.check_batch(len(batches[0][1]))
        batches = part_of_batches(batches, distribution.part())
        steps = self._steps(epochs)
        model.compile(self.optimizer(learning_rate, steps, epochs), loss=self.loss)
        build_optimizer(model)
        history: History = []
        outcomes: dict[str, Outcome] = {}
        for start in range(0, steps, self.steps_per_report):
            end = min(start + self.steps_per_report, steps)
            # Past the `fit` of KerasHub's models, which prepares inputs and takes no generator.
            with (
                FusedLayers(model).running(),
                backend.fused_update(model.optimizer),
                backend.one_step_of_all(model),
            ):
                logs = keras.Model.fit(
                    model,
                    distribution.for_fit(functools.partial(batches_for_fit, batches[start:end])),
                    steps_per_epoch=end - start,
                    shuffle=False,
                    verbose=0,
                    callbacks=[StopOnBrokenLoss(), self._tell_watcher],
                ).history
            outcomes["last"] = Outcome(self._weights(), self._predicted())
            score = self.score(outcomes["last"].predictions)
            if not history or score > max(line["score"] for line in history):
                outcomes["best"] = outcomes["last"]
            history.append({"step": end, "loss": float(logs["loss"][-1]), "score": score})
        return outcomes, history

    def _steps(self, epochs):
        steps = epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    def _all_steps(self):
        settings = self.settings
        probe = self._steps(settings.probe_epochs) if settings.method in _WITH_PROBE else 0
        return settings.soup_size * (probe + self._steps(settings.epochs))

    def _combine(self, start, members):
        """The soup of the members' weights, then the step back to the start."""
        settings = self.settings
        if settings.soup_size == 1 and settings.wise_share == 1:
            return members[0]
        weights = self._soup(start, [member.weights for member in members])
        if settings.wise_share != 1:
            mixed = robust.interpolate(start, weights, settings.wise_share)
            weights = self._with_new_head(mixed, weights)
        self._assign(weights)
        return Outcome(weights, self._predicted())

    def _soup(self, start, members):
        settings = self.settings
        if settings.soup_size == 1:
            return members[0]
        if settings.soup == "greedy":
            return robust.greedy_soup(members, self._score_weights)
        mean = robust.uniform_soup(members)
        if settings.soup == "model_stock":
            return self._with_new_head(robust.model_stock(start, members), mean)
        return mean

    def _with_new_head(self, pulled, fine_tuned):
        """`pulled` to the start, but a new head `fine_tuned`: its start was random."""
        if self.has_trained_head:
            return pulled
        shared = {id(variable) for variable in self.model.backbone.weights}
        return [
            near if id(variable) in shared else own
            for variable, near, own in zip(self._variables, pulled, fine_tuned, strict=True)
        ]

    def _score_weights(self, weights):
        self._assign(weights)
        return self.score(self._predicted())

    def _predicted(self):
        with distribution.alone():
            return self.predict()

    def _weights(self):
        """Without what a penalty adds to the model while it trains."""
        return [variable.numpy() for variable in self._variables]

    def _assign(self, weights):
        for variable, weight in zip(self._variables, weights, strict=True):
            variable.assign(weight)


def head_variables(model: Any) -> list[keras.Variable]:
    """The variables of a model that are not its backbone's."""
    below = {id(variable) for variable in model.backbone.weights}
    return [variable for variable in model.weights if id(variable) not in below]


def _thaw(layer, trainable):
    """Makes those layers trainable again that were; the others stay frozen."""
    layer.trainable = True
    kept = {id(one) for one in trainable}
    for one in layers_of(layer):
        if id(one) not in kept:
            one.trainable = False
