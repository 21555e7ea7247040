"""The methods on the gradients themselves, against NumPy in float64 and against torchjd."""

import json

import keras
import numpy as np
import pytest
import torch
from autodiff import to_numpy
from torchjd import aggregation
from weighting_cases import ELEMENTWISE, assert_same_state, by_name

import keras_taskrobust as ktr

w = ktr.weighting
K, P, STEPS = 4, 30, 6


def uniform(seed, step, number):
    """The draws of `weighting._random`, in NumPy's unsigned integers."""

    def mix(bits):
        for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = bits ^ (bits >> np.uint64(shift))
            bits = (bits * np.uint64(multiplier)) & np.uint64(0xFFFFFFFF)
        return bits ^ (bits >> np.uint64(16))

    start = (seed * 0x9E3779B1 + 0x7F4A7C15 + step) & 0xFFFFFFFF
    bits = mix(np.array(start, "uint64"))
    elements = np.arange(number, dtype="uint64") * np.uint64(0x632BE5AB)
    bits = mix((bits + elements) & np.uint64(0xFFFFFFFF))
    return ((bits >> np.uint64(9)).astype("float64") + 0.5) / 2**23


def graddrop(state, g, losses, present, leak=0.0, seed=0):
    step = state["step"] = state.get("step", -1) + 1
    g = g * present[:, None]
    size = np.abs(g).sum(0)
    purity = (1 + g.sum(0) / np.where(size > 0, size, 1)) / 2
    draws = uniform(seed, step, g.shape[1])
    mask = (purity > draws) * (g > 0) + (purity < draws) * (g < 0)
    return present * 1.0, present * 1.0, ((leak + (1 - leak) * mask) * g).sum(0)


def db_mtl(state, g, losses, present, beta=0.9, decay=0.0):
    step = state["step"] = state.get("step", 0) + 1
    kept = state.setdefault("kept", np.zeros(g.shape))
    share = state.setdefault("share", np.zeros(len(losses)))
    rate = beta / step**decay
    for k in np.flatnonzero(present):
        kept[k] = rate * kept[k] + (1 - rate) * g[k] / losses[k]
        share[k] = rate * share[k] + (1 - rate)
    average = kept / np.where(share > 0, share, 1.0)[:, None]
    longest = max(np.linalg.norm(average[k]) for k in np.flatnonzero(present))
    weights, direction = np.zeros(len(losses)), np.zeros(g.shape[1])
    for k in np.flatnonzero(present):
        factor = longest / np.linalg.norm(average[k])
        direction += factor * average[k]
        weights[k] = factor / losses[k]
    return weights, present / np.where(present, losses, 1), direction


def excess_mtl(state, g, losses, present, step_size=0.01):
    squares = state.setdefault("squares", np.zeros(g.shape))
    log_weights = state.setdefault("log_weights", np.zeros(len(losses)))
    initial = state.setdefault("initial", {})
    for k in np.flatnonzero(present):
        squares[k] += g[k] ** 2
        excess = (g[k] ** 2 / np.sqrt(squares[k] + 1e-7)).sum()
        if k in initial:
            log_weights[k] += step_size * excess / initial[k]
        initial.setdefault(k, excess)
    weights = np.exp(log_weights) * present
    return present.sum() * weights / weights.sum(), present * 1.0, None


def moco(state, g, losses, present, beta=0.5, beta_decay=0.5, gamma=0.1, gamma_decay=0.5, rho=0.0):
    step = state["step"] = state.get("step", 0) + 1
    tracked = state.setdefault("tracked", np.zeros(g.shape))
    combination = state.setdefault("combination", np.full(len(losses), 1 / len(losses)))
    here = np.flatnonzero(present)
    for k in here:
        target = losses[k] * g[k] / np.linalg.norm(g[k])
        tracked[k] -= beta / step**beta_decay * (tracked[k] - target)
    held = combination[here].sum()
    old = combination[here] / held
    inner = tracked[here] @ tracked[here].T + rho * np.eye(len(here))
    new = np.exp(old - gamma / step**gamma_decay * inner @ old)
    new /= new.sum()
    combination[here] = held * new
    weights = np.zeros(len(losses))
    weights[here] = new
    return weights, present * 1.0, weights @ tracked


METHODS = {
    "graddrop": (w.GradDrop, {}, graddrop),
    "graddrop_leak": (w.GradDrop, {"leak": 0.3, "seed": 2**40 + 3}, graddrop),
    "db_mtl": (w.DualBalancing, {}, db_mtl),
    "db_mtl_decay": (w.DualBalancing, {"beta": 0.6, "decay": 0.5}, db_mtl),
    "excess_mtl": (w.ExcessMTL, {}, excess_mtl),
    "excess_mtl_fast": (w.ExcessMTL, {"step_size": 2.0}, excess_mtl),
    "moco": (w.MoCo, {}, moco),
    "moco_all": (
        w.MoCo,
        {"beta": 0.9, "beta_decay": 0.0, "gamma": 2.0, "gamma_decay": 0.1, "rho": 0.3},
        moco,
    ),
}
each_method = pytest.mark.parametrize("method", METHODS)


def make(method, shape=(K, P)):
    cls, arguments, _ = METHODS[method]
    layer = cls(**arguments)
    layer.build(shape if layer.keeps_gradients else shape[:1])
    return layer


def make_batches(number=STEPS, absent=0.3, seed=0, shape=(K, P)):
    """Losses, counts and gradients; a task that is absent has a gradient of garbage."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        losses = rng.gamma(2.0, 0.7, size=shape[0]).astype("float32") + 0.1
        counts = (rng.random(shape[0]) >= absent).astype("float32") * 3
        counts[rng.integers(shape[0])] = 2
        gradients = rng.normal(size=shape) * rng.uniform(0.2, 3.0, size=(shape[0], 1))
        gradients[:, 0] = np.abs(gradients[:, 0])
        gradients[:, 1] = -np.abs(gradients[:, 1])
        gradients[:, 2] = 0.0
        yield losses, counts, gradients.astype("float32")


def step(layer, losses, counts, gradients, training=True):
    """The objective, weights, own weights and direction of one call, in NumPy."""
    objective, update = layer(
        losses, counts=counts, gradients=gradients, training=training, return_update=True
    )
    return [
        None if value is None else to_numpy(value)
        for value in (objective, update.weights, update.own_weights, update.direction)
    ]


def same(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            np.testing.assert_allclose(a, e, **tolerance)


def test_every_registered_method_is_here():
    assert {type(w.get(name)) for name in ELEMENTWISE} == {cls for cls, *_ in METHODS.values()}


@each_method
def test_weights_and_direction_equal_the_reference(method):
    _, arguments, reference = METHODS[method]
    layer, state = make(method), {}
    for losses, counts, gradients in make_batches():
        present = counts > 0
        expected = reference(
            state,
            gradients.astype("float64"),
            losses.astype("float64"),
            present,
            **arguments,
        )
        objective, *actual = step(layer, losses, counts, gradients)
        same(actual, expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(objective, (expected[0] * losses).sum(), rtol=2e-5)


@each_method
def test_facts_hold(method):
    layer, facts = make(method), METHODS[method][0].facts
    for losses, counts, gradients in make_batches():
        weights = step(layer, losses, counts, gradients)[1]
        assert (weights[counts == 0] == 0).all()
        assert (weights >= 0).all() or not facts.nonnegative
        total = {"one": 1.0, "number": (counts > 0).sum(), "free": weights.sum()}[facts.total]
        np.testing.assert_allclose(weights.sum(), total, rtol=1e-5)
    if facts.lone_task:
        layer = make(method, (1, P))
        for losses, counts, gradients in make_batches(3, shape=(1, P)):
            np.testing.assert_allclose(step(layer, losses, counts, gradients)[1], [1.0], rtol=1e-6)


@each_method
@pytest.mark.parametrize("factor", [0.125, 16.0])
def test_a_common_scale(method, factor):
    scale = METHODS[method][0].facts.scale
    if scale == "free":
        return
    layer, scaled = make(method), make(method)
    for losses, counts, gradients in make_batches(3):
        expected = step(layer, losses, counts, gradients)[1]
        actual = step(scaled, factor * losses, counts, factor * gradients)[1]
        wanted = expected if scale == "same" else expected / factor
        np.testing.assert_allclose(actual, wanted, rtol=1e-4)


@each_method
def test_permutation_equivariance(method):
    order = [2, 0, 3, 1]
    layer, moved = make(method), make(method)
    for losses, counts, gradients in make_batches(3):
        expected = step(layer, losses, counts, gradients)
        actual = step(moved, losses[order], counts[order], gradients[order])
        expected[1], expected[2] = expected[1][order], expected[2][order]
        same(actual, expected, rtol=1e-5, atol=1e-5)


@each_method
@pytest.mark.parametrize("garbage", [7.5, np.nan, np.inf])
def test_an_absent_task_and_one_with_broken_gradients_have_no_say(method, garbage):
    clean, absent, broken = make(method), make(method), make(method)
    for number, (losses, counts, gradients) in enumerate(make_batches(4, absent=0.0)):
        gone, k = counts.copy(), number % K
        gone[k] = 0
        expected = step(clean, losses, gone, gradients)
        dirty, spoilt = losses.copy(), gradients.copy()
        dirty[k], spoilt[k] = garbage, garbage
        same(step(absent, dirty, gone, spoilt), expected)
        assert_same_state(by_name(absent), by_name(clean))
        if not np.isfinite(garbage):
            # The loss is still in the sum, with the weight 0.
            same(step(broken, losses, counts, spoilt), expected)
            assert_same_state(by_name(broken), by_name(clean))


@each_method
def test_nobody_is_there(method):
    layer = make(method)
    for batch in make_batches(2):
        step(layer, *batch)
    before = by_name(layer)
    found = step(layer, np.full(K, np.nan), np.zeros(K), np.full((K, P), np.nan))
    assert found[0] == 0
    assert not found[1].any()
    assert found[3] is None or not found[3].any()
    after = by_name(layer)
    after.pop("step", None), before.pop("step", None)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


@each_method
def test_evaluation_moves_nothing_and_foresees_the_next_call(method):
    layer = make(method)
    for losses, counts, gradients in make_batches(3):
        before = by_name(layer)
        evaluated = step(layer, losses, counts, gradients, training=False)
        foreseen = layer.compute_weights(losses, counts=counts, gradients=gradients)
        assert_same_state(by_name(layer), before)
        same(step(layer, losses, counts, gradients), evaluated)
        np.testing.assert_array_equal(to_numpy(foreseen), evaluated[1])
        assert any((after != before[name]).any() for name, after in by_name(layer).items())


@each_method
def test_without_gradients_the_mean_or_the_stored_weights_serve(method):
    layer = make(method)
    for batch in make_batches(3, absent=0.0):
        last = step(layer, *batch)
    before = by_name(layer)
    losses, counts = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 1, 2])
    objective, weights, _, direction = step(layer, losses, counts, None)
    assert direction is None
    assert_same_state(by_name(layer), before)
    expected = np.array([1, 0, 1, 1]) / 3
    if method.startswith("excess"):
        expected = last[1] * (counts > 0) / last[1][counts > 0].sum() * 3
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(objective, (expected * losses).sum(), rtol=1e-5)


@each_method
def test_the_configuration_round_trips(method):
    layer = make(method)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    copy = w.get(config)
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    assert METHODS[method][1].items() <= copy.get_config().items()
    copy.build((K, P) if copy.keeps_gradients else (K,))
    for batch in make_batches(3):
        same(step(copy, *batch), step(layer, *batch))


@each_method
def test_it_goes_on_as_it_would_have(method):
    layer, other = make(method), make(method)
    batches = list(make_batches())
    for batch in batches[:3]:
        step(layer, *batch)
    for variable, value in zip(other.variables, layer.variables, strict=True):
        variable.assign(to_numpy(value))
    for batch in batches[3:]:
        same(step(other, *batch), step(layer, *batch))


@each_method
def test_float32_whatever_the_policy(method):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = make(method)
        found = step(layer, *next(iter(make_batches(1))))
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in layer.variables} <= {"float32"}
    assert {value.dtype.name for value in found if value is not None} == {"float32"}


def test_what_a_layer_was_built_for_stays():
    layer = w.MoCo()
    layer.build((K, P))
    layer.build((K, P))
    with pytest.raises(ValueError, match=rf"built for {P} gradient elements.*Received: 7 gradient"):
        layer.build((K, 7))
    with pytest.raises(ValueError, match=rf"`gradients` must have the shape \({K}, {P}\)"):
        layer(np.ones(K), gradients=np.ones((K, 7)))
    layer = w.MoCo()
    layer.build((K,))
    with pytest.raises(ValueError, match=r"MoCo keeps a state.*call `build\(\(K, P\)\)` before"):
        layer(np.ones(K), gradients=np.ones((K, P)))
    with pytest.raises(ValueError, match=rf"`gradients` must have the shape \({K}, 7\)"):
        w.GradDrop()(np.ones(K), gradients=np.ones((3, 7)))


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: w.GradDrop(leak=1.0), "`leak` must be at least 0 and less than 1"),
        (lambda: w.GradDrop(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: w.DualBalancing(beta=1.0), "`beta` must be at least 0 and less than 1"),
        (lambda: w.DualBalancing(decay=-1), "`decay` must be a number >= 0"),
        (lambda: w.ExcessMTL(0), "`step_size` must be a positive number"),
        (lambda: w.MoCo(beta=0), "`beta` must be a number above 0 and at most 1"),
        (lambda: w.MoCo(gamma=0), "`gamma` must be a positive number"),
        (lambda: w.MoCo(rho=-1), "`rho` must be a number >= 0"),
    ],
)
def test_bad_arguments_are_refused(make_layer, message):
    with pytest.raises(ValueError, match=f"{message}. Received:"):
        make_layer()


def test_graddrop_keeps_the_sign_as_often_as_its_purity():
    gradients = np.array([[1.0, 3.0, -1.0], [-1.0, -1.0, -2.0]], "float32")
    layer = w.GradDrop()
    layer.build((2,))
    number = 400
    kept = np.mean([step(layer, np.ones(2), None, gradients)[3] > 0 for _ in range(number)], axis=0)
    assert np.abs(kept - [0.5, 0.75, 0.0]).max() < 4 * 0.5 / np.sqrt(number)


def test_graddrop_equals_torchjd(monkeypatch):
    """With the same draws."""
    (batch,) = make_batches(1, absent=0.0)
    draws = torch.tensor(uniform(0, 0, P))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws)
    expected = aggregation.GradDrop()(torch.tensor(batch[2], dtype=torch.float64))
    np.testing.assert_allclose(step(make("graddrop"), *batch)[3], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_db_mtl_s_direction_is_that_of_libmtl_s_recurrence(decay):
    """Whose buffer starts at zero and is used as it is; only the length of the step differs."""
    layer = w.DualBalancing(decay=decay)
    layer.build((K, P))
    buffer = np.zeros((K, P))
    for number, batch in enumerate(make_batches(absent=0.0), start=1):
        losses, _, gradients = batch
        new = gradients / losses[:, None]
        buffer = new + 0.9 / number**decay * (buffer - new)
        norms = np.linalg.norm(buffer, axis=1)
        expected = (norms.max() / norms) @ buffer
        actual = step(layer, *batch)[3]
        actual *= np.linalg.norm(expected) / np.linalg.norm(actual)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_excess_mtl_equals_torchjd():
    """Whose weights sum to 1, and move at the first call: by the estimates themselves."""
    theirs = aggregation.ExcessMTLWeighting(robust_step_size=0.5)
    layer, first = make("excess_mtl"), None
    layer.step_size = 0.5
    for losses, counts, gradients in make_batches(absent=0.0):
        expected = np.array(theirs(torch.tensor(gradients, dtype=torch.float64)))
        if first is None:
            first = np.log(expected)
        actual = step(layer, losses, counts, gradients)[1]
        moved = np.exp(np.log(expected) - first)
        np.testing.assert_allclose(actual / K, moved / moved.sum(), rtol=1e-4)
