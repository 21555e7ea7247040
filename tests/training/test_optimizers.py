"""The optimizer of a weighting's own variables, for every kind of optimizer."""

import keras
import numpy as np
import pytest
from networks import two_headed_data, two_headed_model, two_headed_network

import keras_taskrobust as ktr
from keras_taskrobust.training.optimizers import ScaledAdamW, TwoRateOptimizer


class Plain(keras.optimizers.SGD):
    """Of a user's own, with a constructor that takes its rate alone."""

    def __init__(self, learning_rate=0.1, name="plain"):
        super().__init__(learning_rate=learning_rate, name=name)

    def get_config(self):
        return {"name": self.name, "learning_rate": float(self.learning_rate)}


def scaled_adamw():
    number = len(two_headed_network().trainable_variables)
    return ScaledAdamW(0.1, multipliers=[0.5] * number, weight_decays=[0.9] * number)


@pytest.mark.parametrize("make", [Plain, scaled_adamw])
def test_an_optimizer_without_a_weight_decay_in_its_config(make):
    """The weighting's variables take the step that bare Keras would take, without decay."""
    weighting = ktr.weighting.UncertaintyWeighting(learning_rate=0.125)
    model = two_headed_model(optimizer=make(), weighting=weighting)
    weighting.log_variances.assign([1.0, -1.0])
    x, y = two_headed_data()
    logs = model.train_on_batch(x, y, return_dict=True)
    losses = np.array([logs["level_loss"], logs["kind_loss"]])
    slope = 1.0 - np.exp([-1.0, 1.0]) * losses
    step = slope if make is Plain else np.sign(slope)
    moved = keras.ops.convert_to_numpy(weighting.log_variances)
    assert moved == pytest.approx(np.array([1.0, -1.0]) - 0.125 * step, rel=1e-3)


@pytest.mark.parametrize("name", ["Muon", "Lion", "SGD", "Adafactor"])
def test_no_decay_of_any_name_is_left(name):
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.1, weight_decay=0.5)
    variable = keras.Variable([2.0])
    second = TwoRateOptimizer(optimizer, [variable])._second.get_config()
    decays = {key: value for key, value in second.items() if key.endswith("weight_decay")}
    assert decays
    assert not any(decays.values())
