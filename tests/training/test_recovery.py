"""After a call that failed, a model has the weights of before, and right data train it."""

import contextlib
import itertools
import signal

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from networks import cross_entropy, two_headed_data, two_headed_model

import keras_taskrobust as ktr

BACKEND = keras.backend.backend()
X, Y = two_headed_data(8)
EXCEPTIONS = (ValueError, TypeError, RuntimeError, MemoryError, KeyboardInterrupt, SystemExit)


class Raising:
    """A loss, metric or callback that raises what it was given."""

    error = None

    def __call__(self, y_true, y_pred):
        if self.error is not None:
            raise self.error("of the test")
        return keras.ops.mean(keras.ops.square(keras.ops.subtract(y_true, y_pred)), axis=-1)


def network():
    """With each kind of state that a forward pass moves, and losses of its own."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, activation="tanh", kernel_regularizer="l2")(inputs)
    x = keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(x))
    x = keras.layers.ActivityRegularization(l2=0.01)(x)
    heads = {"level": keras.layers.Dense(1, name="level"), "kind": keras.layers.Dense(3)}
    return keras.Model(inputs, {name: head(x) for name, head in heads.items()})


def state_of(model):
    variables = [*model.weights, *model._seed_states()]
    if model.optimizer.built:
        variables += model.optimizer.variables
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


@contextlib.contextmanager
def nothing_changes(model, errors):
    former = [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]
    states = state_of(model) if model.optimizer.built else None
    with pytest.raises(errors):
        yield
    for kept, now in zip(former if states is None else states, state_of(model), strict=False):
        np.testing.assert_array_equal(kept, now)


MISTAKES = {
    "targets of another shape": {"y": {**Y, "kind": np.zeros((8, 7), "int32")}},
    "no targets for a task": {"y": {"kind": Y["kind"]}},
    "weights of another shape": {"sample_weight": np.ones((8, 2, 3), "float32")},
    "inputs of another shape": {"x": X[:, :2]},
}


@pytest.mark.parametrize("examples", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_a_mistake_in_the_first_or_a_later_step_changes_nothing(examples):
    loss, metric, body = Raising(), Raising(), network()
    start = body.get_weights()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @example("minimax", "fit", "targets of another shape", ValueError, True)
    @given(
        weighting=st.sampled_from(["minimax", "uncertainty", "upgrad"]),
        method=st.sampled_from(["fit", "evaluate", "train_on_batch", "test_on_batch"]),
        what=st.sampled_from([*MISTAKES, "loss", "metric"]),
        error=st.sampled_from(EXCEPTIONS),
        is_first=st.booleans(),
    )
    def check(weighting, method, what, error, is_first):
        body.set_weights(start)
        model = two_headed_model(
            body,
            optimizer="adam",
            loss={"level": loss, "kind": cross_entropy},
            metrics={"level": metric},
            weighting=weighting,
        )
        if not is_first:
            model.train_on_batch(X[:4], {name: labels[:4] for name, labels in Y.items()})
        arguments = {"x": X, "y": Y, **MISTAKES.get(what, {})}
        loss.error, metric.error = (error if what == name else None for name in ("loss", "metric"))
        try:
            with nothing_changes(model, BaseException):
                getattr(model, method)(**arguments)
        finally:
            loss.error = metric.error = None
        logs = model.train_on_batch(X, Y, return_dict=True)
        assert np.isfinite(logs["loss"])

    check()


class Interrupted(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt

    on_predict_batch_end = on_test_batch_end


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_an_interrupt_between_batches_changes_nothing(method):
    model = two_headed_model(network())
    data = (X, Y) if method == "evaluate" else (X,)
    with nothing_changes(model, KeyboardInterrupt):
        getattr(model, method)(*data, verbose=0, callbacks=[Interrupted()])
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()


def test_data_that_fail_within_an_epoch_leave_the_steps_before():
    def batches(number):
        for _ in range(number):
            yield X, Y
        raise OSError("a file is gone")

    body = keras.models.clone_model(network())
    start, results = body.get_weights(), []
    for number in (0, 2):
        body.set_weights(start)
        model = two_headed_model(body, optimizer=keras.optimizers.SGD(0.0))
        with pytest.raises(Exception, match="gone"):  # TensorFlow has a class of its own.
            model.fit(batches(number), steps_per_epoch=5, shuffle=False, verbose=0)
        results.append(body.get_weights())
    means = [weights[2 + 2] for weights in (start, *results)]
    np.testing.assert_array_equal(means[0], means[1])
    # Two steps moved the moving mean of the batch normalisation.
    assert not np.array_equal(means[1], means[2])
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()


@pytest.mark.skipif(BACKEND == "jax", reason="JAX cannot fail in a label out of range")
@pytest.mark.parametrize("weighting", ["minimax", "upgrad"])
def test_an_error_of_the_device_changes_nothing(weighting):
    if weighting == "minimax":
        schedule = ktr.weighting.SquareRootSchedule()
        weighting = ktr.weighting.SoftmaxWeightedLoss(schedule, loss_momentum=0.5)
    model = two_headed_model(network(), optimizer="adam", weighting=weighting)
    model.train_on_batch(X, Y)
    with nothing_changes(model, Exception):
        model.train_on_batch(X, {**Y, "kind": np.full(8, 99, "int32")})
    model.train_on_batch(X, Y)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX deletes the state that a step is given")
@pytest.mark.parametrize("weighting", ["minimax", "upgrad"])
def test_an_error_inside_the_first_compiled_step_changes_nothing(weighting):
    import jax

    class Checked:
        """Labels that the host looks at while the compiled step runs."""

        fails = True

        def __call__(self, y_true, y_pred):
            shape = jax.ShapeDtypeStruct(y_true.shape, y_true.dtype)
            labels = jax.pure_callback(self.look, shape, y_true, vmap_method="sequential")
            return keras.ops.mean(keras.ops.square(labels - y_pred), axis=-1)

        def look(self, labels):
            if self.fails:
                raise RuntimeError("of the device")
            return np.asarray(labels)

    loss = Checked()
    model = ktr.MinimaxModel(network())
    model.compile("adam", {"level": loss, "kind": cross_entropy}, weighting=weighting)
    for _ in range(2):
        with nothing_changes(model, Exception):
            model.fit(X, Y, batch_size=4, verbose=0)
    before = model.predict(X, verbose=0)["level"]
    loss.fails = False
    model.fit(X, Y, batch_size=4, verbose=0)
    assert not np.array_equal(model.predict(X, verbose=0)["level"], before)


def test_metrics_forget_the_labels_of_a_call_that_failed():
    one_hot = {**Y, "kind": np.eye(3, dtype="float32")[Y["kind"]]}
    model = two_headed_model(network(), metrics={"kind": "accuracy"})
    with pytest.raises(Exception, match=".*"):
        model.evaluate(X, one_hot, verbose=0)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    kinds = model.predict(X, verbose=0)["kind"].argmax(-1)
    (accuracy,) = (value for name, value in logs.items() if name.endswith("accuracy"))
    assert accuracy == pytest.approx((kinds == Y["kind"]).mean())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the other backends have no graph of a branch")
def test_a_layer_that_assigns_in_a_branch_trains():
    class Counting(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            import tensorflow as tf

            def count():
                self.calls.assign_add(1.0)
                return inputs * 1.0

            return tf.cond(tf.reduce_sum(inputs) < np.inf, count, lambda: inputs)

    inputs = keras.Input((5,))
    counting = Counting()
    outputs = {"level": keras.layers.Dense(1, name="level")(counting(inputs))}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile("sgd", {"level": "mse"})
    model.fit(X, {"level": Y["level"]}, batch_size=4, epochs=2, verbose=0)
    assert float(keras.ops.convert_to_numpy(counting.calls)) == 4.0


@pytest.mark.skipif(BACKEND != "jax", reason="the other backends keep their variables' values")
def test_an_interrupt_after_a_step_keeps_what_it_made():
    import _thread

    model = two_headed_model(network())
    model.fit(X, Y, batch_size=4, verbose=0)
    function = model.train_function
    numbers = itertools.count()

    def interrupted(state, iterator):
        result = function(state, iterator)
        if next(numbers) == 1:
            _thread.interrupt_main()
        return result

    model.train_function = interrupted
    # A job in the background ignores interrupts.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, batch_size=1, verbose=0)
    finally:
        signal.signal(signal.SIGINT, former)
    assert int(model.optimizer.iterations.numpy()) == 4
    assert np.isfinite(model.predict(X, verbose=0)["level"]).all()
