"""Each task's gradients are taken once, from its own output on: against NumPy, and by counting."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_taskrobust as ktr

pytestmark = pytest.mark.usefixtures("passes")

BACKEND = keras.backend.backend()
BATCH = 6


def dense(name, units=1, **arguments):
    return keras.layers.Dense(units, use_bias=False, name=name, **arguments)


def compiled(inputs, outputs, weighting="mgda", **arguments):
    """A `MinimaxModel` whose gradients can be read off a step: SGD at rate 1."""
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    arguments = {"loss": dict.fromkeys(outputs, "mse"), **arguments}
    model.compile(keras.optimizers.SGD(1.0), weighting=weighting, **arguments)
    return model


def data_for(model, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(BATCH, 4)).astype("float32")
    shapes = {name: tensor.shape[1:] for name, tensor in model.network.output.items()}
    return x, {n: rng.normal(size=(BATCH, *s)).astype("float32") for n, s in shapes.items()}


def weights_of(model):
    return {w.path: ops.convert_to_numpy(w).copy() for w in model.network.trainable_variables}


def gradients_of_step(model, x, y):
    """What a step took from every variable, by its path; its logs."""
    before = weights_of(model)
    logs = model.train_on_batch(x, y, return_dict=True)
    return {path: before[path] - value for path, value in weights_of(model).items()}, logs


class SumOfTasks(ktr.weighting.GradientWeighting):
    """A direction in which one task's gradients cannot stand for another's."""

    def combine(self, tasks):
        factors = ops.reshape(ops.arange(1.0, tasks.losses.shape[0] + 1.0), (-1, 1))
        ones = ops.ones_like(tasks.losses)
        direction = ops.sum(factors * tasks.gradients * ops.abs(tasks.gradients), axis=0)
        return ktr.weighting.TaskUpdate(ones, 3.0 * ones, direction)


def direction_of(gradients):
    return sum((k + 1) * g * np.abs(g) for k, g in enumerate(gradients))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_an_output_that_another_is_made_of():
    inputs = keras.Input((4,))
    first = dense("first", 3)(inputs)
    model = compiled(inputs, {"first": first, "second": dense("second", 2)(first)}, SumOfTasks())
    x, y = data_for(model)
    a, b = (w.astype("float64") for w in weights_of(model).values())
    error, second_error = x @ a - y["first"], x @ a @ b - y["second"]
    slope, second_slope = 2 * error / error.size, 2 * second_error / second_error.size
    found, _ = gradients_of_step(model, x, y)
    assert_close(found["first/kernel"], direction_of([x.T @ slope, x.T @ second_slope @ b.T]))
    assert_close(found["second/kernel"], 3 * (x @ a).T @ second_slope)


def test_one_tensor_as_two_outputs():
    inputs = keras.Input((4,))
    hidden = dense("shared", 3)(inputs)
    model = compiled(inputs, {"a": hidden, "b": hidden}, SumOfTasks())
    x, y = data_for(model)
    made = x.astype("float64") @ weights_of(model)["shared/kernel"]
    slopes = [2 * (made - y[name]) / made.size for name in ("a", "b")]
    found, _ = gradients_of_step(model, x, y)
    assert_close(found["shared/kernel"], direction_of([x.T @ slope for slope in slopes]))


def test_a_head_that_reads_the_trunk_at_two_depths():
    inputs = keras.Input((4,))
    low = dense("low", 3)(inputs)
    high = dense("high", 3)(low)
    both = keras.layers.Concatenate()([low, high])
    outputs = {"a": dense("a")(both), "b": dense("b")(high), "c": dense("c")(low)}
    model = compiled(inputs, outputs, SumOfTasks())
    x, y = data_for(model)
    w = {path.split("/")[0]: v.astype("float64") for path, v in weights_of(model).items()}
    made = x @ w["low"]
    read = {"a": np.hstack([made, made @ w["high"]]), "b": made @ w["high"], "c": made}
    slopes = {n: 2 * (r @ w[n] - y[n]) / BATCH @ w[n].T for n, r in read.items()}
    nothing = np.zeros_like(made)
    by_low = [slopes["a"][:, :3], nothing, slopes["c"]]
    by_high = [slopes["a"][:, 3:], slopes["b"], nothing]
    by_low = [low + high @ w["high"].T for low, high in zip(by_low, by_high, strict=True)]
    found, _ = gradients_of_step(model, x, y)
    assert_close(found["high/kernel"], direction_of([made.T @ slope for slope in by_high]))
    assert_close(found["low/kernel"], direction_of([x.T @ slope for slope in by_low]))


@pytest.mark.parametrize("place", ["shared", "representation"])
def test_an_auxiliary_output_comes_on_top(place):
    inputs = keras.Input((4,))
    hidden = dense("shared", 3)(inputs)
    outputs = {name: dense(name)(hidden) for name in ("a", "b", "aside")}
    model = compiled(
        inputs,
        outputs,
        SumOfTasks() if place == "shared" else "uniform",
        loss={"a": "mse", "b": "mse"},
        auxiliary={"aside": "mse"},
        gradients_at=place,
        representation="shared" if place == "representation" else None,
        gradient_diagnostics=True,
    )
    x, y = data_for(model)
    w = {path: value.astype("float64") for path, value in weights_of(model).items()}
    made = x @ w["shared/kernel"]
    slopes = {n: 2 * (made @ w[f"{n}/kernel"] - y[n]) / BATCH for n in outputs}
    by_shared = {n: x.T @ slope @ w[f"{n}/kernel"].T for n, slope in slopes.items()}
    found, _ = gradients_of_step(model, x, y)
    own = 3.0 if place == "shared" else 0.5
    both = [by_shared["a"], by_shared["b"]]
    expected = direction_of(both) if place == "shared" else 0.5 * sum(both)
    assert_close(found["shared/kernel"], expected + by_shared["aside"])
    for name in ("a", "b"):
        assert_close(found[f"{name}/kernel"], own * made.T @ slopes[name])
    assert_close(found["aside/kernel"], made.T @ slopes["aside"])


def test_the_embedding_of_one_task():
    inputs = {
        "x": keras.Input((4,), name="x"),
        "word": keras.Input((1,), dtype="int32", name="word"),
    }
    hidden = dense("shared", 3)(inputs["x"])
    word = keras.layers.Flatten()(keras.layers.Embedding(5, 1, name="words")(inputs["word"]))
    outputs = {"a": dense("a")(hidden), "b": keras.layers.Add(name="b")([dense("c")(hidden), word])}
    model = compiled(inputs, outputs)
    x, y = data_for(model)
    words = np.array([[0], [1], [1], [4], [4], [4]], "int32")
    w = {path: value.astype("float64") for path, value in weights_of(model).items()}
    made = x @ w["shared/kernel"] @ w["c/kernel"] + w["words/embeddings"][words[:, 0]]
    expected = np.zeros((5, 1))
    np.add.at(expected, words[:, 0], 2 * (made - y["b"]) / BATCH)
    found, _ = gradients_of_step(model, {"x": x, "word": words}, y)
    assert_close(found["words/embeddings"], expected)


def test_a_named_place_that_no_task_reaches():
    inputs = keras.Input((4,))
    hidden = dense("shared", 3)(inputs)
    outputs = {name: dense(name)(hidden) for name in ("a", "b", "unused")}
    arguments = {"loss": {"a": "mse", "b": "mse", "unused": None}, "weighting": SumOfTasks()}
    model = compiled(inputs, outputs, gradients_at=["shared", "unused"], **arguments)
    x, y = data_for(model)
    found, _ = gradients_of_step(model, x, y)
    assert np.any(found["shared/kernel"] != 0)
    assert np.all(found["unused/kernel"] == 0)


@pytest.mark.parametrize("weighting", ["uniform", "mgda"])
def test_a_keras_mask_excludes_elements(weighting):
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    model = compiled(inputs, {name: dense(name)(embedded) for name in ("a", "b")}, weighting)
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], "int32")
    made = {n: ops.convert_to_numpy(v)[..., 0] for n, v in model.network(x).items()}
    logs = model.train_on_batch(x, {name: np.ones((2, 4, 1)) for name in made}, return_dict=True)
    for name, values in made.items():
        assert logs[f"{name}_loss"] == pytest.approx(np.mean((values[x > 0] - 1) ** 2), rel=1e-5)


class Counting(keras.layers.Layer):
    """The identity, which counts how often a gradient passes it."""

    passes = 0

    def call(self, inputs):
        @ops.custom_gradient
        def identity(x):
            def gradient(*args, upstream=None):
                self.passes += 1
                return args[0] if upstream is None else upstream

            return x, gradient

        return identity(inputs)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX asks for a custom gradient when it is defined")
def test_a_step_goes_once_through_each_head():
    inputs = keras.Input((4,))
    hidden = dense("shared", 3)(inputs)
    counting = [Counting() for _ in range(4)]
    outputs = {
        f"task_{k}": keras.layers.Dense(1)(layer(hidden)) for k, layer in enumerate(counting)
    }
    model = compiled(inputs, outputs, run_eagerly=True)
    x, y = data_for(model)
    model.train_on_batch(x, y)
    before = [layer.passes for layer in counting]
    model.train_on_batch(x, y)
    assert [layer.passes - n for layer, n in zip(counting, before, strict=True)] == [1, 1, 1, 1]


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends compile a step")
@pytest.mark.parametrize(("chunk", "expected"), [(None, 1), (3, 2), (1, 4)])
def test_tasks_go_through_the_trunk_together(passes, chunk, expected):
    inputs = keras.Input((4,))
    trunk = Counting()
    hidden = trunk(dense("shared", 3)(inputs))
    outputs = {f"task_{k}": keras.layers.Dense(1)(hidden) for k in range(4)}
    model = compiled(inputs, outputs, task_chunk=chunk)
    x, y = data_for(model)
    model.train_on_batch(x, y)
    before = trunk.passes
    model.train_on_batch(x, y)
    assert trunk.passes - before == (expected if passes == "together" else 4)


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends trace a step")
def test_a_layer_that_bears_no_vmap_is_told_the_way_out(passes):
    import torch

    class ReadsItsGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float(gradient.sum().item() < 1e9)

    class Layer(keras.layers.Layer):
        def call(self, inputs):
            return ReadsItsGradient.apply(inputs)

    inputs = keras.Input((4,))
    hidden = Layer()(dense("shared", 3)(inputs))
    outputs = {name: dense(name)(hidden) for name in ("a", "b")}
    model = compiled(inputs, outputs)
    x, y = data_for(model)
    if passes == "together":
        with pytest.raises(RuntimeError) as caught:
            model.train_on_batch(x, y)
        assert "`compile(task_chunk=1)` takes one task at a time" in caught.value.__notes__[0]
    compiled(inputs, outputs, task_chunk=1).train_on_batch(x, y)


@pytest.mark.skipif(BACKEND != "jax", reason="counts what XLA compiled")
@pytest.mark.parametrize("place", ["shared", "representation"])
def test_operations_grow_with_the_heads_as_those_of_the_sum_do(place):
    import jax

    def operations(weighting):
        inputs = keras.Input((4,))
        hidden = dense("shared", 64)(inputs)
        heads = {f"task_{k}": dense(f"wide_{k}", 64)(hidden) for k in range(8)}
        outputs = {name: dense(name)(wide) for name, wide in heads.items()}
        at = {"gradients_at": place}
        if place == "representation":
            at["representation"] = "shared"
        model = compiled(inputs, outputs, weighting, **(at if weighting == "mgda" else {}))
        x, y = data_for(model)
        model.train_on_batch(x, y)
        variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = keras.tree.map_structure(lambda variable: variable.value, variables)
        step = jax.jit(lambda state, data: model.train_step(state, data))
        return step.lower(state, (x, y)).compile().cost_analysis()["flops"]

    assert operations("mgda") < 1.2 * operations("uniform")
