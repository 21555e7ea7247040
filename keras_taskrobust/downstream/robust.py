"""Fine-tuning that keeps what pre-training gave: penalties, distillation, weight averages."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_taskrobust.training.keras_internals import index_of_variable, layers_of, untrack

Weights = list[np.ndarray]


class PenaltyToStart(keras.regularizers.Regularizer):
    """`strength / 2 * sum(importance * (w - start)^2)` of one variable.

    With importance 1 this is L2-SP, with the diagonal of the Fisher information EWC.

    Args:
        start: a variable or array, where the variable began.
        strength: float.
        importance: a variable or array of the same shape, or `None` for 1.

    Example:

    >>> penalty = PenaltyToStart(np.array([1.0, 0.0], "float32"), strength=2.0)
    >>> float(penalty(keras.ops.array([0.0, 3.0])))
    10.0
    """

    def __init__(self, start, strength, importance=None):
        self.start = start
        self.strength = strength
        self.importance = importance

    def __call__(self, x):
        moved = ops.square(ops.cast(x, "float32") - ops.convert_to_tensor(self.start))
        if self.importance is not None:
            moved = moved * ops.convert_to_tensor(self.importance)
        return 0.5 * self.strength * ops.sum(moved)


class Anchors(keras.layers.Layer):
    """Holds arrays as state of a model, so that a compiled step does not take them as constants.

    Args:
        arrays: sequence of float arrays.
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        super().__init__(trainable=False, dtype="float32")
        self.arrays = [
            self.add_weight(
                shape=array.shape,
                initializer=lambda shape, dtype, array=array: ops.convert_to_tensor(array, dtype),
                trainable=False,
            )
            for array in arrays
        ]


def penalize_distance(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    strength: float,
    importances: Sequence[np.ndarray] | None = None,
) -> None:
    """Pulls variables of a model to where they are now, from the next `compile` on.

    Without importances this is L2-SP: `strength / 2 * ||w - w_0||^2`. With the diagonal of the
    Fisher information it is EWC: `strength / 2 * sum_i F_i (w_i - w_0i)^2`. The pull takes the
    place of weight decay: optimizers are to spare the `pulled_variables`.

    Args:
        model: the model that is going to be trained.
        variables: those of its variables that are pulled.
        strength: float.
        importances: one array a variable, or `None`.

    References:
        [Explicit Inductive Bias for Transfer Learning](https://arxiv.org/abs/1802.01483).
        [Overcoming catastrophic forgetting](https://arxiv.org/abs/1612.00796).
    """
    starts = Anchors([ops.convert_to_numpy(variable) for variable in variables])
    factors: Sequence = [None] * len(variables)
    model.penalty_starts = starts
    if importances is not None:
        model.penalty_importances = Anchors(importances)
        factors = model.penalty_importances.arrays
    for variable, start, factor in zip(variables, starts.arrays, factors, strict=True):
        variable.regularizer = PenaltyToStart(start, strength, factor)


def pulled_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of a model that `penalize_distance` pulls to where they were."""
    return [one for one in model.weights if isinstance(one.regularizer, PenaltyToStart)]


def release(model: keras.Model) -> None:
    """Ends what `penalize_distance` began, if it did: the model is what it was before.

    Args:
        model: the model.
    """
    for name in ("penalty_starts", "penalty_importances"):
        anchors = getattr(model, name, None)
        if anchors is not None:
            untrack(model, anchors)
            delattr(model, name)
    for variable in pulled_variables(model):
        variable.regularizer = None


class _SquaredGradients(keras.optimizers.Optimizer):
    """Adds up squared gradients and leaves the variables as they are."""

    def __init__(self):
        super().__init__(learning_rate=0.0, name="squared_gradients")

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.sums = self.add_optimizer_variables(variables, "sum")

    def update_step(self, gradient, variable, learning_rate):
        total = self.sums[index_of_variable(self, variable)]
        self.assign_add(total, ops.cast(ops.square(gradient), total.dtype))


def fisher_diagonal(
    model: keras.Model, x: dict[str, np.ndarray], y: np.ndarray, loss: Any
) -> list[np.ndarray]:
    """The diagonal of the empirical Fisher information, dropout off.

    `F_i = mean over examples of (d loss / d w_i)^2`, the loss being the negative log-likelihood of
    the example's own label. Examples are taken one at a time.

    Args:
        model: the model. It has to be compiled anew afterwards.
        x: dict of arrays `(N, ...)`, its inputs.
        y: `(N,)` labels.
        loss: the loss of one example.

    Returns:
        list of float32 arrays, one for each trainable variable.
    """
    optimizer = _SquaredGradients()
    with _without_dropout(model):
        model.compile(optimizer, loss=loss)
        model.fit(x, y, batch_size=1, epochs=1, shuffle=False, verbose=0)
    return [ops.convert_to_numpy(total) / np.float32(len(y)) for total in optimizer.sums]


@contextlib.contextmanager
def _without_dropout(model: keras.Model) -> Iterator[None]:
    """Sets the rates to 0: `fit` overrides a `training=False` inside of a functional model."""
    layers = [one for one in layers_of(model) if isinstance(one, keras.layers.Dropout)]
    rates = [layer.rate for layer in layers]
    for layer in layers:
        layer.rate = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate


class FeatureDistillation(keras.layers.Layer):
    """Passes predictions through and adds `strength * mean (features - former features)^2`.

    The mean is over the tokens that are there and over the features.

    Args:
        strength: float.

    Call arguments:
        predictions: any tensor.
        features: `(B, S, D)`, of the model in training.
        former: `(B, S, D)`, of the pre-trained model.
        mask: `(B, S)`, 1 for tokens that are there.
    """

    def __init__(self, strength: float):
        super().__init__(dtype="float32", autocast=False)
        self.strength = strength

    def call(self, predictions, features, former, mask):
        gaps = ops.cast(features, "float32") - ops.cast(former, "float32")
        weights = ops.cast(mask, "float32")
        of_token = ops.mean(ops.square(gaps), axis=-1)
        self.add_loss(self.strength * ops.sum(of_token * weights) / ops.sum(weights))
        return predictions


def distil_from_start(classifier: keras.Model, strength: float) -> keras.Model:
    """The model to train in place of a classifier, so that its encoder's outputs stay.

    Learning without Forgetting keeps the former head's answers to the new inputs. A preset has no
    head, so the encoder's outputs are kept instead, by their mean squared change.

    Args:
        classifier: a `keras_hub.models.BertTextClassifier` with the pre-trained weights.
        strength: float. The factor of the change.

    Returns:
        A model that shares the classifier's variables and adds the penalty to its losses.

    Reference:
        [Learning without Forgetting](https://arxiv.org/abs/1606.09282).
    """
    backbone = classifier.backbone
    former = backbone.__class__.from_config(
        {**backbone.get_config(), "name": "former", "dropout": 0.0}
    )
    former.set_weights(backbone.get_weights())
    former.trainable = False
    inputs = backbone.input
    outputs = backbone(inputs)
    logits = classifier.output_dense(classifier.output_dropout(outputs["pooled_output"]))
    return keras.Model(
        inputs,
        FeatureDistillation(strength)(
            logits,
            outputs["sequence_output"],
            former(inputs)["sequence_output"],
            inputs["padding_mask"],
        ),
    )


def interpolate(start: Weights, end: Weights, share: float) -> Weights:
    """WiSE-FT: `(1 - share) * start + share * end`, weight by weight.

    Args:
        start: list of arrays, such as the pre-trained weights.
        end: list of arrays of the same shapes, such as the fine-tuned weights.
        share: float in [0, 1].

    Returns:
        list of arrays.

    Reference:
        [Robust fine-tuning of zero-shot models](https://arxiv.org/abs/2109.01903).

    Example:

    >>> interpolate([np.zeros(2)], [np.array([4.0, 8.0])], 0.25)
    [array([1., 2.])]
    """
    return [
        ((1 - share) * before + share * after).astype(after.dtype)
        for before, after in zip(start, end, strict=True)
    ]


def uniform_soup(members: Sequence[Weights]) -> Weights:
    """The mean of fine-tuned weights.

    Args:
        members: several lists of arrays.

    Returns:
        list of arrays.

    Reference:
        [Model soups](https://arxiv.org/abs/2203.05482).
    """
    return [
        np.mean(arrays, axis=0, dtype="float64").astype(arrays[0].dtype)
        for arrays in zip(*members, strict=True)
    ]


def greedy_soup(members: Sequence[Weights], score: Callable[[Weights], float]) -> Weights:
    """Adds the members to the soup from best to worst, where that does not lower the score.

    Args:
        members: several lists of arrays.
        score: from weights to a held-out score, higher being better.

    Returns:
        list of arrays.

    Reference:
        [Model soups](https://arxiv.org/abs/2203.05482), recipe 1.
    """
    scores = [score(member) for member in members]
    order = sorted(range(len(members)), key=lambda index: -scores[index])
    chosen, best = [members[order[0]]], scores[order[0]]
    for index in order[1:]:
        tried = score(uniform_soup([*chosen, members[index]]))
        if tried >= best:
            chosen.append(members[index])
            best = tried
    return uniform_soup(chosen)


def model_stock(start: Weights, members: Sequence[Weights]) -> Weights:
    """Model Stock: between the pre-trained weights and the mean of N fine-tuned ones.

    Array by array, with `cos` the mean cosine of the angles between the members' moves from the
    start: `t * mean + (1 - t) * start`, `t = N cos / (1 + (N - 1) cos)`, kept within [0, 1].

    Args:
        start: list of arrays, the pre-trained weights.
        members: at least two lists of arrays, fine-tuned from `start`.

    Returns:
        list of arrays.

    Raises:
        ValueError: there are fewer than two members.

    Reference:
        [Model Stock: All we need is just a few fine-tuned models]
        (https://arxiv.org/abs/2403.19522).
    """
    if len(members) < 2:
        raise ValueError(
            f"Model Stock must have at least two fine-tuned models. Received: {len(members)}"
        )
    pairs = zip(start, zip(*members, strict=True), strict=True)
    return [_stock_of_array(before, arrays) for before, arrays in pairs]


def _stock_of_array(start, arrays):
    number = len(arrays)
    moves = np.stack([(array - start).ravel().astype("float64") for array in arrays])
    norms = np.linalg.norm(moves, axis=1)
    if not norms.all():
        return start
    cosines = (moves @ moves.T) / np.outer(norms, norms)
    # At an angle above 90 degrees the share is 0, also where the moves cancel out.
    cosine = np.clip((cosines.sum() - number) / (number * (number - 1)), 0, 1)
    share = number * cosine / (1 + (number - 1) * cosine)
    mean = np.mean(arrays, axis=0, dtype="float64")
    return (share * mean + (1 - share) * start).astype(start.dtype)
