"""An optimizer for the network, and a second one for the weighting's own variables."""

import keras
from keras import ops, optimizers

from keras_taskrobust.training.keras_internals import (
    OptimizerWithMain,
    index_of_variable,
    layers_of,
)
from keras_taskrobust.weighting.base import PACKAGE


def build_optimizer(model: keras.Model) -> None:
    """Creates the optimizer's variables, where the model has all of its own.

    A step that creates variables is traced twice by TensorFlow. Keras sees to it on JAX and
    PyTorch.
    """
    if not model.optimizer.built and all(layer.built for layer in layers_of(model)):
        model.optimizer.build(model.trainable_variables)


def looks_at_gradients(optimizer: optimizers.Optimizer) -> bool:
    """Whether an optimizer clips gradients, or looks for some that are not finite."""
    if isinstance(optimizer, TwoRateOptimizer):
        return looks_at_gradients(optimizer.main)
    if isinstance(optimizer, optimizers.LossScaleOptimizer | optimizers.MultiOptimizer):
        return True
    limits = optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue
    return any(limit is not None for limit in limits)


class TwoRateOptimizer(OptimizerWithMain):
    """Gives the weighting's trainable variables a rate of their own.

    The second optimizer is of the user's kind, without weight decay and outside gradient clipping.
    Everything else is that of the user's optimizer: learning-rate schedules and callbacks,
    `iterations`, gradient accumulation, loss scaling.

    Args:
        optimizer: the user's optimizer, for the network.
        variables: the weighting's trainable variables.
        learning_rate: float, or `None` for the user's rate.
    """

    def __init__(self, optimizer, variables, learning_rate=None):
        if isinstance(optimizer, optimizers.MultiOptimizer):
            raise ValueError(
                "`optimizer` must not be a MultiOptimizer, since this weighting has trainable "
                f"variables, which get their own optimizer. Received: optimizer={optimizer}"
            )
        copy = _undecayed_copy(optimizer, learning_rate)
        selected = {id(variable) for variable in variables}
        super().__init__(
            lambda variable: copy if id(variable) in selected else optimizer,
            loss_scale_factor=optimizer.loss_scale_factor,
            name="two_rate_optimizer",
        )
        self.main = optimizer
        self._second = copy
        self._own_rate = learning_rate is not None

    @property
    def learning_rate(self):
        """The rate of the user's optimizer."""
        return self.main.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.main.learning_rate = value
        if not self._own_rate:
            self._second.learning_rate = value

    @property
    def optimizers(self):
        """Hidden: Keras's learning-rate callbacks would set the rate of both."""
        raise AttributeError("The learning rate is that of the user's optimizer.")

    @property
    def iterations(self):
        """The updates made, as the user's optimizer counts them."""
        return self.main.iterations

    def get_config(self):
        """The user's optimizer's: a model is compiled again from that."""
        return self.main.get_config()


def _undecayed_copy(optimizer, learning_rate):
    kind, config = type(optimizer), optimizer.get_config()
    if isinstance(optimizer, ScaledAdamW):
        # Its settings by variable are for the variables of the network.
        kind = optimizers.Adam
        del config["multipliers"], config["weight_decays"]
    undone = {"clipnorm": None, "clipvalue": None, "global_clipnorm": None, "use_ema": False}
    config.update({key: value for key, value in undone.items() if key in config})
    for key, value in config.items():
        if key.endswith("weight_decay") and value is not None:
            config[key] = 0.0
    config["name"] = f"{optimizer.name}_weighting"
    if learning_rate is not None:
        config["learning_rate"] = float(learning_rate)
    return kind.from_config(config)


def with_weighting_rate(optimizer, weighting):
    """Wraps `optimizer` if `weighting` has trainable variables; else returns it.

    Args:
        optimizer: a Keras optimizer, possibly a `LossScaleOptimizer`.
        weighting: a built `TaskWeighting`.

    Returns:
        A Keras optimizer.
    """
    variables = weighting.trainable_variables
    if not variables:
        return optimizer
    if isinstance(optimizer, optimizers.LossScaleOptimizer):
        inner = with_weighting_rate(optimizer.inner_optimizer, weighting)
        return _with_scaling_of(optimizer, inner)
    return TwoRateOptimizer(optimizer, variables, weighting.learning_rate)


def without_weighting_rate(optimizer):
    """The optimizer that `with_weighting_rate` wrapped; one that it did not wrap as it is."""
    if isinstance(optimizer, TwoRateOptimizer):
        return optimizer.main
    if isinstance(optimizer, optimizers.LossScaleOptimizer):
        inner = without_weighting_rate(optimizer.inner_optimizer)
        if inner is not optimizer.inner_optimizer:
            return _with_scaling_of(optimizer, inner)
    return optimizer


def _with_scaling_of(optimizer, inner):
    return optimizers.LossScaleOptimizer(
        inner,
        initial_scale=optimizer.initial_scale,
        dynamic_growth_steps=optimizer.dynamic_growth_steps,
    )


@keras.saving.register_keras_serializable(PACKAGE)
class ScaledAdamW(optimizers.Adam):
    """AdamW with a learning rate and a weight decay of each variable's own.

    Variable i takes AdamW's step at the rate `multipliers[i] * learning_rate`, with
    `weight_decays[i]`: `w -= rate * (weight_decay * w + m / (sqrt(v) + epsilon))`.

    Args:
        learning_rate: float or schedule.
        multipliers: sequence of floats, one for each trainable variable of the model, in order.
        weight_decays: sequence of floats, likewise.
        **kwargs: those of `keras.optimizers.Adam`, without `weight_decay`.

    Raises:
        ValueError: at the first step, if the variables are not as many.

    Example:

    >>> variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    >>> optimizer = ScaledAdamW(0.1, multipliers=[1.0, 0.5], weight_decays=[0.0, 0.0])
    >>> optimizer.apply([ops.ones(1), ops.ones(1)], variables)
    >>> [round(variable.numpy().item(), 4) for variable in variables]
    [0.9, 0.95]
    """

    def __init__(self, learning_rate, multipliers, weight_decays, name="scaled_adamw", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.multipliers = tuple(multipliers)
        self.weight_decays = tuple(weight_decays)

    def build(self, variables):
        number = len(variables)
        if (len(self.multipliers), len(self.weight_decays)) != (number, number):
            raise ValueError(
                f"`multipliers` and `weight_decays` must have {number} values, one for each "
                f"trainable variable. Received: {len(self.multipliers)} and "
                f"{len(self.weight_decays)}"
            )
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        index = index_of_variable(self, variable)
        rate = ops.multiply(learning_rate, self.multipliers[index])
        if self.weight_decays[index]:
            decay = ops.cast(ops.multiply(rate, self.weight_decays[index]), variable.dtype)
            self.assign_sub(variable, ops.multiply(variable, decay))
        super().update_step(gradient, variable, rate)

    def get_config(self):
        config = super().get_config()
        config.pop("weight_decay")
        return {
            **config,
            "multipliers": list(self.multipliers),
            "weight_decays": list(self.weight_decays),
        }
