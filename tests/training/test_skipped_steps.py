"""Steps with a non-finite loss or gradient: raised for, or skipped as if they had not been."""

import keras
import numpy as np
import pytest
from networks import RUN_EAGERLY, cross_entropy, two_headed_data

import keras_taskrobust as ktr
from keras_taskrobust.training.skipped_steps import MOST_IN_A_ROW

BACKEND = keras.backend.backend()
X, Y = two_headed_data(32)


def root_of_product(y_true, y_pred):
    """Its gradient at targets of 0 is NaN; itself it is not."""
    return keras.ops.mean(keras.ops.sqrt(keras.ops.square(y_true * y_pred)), axis=-1)


def network():
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4, activation="tanh")(inputs))
    x = keras.layers.Dropout(0.3, seed=7)(x)
    return keras.Model(
        inputs,
        {"level": keras.layers.Dense(1)(x), "kind": keras.layers.Dense(3)(x)},
    )


def compiled(body, **arguments):
    model = ktr.MinimaxModel(body)
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    arguments = {"optimizer": optimizer, "run_eagerly": RUN_EAGERLY, **arguments}
    loss = {"level": root_of_product, "kind": cross_entropy}
    model.compile(loss=loss, metrics={"level": "mae"}, **arguments)
    return model


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self._batches = list(batches)

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return self._batches[index]


def fit(model, batches):
    return model.fit(Batches(batches), shuffle=False, verbose=0).history


def batches(breaks):
    """Batches of 4, some of them as `breaks` makes them: `{index: how}`."""
    for index in range(8):
        rows = slice(4 * index, 4 * index + 4)
        x, y = X[rows].copy(), {name: labels[rows].copy() for name, labels in Y.items()}
        if breaks.get(index) == "input":
            x[1] = np.nan
        elif breaks.get(index) == "loss":
            y["level"][2] = np.inf
        elif breaks.get(index) == "gradient":
            y["level"][0] = 0.0
        elif breaks.get(index) == "left out":
            continue
        yield x, y


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    counts = model.skipped_steps.counts
    return [keras.ops.convert_to_numpy(v) for v in variables if v is not counts]


def trained(breaks, start, **arguments):
    keras.utils.set_random_seed(3)
    model = compiled(network(), on_nonfinite="skip", **arguments)
    model.network.set_weights(start)
    history = fit(model, batches(breaks))
    return {name: values[0] for name, values in history.items()}, state_of(model)


WEIGHTINGS = [
    "minimax",
    "upgrad",
    *(
        pytest.param(w, marks=pytest.mark.slow)
        for w in ("uncertainty", "group_dro", "famo", "gradnorm", "dwa")
    ),
]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_skipped_step_changes_nothing(weighting):
    start = network().get_weights()
    breaks = {1: "input", 2: "gradient", 5: "loss"}
    logs, state = trained(breaks, start, weighting=weighting)
    without, expected = trained(dict.fromkeys(breaks, "left out"), start, weighting=weighting)
    assert logs.pop("skipped_steps") == 3
    assert without.pop("skipped_steps") == 0
    assert logs == without
    for now, wanted in zip(state, expected, strict=True):
        np.testing.assert_array_equal(now, wanted)
        assert np.isfinite(now).all()


@pytest.mark.skipif(BACKEND == "torch", reason="eager")
def test_a_compiled_step_is_skipped():
    start = network().get_weights()
    compiled_as = {"run_eagerly": False, "jit_compile": True}
    logs, state = trained({3: "gradient"}, start, **compiled_as)
    _, expected = trained({3: "left out"}, start, **compiled_as)
    assert logs["skipped_steps"] == 1
    for now, wanted in zip(state, expected, strict=True):
        np.testing.assert_array_equal(now, wanted)


def test_a_broken_step_raises_with_its_task_and_the_model_of_before():
    model = compiled(network(), on_nonfinite="raise")
    fit(model, batches({3: "left out"}))
    before = model.get_weights()
    given = list(batches({3: "loss"}))
    with pytest.raises(FloatingPointError, match="loss of task 'level', 1 step in a row"):
        fit(model, given[3:])
    for now, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, wanted)
    with pytest.raises(FloatingPointError, match="non-finite gradients"):
        model.train_on_batch(*next(iter(batches({0: "gradient"}))))
    logs = model.train_on_batch(*given[0], return_dict=True)
    assert np.isfinite(logs["loss"])
    assert "skipped_steps" not in model.evaluate(X, Y, verbose=0, return_dict=True)


def test_too_many_in_a_row_raise_over_the_ends_of_epochs():
    model = compiled(network(), on_nonfinite="skip")
    broken = next(iter(batches({0: "input"})))
    for _ in range(MOST_IN_A_ROW - 1):
        fit(model, [broken])
    fit(model, batches({}))
    for _ in range(MOST_IN_A_ROW - 1):
        fit(model, [broken])
    with pytest.raises(FloatingPointError, match=f"{MOST_IN_A_ROW} steps in a row"):
        fit(model, [broken])


def test_the_scale_of_a_loss_is_left_to_its_optimizer():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=3e38)
    model = compiled(network(), on_nonfinite="skip", optimizer=optimizer)
    history = fit(model, batches({}))
    assert history["skipped_steps"] == [0]
    assert float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) < 3e38


def test_another_word_is_refused():
    with pytest.raises(ValueError, match='must be "raise", "skip" or None. Received: \'stop\''):
        compiled(network(), on_nonfinite="stop")
