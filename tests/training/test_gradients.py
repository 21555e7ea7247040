"""Every weight gets what it should of the tasks' gradients: against a closed form in NumPy.

Three tasks on a linear network: `a` and `b` read `middle(encoder(x))`, `c` reads `encoder(x)`.
"""

import keras
import numpy as np
import pytest
from keras import ops
from marks import slow

import keras_taskrobust as ktr
from keras_taskrobust.training.backends import backend

pytestmark = pytest.mark.usefixtures("passes")

TASKS = ("a", "b", "c")
DECAY = 0.05
SHAPES = {"encoder": (4, 3), "middle": (3, 5), "a": (5, 1), "b": (5, 1), "c": (3, 1)}


@keras.saving.register_keras_serializable("tests")
class FromGramian(ktr.weighting.GramianWeighting):
    """Weights that show every entry of the Gramian."""

    def combine(self, tasks):
        mixed = ops.sum(tasks.gramian * ops.reshape(ops.arange(1.0, 4.0), (1, 3)), axis=1)
        return ktr.weighting.TaskUpdate(mixed / ops.sum(ops.diagonal(tasks.gramian)))


class GramianWeighted(FromGramian):
    head_gradients = "weighted"


@keras.saving.register_keras_serializable("tests")
class FromGradients(ktr.weighting.GradientWeighting):
    """A direction that shows every element, outside the gradients' span."""

    def combine(self, tasks):
        present = ops.cast(tasks.present, "float32")
        direction = ops.sum(tasks.gradients * ops.abs(tasks.gradients), axis=0)
        return ktr.weighting.TaskUpdate(2.0 * present, 3.0 * present, direction)


def mixed_weights(gramian):
    return gramian @ [1.0, 2.0, 3.0] / np.trace(gramian)


def make_weights(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=s).astype("float32") for name, s in SHAPES.items()}


def make_data(batch=6, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, 4)).astype("float32")
    return x, {name: rng.normal(size=(batch, 1)).astype("float32") for name in TASKS}


def make_model(weights=None, dtype=None, **compile_arguments):
    def dense(name, **arguments):
        return keras.layers.Dense(
            SHAPES[name][1], use_bias=False, name=name, dtype=dtype, **arguments
        )

    inputs = keras.Input((4,))
    encoded = dense("encoder", kernel_regularizer=keras.regularizers.L2(DECAY))(inputs)
    middle = dense("middle")(encoded)
    outputs = {"a": dense("a")(middle), "b": dense("b")(middle), "c": dense("c")(encoded)}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    for name, value in (weights or make_weights()).items():
        model.network.get_layer(name).kernel.assign(value)
    arguments = {"optimizer": keras.optimizers.SGD(1.0), "loss": dict.fromkeys(TASKS, "mse")}
    model.compile(**{**arguments, **compile_arguments})
    return model


class Reference:
    """Losses and gradients in float64; `by_layer[name]` is `(3, ...)`, `at` the representations."""

    def __init__(self, weights, x, y):
        w = {name: value.astype("float64") for name, value in weights.items()}
        self.weights, self.x, batch = w, x.astype("float64"), len(x)
        self.z = self.x @ w["encoder"]
        self.h = self.z @ w["middle"]
        self.by_layer = {name: np.zeros((3, *shape)) for name, shape in SHAPES.items()}
        self.at = {"encoder": np.zeros((3, batch, 3)), "middle": np.zeros((3, batch, 5))}
        self.losses = np.zeros(3)
        for k, name in enumerate(TASKS):
            source = self.z if name == "c" else self.h
            error = source @ w[name] - y[name]
            self.losses[k] = np.mean(error**2)
            slope = 2 * error / batch
            self.by_layer[name][k] = source.T @ slope
            if name == "c":
                self.at["encoder"][k] = slope @ w[name].T
            else:
                self.at["middle"][k] = slope @ w[name].T
                self.by_layer["middle"][k] = self.z.T @ self.at["middle"][k]
                self.at["encoder"][k] = self.at["middle"][k] @ w["middle"].T
            self.by_layer["encoder"][k] = self.x.T @ self.at["encoder"][k]

    def rows(self, names):
        return np.concatenate([self.by_layer[name].reshape(3, -1) for name in names], axis=1)

    def sums(self, weights):
        """What every layer gets of `sum_k w_k L_k`, and of the regulariser."""
        sums = {name: np.tensordot(weights, g, 1) for name, g in self.by_layer.items()}
        return self.with_decay(sums)

    def with_decay(self, gradients):
        decay = 2 * DECAY * self.weights["encoder"]
        return {**gradients, "encoder": gradients["encoder"] + decay}


def step_of(model, x, y):
    """The gradient of every layer that one step of SGD at rate 1 followed, and the logs."""
    layers = {name: model.network.get_layer(name) for name in SHAPES}
    before = {name: ops.convert_to_numpy(layer.kernel).copy() for name, layer in layers.items()}
    logs = model.fit(x, y, batch_size=len(x), verbose=0).history
    return {n: before[n] - ops.convert_to_numpy(layer.kernel) for n, layer in layers.items()}, logs


def assert_step(model, expected, weights=None):
    x, y = make_data()
    actual, logs = step_of(model, x, y)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
    if weights is not None:
        found = [logs[f"{name}_weight"][0] for name in TASKS]
        np.testing.assert_allclose(found, weights, rtol=2e-4)


def reference():
    return Reference(make_weights(), *make_data())


PLACES = {
    "shared": ("encoder", "middle"),
    "last_shared": ("encoder",),
    ("middle",): ("middle",),
    ("middle/kernel", "encoder"): ("encoder", "middle"),
}


@pytest.mark.parametrize("heads", ["weighted", slow("own")])
@pytest.mark.parametrize("at", PLACES, ids=str)
def test_a_gramian_method_at_weights(at, heads):
    r = reference()
    rows = r.rows(PLACES[at])
    w = mixed_weights(rows @ rows.T)
    expected = r.sums(w)
    if heads == "own":
        expected.update({name: r.sums(np.ones(3))[name] for name in TASKS})
    at = at if isinstance(at, str) else list(at)
    assert_step(
        make_model(weighting=FromGramian(), gradients_at=at, head_gradients=heads), expected, w
    )


def test_the_weighting_says_where_and_what_unless_compile_does():
    r = reference()
    rows = r.rows(("encoder", "middle"))
    w = mixed_weights(rows @ rows.T)
    own = {**r.sums(w), **{name: r.sums(np.ones(3))[name] for name in TASKS}}
    assert_step(make_model(weighting=FromGramian()), own, w)
    assert_step(make_model(weighting=GramianWeighted()), r.sums(w), w)


class Subclassed(keras.Model):
    """The network of `make_model`, which has its weights from its first call on."""

    def __init__(self):
        super().__init__()
        self.parts = {
            name: keras.layers.Dense(
                SHAPES[name][1],
                use_bias=False,
                name=name,
                kernel_initializer=lambda shape, dtype, value=value: ops.cast(value, dtype),
                kernel_regularizer=keras.regularizers.L2(DECAY) if name == "encoder" else None,
            )
            for name, value in make_weights().items()
        }

    def call(self, inputs):
        encoded = self.parts["encoder"](inputs)
        middle = self.parts["middle"](encoded)
        return {name: self.parts[name](encoded if name == "c" else middle) for name in TASKS}


def test_a_network_that_its_first_step_builds():
    r = reference()
    rows = r.rows(("encoder", "middle"))
    expected = r.sums(mixed_weights(rows @ rows.T))
    model = ktr.MinimaxModel(Subclassed())
    model.compile(
        keras.optimizers.SGD(1.0), loss=dict.fromkeys(TASKS, "mse"), weighting=GramianWeighted()
    )
    x, y = make_data()
    model.fit(x, y, batch_size=len(x), verbose=0)
    for name, before in make_weights().items():
        moved = before - ops.convert_to_numpy(model.network.parts[name].kernel)
        np.testing.assert_allclose(moved, expected[name], rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("heads", [None, "weighted"])
@pytest.mark.parametrize("layer", ["encoder", "middle"])
def test_a_gramian_method_at_the_representation(layer, heads):
    """The encoder's gradient is `sum_k w_k J^T g_k`, and `c` goes by the representation `h`."""
    r = reference()
    rows = r.at[layer].reshape(3, -1)
    w = mixed_weights(rows @ rows.T)
    g = r.at[layer]
    pulled = np.tensordot(w, g, 1)
    expected = r.sums(w)
    if layer == "encoder":
        np.testing.assert_allclose(
            expected["encoder"], r.with_decay({"encoder": r.x.T @ pulled})["encoder"]
        )
    if heads is None:
        expected.update({name: r.sums(np.ones(3))[name] for name in TASKS})
    model = make_model(
        weighting=FromGramian(),
        gradients_at="representation",
        representation=layer,
        head_gradients=heads,
    )
    assert_step(model, expected, w)


@pytest.mark.parametrize("heads", [None, slow("weighted")])
@pytest.mark.parametrize("at", [*PLACES, "representation"], ids=str)
def test_a_direction_takes_the_place_of_the_weighted_sum(at, heads):
    r = reference()

    def direct(g):
        return (g * np.abs(g)).sum(axis=0)

    weighted = {name: np.tensordot([2.0] * 3, g, 1) for name, g in r.by_layer.items()}
    own = {name: np.tensordot([3.0] * 3, g, 1) for name, g in r.by_layer.items()}
    expected = dict(weighted)
    if heads is None:
        expected.update({name: own[name] for name in TASKS})
    if at == "representation":
        pulled = direct(r.at["encoder"])
        expected["encoder"] = r.x.T @ pulled
    else:
        expected.update({name: direct(r.by_layer[name]) for name in PLACES[at]})
    model = make_model(
        weighting=FromGradients(),
        gradients_at=at if isinstance(at, str) else list(at),
        representation="encoder" if at == "representation" else None,
        head_gradients=heads,
    )
    assert_step(model, r.with_decay(expected), [2.0] * 3)


def test_loss_weights_with_heads_of_their_own():
    r = reference()
    w = np.exp(r.losses - r.losses.max())
    w /= w.sum()
    expected = {**r.sums(w), **{name: r.sums(np.ones(3))[name] for name in TASKS}}
    assert_step(make_model(weighting="minimax", head_gradients="own"), expected, w)
    assert_step(make_model(weighting="minimax"), r.sums(w), w)


@pytest.mark.parametrize("chunk", [slow(1), 2, slow(3), slow(7)])
def test_chunks_of_tasks_change_nothing(chunk):
    steps = []
    for task_chunk in (None, chunk):
        model = make_model(weighting="pcgrad", task_chunk=task_chunk)
        steps.append(step_of(model, *make_data())[0])
    for name in SHAPES:
        np.testing.assert_allclose(steps[0][name], steps[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", ["shared", "representation"])
def test_an_absent_task_moves_nothing_of_its_own(at):
    x, y = make_data()
    model = make_model(
        weighting="graddrop",
        gradients_at=at,
        representation="middle" if at == "representation" else None,
    )
    weight = {"a": np.ones(6), "b": np.zeros(6), "c": np.ones(6)}
    kernel = model.network.get_layer("b").kernel
    before = ops.convert_to_numpy(kernel).copy()
    history = model.fit(x, y, sample_weight=weight, batch_size=6, verbose=0).history
    assert history["b_weight"] == [0.0]
    assert np.isnan(history["b_loss"][0])
    np.testing.assert_array_equal(ops.convert_to_numpy(kernel), before)


@pytest.mark.parametrize("weighting", [slow("mgda"), "graddrop", slow("db_mtl")])
def test_loss_scaling_changes_nothing(weighting):
    """The gradients are scaled and unscaled by a power of two."""
    x, y = make_data()
    steps = [
        step_of(make_model(weighting=weighting, optimizer=optimizer), x, y)[0]
        for optimizer in (
            keras.optimizers.SGD(1.0),
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=1024.0),
        )
    ]
    for name in SHAPES:
        np.testing.assert_allclose(steps[0][name], steps[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("weighting", "at"),
    [
        slow("graddrop", "shared"),
        ("graddrop", "representation"),
        ("moco", "shared"),
        slow("db_mtl", "shared"),
    ],
)
def test_an_overflow_of_one_task_lowers_the_loss_scale(weighting, at):
    x, y = make_data()
    model = make_model(
        dtype="mixed_float16",
        weighting=weighting,
        gradients_at=at,
        representation="middle" if at == "representation" else None,
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-4), 2.0**15),
    )
    logs = model.fit(x, {**y, "a": y["a"] + 100.0}, epochs=12, batch_size=6, verbose=0).history
    assert float(ops.convert_to_numpy(model.optimizer.dynamic_scale)) < 2.0**13
    assert logs["a_weight"][-1] > 0
    assert logs["a_loss"][-1] < logs["a_loss"][0]


@pytest.mark.filterwarnings("ignore:In epoch 1 the loss of 'a' became NaN")
@pytest.mark.parametrize("weighting", ["mgda", "graddrop", slow("db_mtl")])
def test_a_gradient_that_is_not_finite_breaks_the_step(weighting):
    x, y = make_data()
    y["a"][2] = np.inf
    step, _ = step_of(make_model(weighting=weighting), x, y)
    assert np.isnan(step["encoder"]).all()
    model = make_model(weighting=weighting)
    absent = {name: np.full(6, float(name != "a"), "float32") for name in TASKS}
    model.fit(x, {**y, "a": np.zeros((6, 1))}, sample_weight=absent, batch_size=6, verbose=0)
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in model.network.weights)


@pytest.mark.parametrize("weighting", ["imtl_g", "graddrop"])
def test_mixed_precision_at_the_representation(weighting):
    x, y = make_data()
    model = make_model(
        dtype="mixed_bfloat16",
        weighting=weighting,
        gradients_at="representation",
        representation="encoder",
        optimizer=keras.optimizers.SGD(0.01),
    )
    history = model.fit(x, y, epochs=8, batch_size=6, verbose=0).history
    assert history["mean_loss"][-1] < history["mean_loss"][0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"weighting": "graddrop", "gradients_at": "representation", "representation": "middle"},
        slow({"weighting": "excess_mtl", "gradients_at": ["encoder"]}),
        slow({"weighting": "db_mtl"}),
        {"weighting": "moco", "head_gradients": "weighted", "task_chunk": 2},
    ],
    ids=str,
)
def test_save_load_and_continue(arguments, tmp_path):
    x, y = make_data()
    model = make_model(optimizer=keras.optimizers.Adam(0.02), **arguments)

    def train(model):
        return model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0).history

    train(model)
    model.save(tmp_path / "model.keras")
    uninterrupted = train(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert train(loaded) == uninterrupted
    for name, value in arguments.items():
        if name != "weighting":
            assert loaded.get_compile_config()[name] == value


class Blocks(keras.Model):
    """A subclassed network: what its inputs are is known to nobody before the first batch."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.layers.Dense(3, name="encoder")
        self.heads = [keras.layers.Dense(1, name=name) for name in "ab"]

    def build(self, input_shape):
        self.encoder.build(input_shape)
        for head in self.heads:
            head.build((None, 3))

    def call(self, inputs):
        encoded = self.encoder(inputs)
        return {head.name: head(encoded) for head in self.heads}


def test_a_subclassed_network():
    x, y = make_data()
    targets = {name: y[name] for name in "ab"}
    network = Blocks()
    network.build((None, 4))
    model = ktr.MinimaxModel(network)
    losses = {"a": "mse", "b": "mse"}
    for arguments in (
        {"weighting": "graddrop", "gradients_at": "representation", "representation": "encoder"},
        {"weighting": "upgrad"},
        {"weighting": "moco", "gradients_at": ["encoder"]},
    ):
        model.compile(keras.optimizers.SGD(0.05), loss=losses, **arguments)
        history = model.fit(x, targets, epochs=6, batch_size=6, verbose=0).history
        assert history["mean_loss"][-1] < history["mean_loss"][0]
    with pytest.raises(ValueError, match="MoCo keeps a state .* or name layers or variables"):
        model.compile("sgd", loss=losses, weighting="moco")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gradients_at": "trunk"}, "`gradients_at` must be one of .*Received: .*'trunk'"),
        ({"gradients_at": []}, r"`gradients_at` must be .*Received: .*\[\]"),
        ({"gradients_at": [3]}, r"`gradients_at` must be .*Received: .*\[3\]"),
        ({"gradients_at": "representation"}, "`representation` must name a layer"),
        ({"representation": "encoder"}, "`representation` must .* be None otherwise"),
        ({"head_gradients": "mine"}, "`head_gradients` must be one of weighted, own, or None"),
        ({"task_chunk": 0}, "`task_chunk` must be an integer >= 1 or None. Received: task_chunk=0"),
        (
            {"weighting": "moco", "gradients_at": "representation", "representation": "encoder"},
            "MoCo keeps a state for every gradient element.*not at a representation",
        ),
        ({"weighting": "moco", "gradients_at": ["trunk"]}, "Received: 'trunk'; the variables are"),
        ({"gradients_at": ["trunk"]}, "Received: 'trunk'; the variables are .*encoder/kernel"),
        (
            {"gradients_at": "representation", "representation": "trunk"},
            "the name of one layer of the network. Received: .*'trunk', the name of 0 layers",
        ),
        ({"weighting": "minimax", "gradients_at": ["trunk"]}, "Received: 'trunk'; the variables"),
    ],
)
def test_compile_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**{"weighting": "mgda", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"gradients_at": ["a"]},
            r"at least one variable that two tasks share, since MGDA.*\['a'\]",
        ),
        (
            {"gradients_at": "representation", "representation": "a"},
            "whose output two tasks share, since MGDA .*'a', whose output 1 of the tasks depend on",
        ),
    ],
)
def test_fit_refuses(arguments, message):
    x, y = make_data()
    model = make_model(weighting="mgda", **arguments)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)


def test_the_mask_of_a_nested_encoder_passes_the_cut():
    tokens = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3, mask_zero=True)(tokens)
    encoder = keras.Model(tokens, keras.layers.Dense(3)(embedded), name="encoder")
    pooled = keras.layers.GlobalAveragePooling1D()(encoder(tokens))
    outputs = {name: keras.layers.Dense(1, name=name)(pooled) for name in TASKS}
    model = ktr.MinimaxModel(keras.Model(tokens, outputs))
    model.compile(
        keras.optimizers.SGD(0.0),
        loss=dict.fromkeys(TASKS, "mse"),
        weighting="mgda",
        gradients_at="representation",
        representation="encoder",
    )
    x, y = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 0]], "int32"), make_data(3)[1]
    logs = model.fit(x, y, verbose=0).history
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    for name in TASKS:
        np.testing.assert_allclose(logs[f"{name}_loss"], expected[f"{name}_loss"], rtol=1e-5)


def test_a_representation_must_be_of_floats():
    inputs = keras.Input((4,))
    bins = keras.layers.Discretization([0.0], name="bins")(inputs)
    joint = keras.layers.Concatenate()([inputs, keras.layers.Rescaling(1.0)(bins)])
    outputs = {name: keras.layers.Dense(1, name=name)(joint) for name in TASKS}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile(
        loss=dict.fromkeys(TASKS, "mse"),
        weighting="mgda",
        gradients_at="representation",
        representation="bins",
    )
    with pytest.raises(ValueError, match="a floating-point output. Received: .*'bins'"):
        model.fit(*make_data(), verbose=0)


def test_a_task_behind_stop_gradient_shares_nothing():
    inputs = keras.Input((4,))
    encoded = keras.layers.Dense(3)(inputs)
    probed = keras.layers.Lambda(ops.stop_gradient)(encoded)
    outputs = {"a": keras.layers.Dense(1)(encoded), "b": keras.layers.Dense(1)(probed)}
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile(loss={"a": "mse", "b": "mse"}, weighting="mgda")
    x, y = make_data()
    with pytest.raises(ValueError, match="no trainable variable is shared"):
        model.fit(x, {"a": y["a"], "b": y["b"]}, verbose=0)


def test_a_layer_frozen_after_compile():
    x, y = make_data()
    model = make_model(weighting="upgrad", run_eagerly=True)
    model.gradient_plan(lambda layer: backend.reached(model, x, layer))
    model.network.get_layer("middle").trainable = False
    step, _ = step_of(model, x, y)
    assert not step["middle"].any()
    assert step["encoder"].any()
    model = make_model(weighting="moco")
    model.network.get_layer("middle").trainable = False
    with pytest.raises(ValueError, match="MoCo keeps .* compile again"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize("at", [slow("last_shared"), ("middle",), "representation"], ids=str)
def test_one_task_trains_as_it_would_alone(at):
    x, y = make_data()
    model = make_model(
        loss={"a": "mse", "b": None, "c": None},
        weighting=ktr.weighting.get("mgda"),
        gradients_at=at if isinstance(at, str) else list(at),
        representation="middle" if at == "representation" else None,
    )
    step, _ = step_of(model, x, {"a": y["a"]})
    expected = reference().sums(np.array([1.0, 0.0, 0.0]))
    for name in ("encoder", "middle", "a"):
        np.testing.assert_allclose(step[name], expected[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "number"), [("twice", 2), ("never", 0)])
def test_a_representation_must_be_called_once(name, number):
    inputs = keras.Input((4,))
    twice = keras.layers.Dense(4, name="twice")
    shared = twice(twice(inputs))
    network = keras.Model(inputs, {n: keras.layers.Dense(1, name=n)(shared) for n in TASKS})
    if name == "never":
        network.spare = keras.layers.Dense(1, name="never")
    model = ktr.MinimaxModel(network)
    model.compile(
        loss=dict.fromkeys(TASKS, "mse"),
        weighting="mgda",
        gradients_at="representation",
        representation=name,
    )
    with pytest.raises(ValueError, match=f"once in a forward pass.*{name}.* called {number} times"):
        model.fit(*make_data(), verbose=0)


def cosines_of(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(rows), 1)]


@pytest.mark.parametrize(
    ("weighting", "at"),
    [
        ("minimax", "shared"),
        slow("minimax", "representation"),
        slow("gradnorm", "shared"),
        slow("gradnorm", "representation"),
        slow("mgda", "shared"),
        ("mgda", "representation"),
        ("moco", "shared"),
    ],
)
def test_diagnostics_are_logged_in_training_only_and_change_nothing(weighting, at):
    r, (x, y) = reference(), make_data()
    rows = r.rows(("encoder", "middle")) if at == "shared" else r.at["middle"].reshape(3, -1)
    where = {"gradients_at": at}
    if at == "representation":
        where["representation"] = "middle"
    model = make_model(weighting=weighting, gradient_diagnostics=True, **where)
    step, logs = step_of(model, x, y)
    here = rows[(rows != 0).any(axis=1)]  # `c` goes by `middle`.
    found = [logs[f"{name}_gradient_norm"][0] for name in TASKS]
    np.testing.assert_allclose(found, np.linalg.norm(rows, axis=1), rtol=1e-4)
    np.testing.assert_allclose(logs["gradient_cosine"], [cosines_of(here).mean()], rtol=1e-3)
    np.testing.assert_allclose(logs["gradient_conflict"], [(cosines_of(here) < 0).mean()])
    plain, plain_logs = step_of(make_model(weighting=weighting, **where), x, y)
    for name, value in plain.items():
        np.testing.assert_allclose(step[name], value, rtol=1e-5, atol=1e-6)
    assert set(logs) - set(plain_logs) == {
        *(f"{name}_gradient_norm" for name in TASKS),
        "gradient_cosine",
        "gradient_conflict",
    }
    evaluated = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(evaluated) == set(plain_logs)


def test_diagnostics_are_means_over_the_steps_of_the_pairs_there():
    x, y = make_data()
    weight = {name: np.ones(6, "float32") for name in TASKS}
    weight["b"][:3] = 0.0
    weight["a"][3:] = 0.0
    model = make_model(
        weighting="uniform", gradient_diagnostics=True, optimizer=keras.optimizers.SGD(0.0)
    )
    logs = model.fit(
        x,
        y,
        sample_weight=weight,
        batch_size=3,
        shuffle=False,
        verbose=0,
        validation_data=(x, y),
    ).history
    halves = [
        Reference(make_weights(), x[part], {n: v[part] for n, v in y.items()}).rows(
            ("encoder", "middle")
        )
        for part in (slice(0, 3), slice(3, 6))
    ]
    pairs = [halves[0][[0, 2]], halves[1][[1, 2]]]
    cosines = np.array([cosines_of(pair)[0] for pair in pairs])
    norms = np.linalg.norm(halves, axis=2)
    np.testing.assert_allclose(logs["gradient_cosine"], [cosines.mean()], rtol=1e-4)
    np.testing.assert_allclose(logs["gradient_conflict"], [(cosines < 0).mean()])
    np.testing.assert_allclose(logs["a_gradient_norm"], [norms[0, 0]], rtol=1e-4)
    np.testing.assert_allclose(logs["b_gradient_norm"], [norms[1, 1]], rtol=1e-4)
    np.testing.assert_allclose(logs["c_gradient_norm"], [norms[:, 2].mean()], rtol=1e-4)
    assert "val_a_loss" in logs
    assert not any(name.startswith("val_") and "gradient" in name for name in logs)


@pytest.mark.parametrize("weighting", ["moco", "db_mtl", "excess_mtl"])
def test_methods_that_keep_gradients_take_a_sequential_network(weighting):
    layers = [keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2)]
    network = keras.Sequential(layers)
    network.build((None, 4))
    same = keras.Model(network.inputs[0], network.outputs[0])
    start, results = network.get_weights(), []
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(8, 2))
    y = {"labels": labels.astype("float32"), "groups": np.arange(8, dtype="int32") % 2}
    for body in (network, same):
        body.set_weights(start)
        model = ktr.MinimaxModel(body)
        model.compile("sgd", ktr.GroupedLoss("mse", ("a", "b")), weighting=weighting)
        model.train_on_batch(x, y)
        results.append(body.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert not np.array_equal(results[0][0], start[0])
