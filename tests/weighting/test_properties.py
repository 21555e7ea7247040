"""What every weighting promises, checked on every registered one and its variants."""

import json

import keras
import numpy as np
import pytest
from autodiff import BACKEND, gradient, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from weighting_cases import (
    CASES,
    NAMES,
    VARIANTS,
    Batch,
    assert_same_state,
    by_name,
    make,
    make_batches,
    make_gramian,
    permuted,
    run,
    state,
    step,
    step_compiled,
    step_eagerly,
    twin,
)

import keras_taskrobust as ktr

STATELESS = {
    "uniform",
    "pooled",
    "hard_max",
    "minimax",
    "minimax_reference",
    "minimax_sharp",
    "minimax_through_weights",
    "scale_free_minimax",
    "uncertainty",
    "uncertainty_half",
    "static",
    "static_given",
    "adaptive_groups_fixed",
    "gls",
    "imtl_l",
    "stch",
    "stch_small",
    "cvar",
    "cvar_most",
    "chi2_dro",
    "chi2_dro_small",
    "kl_dro",
    "kl_dro_large",
    "mgda",
    "mgda_loss+",
    "upgrad",
    "dualproj",
    "cagrad",
    "cagrad_linear",
    "imtl_g",
    "aligned_mtl",
    "aligned_mtl_median",
    "config",
    "nash_mtl",
    "fairgrad",
    "fairgrad_2",
}
#: Cases whose parameters make a lone task's weight, or the scale of weights, other than declared.
OTHER_SCALE = {
    "minimax_sharp",
    "group_dro_all",
    "famo_all",
    "static_given",
    "stch_nadir",
    "cagrad_linear",
}


def facts(case):
    return CASES[case](2).facts


def needs_gramian(case):
    return CASES[case](2).needs == "gramian"


def _cases(slow):
    marks = {True: pytest.mark.slow, False: ()}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, marks=marks[slow(case)]) for case in CASES]
    )


#: Stateless, with a state, trainable, on the Gramian: what the base class does for all methods.
REPRESENTATIVES = ("minimax", "group_dro", "uncertainty", "imtl_g")
#: The variants of methods with a Gramian take long to compile.
each_case = _cases(lambda case: case in VARIANTS and needs_gramian(case))
each_method = _cases(lambda case: case in VARIANTS)
each_representative = _cases(lambda case: case not in REPRESENTATIVES)
#: For what must run outside jit, where methods with a Gramian take long.
each_case_of_losses = _cases(lambda case: case not in REPRESENTATIVES and needs_gramian(case))
#: JAX, outside jit, compiles a loop at every call; the doctest of each method does so once.
each_compiled = each_case_of_losses if BACKEND == "jax" else each_method


def solves(case):
    """Whether the method solves a problem on the Gramian, which amplifies rounding."""
    return needs_gramian(case) and method(case) != "gradnorm"


def assert_same_weights(case, actual, expected):
    """Equal up to the rounding of another order of operations."""
    if solves(case):
        scale = max(np.abs(expected).max(), 1e-6)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=3e-4 * scale)
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def method(case):
    return next(name for name in sorted(NAMES, key=len, reverse=True) if case.startswith(name))


def test_the_cases_cover_the_registry():
    assert set(NAMES) <= set(ktr.weighting.available())
    assert {
        "minimax",
        "uniform",
        "pooled",
        "hard_max",
        "uncertainty",
        "gradnorm",
        "dwa",
        "group_dro",
    } <= set(NAMES)
    for name in NAMES:
        assert isinstance(ktr.weighting.get(name).facts, ktr.weighting.MethodFacts), name
    for case in VARIANTS:
        assert type(CASES[case](3)) is type(ktr.weighting.get(method(case)))


@each_case
def test_weights_are_finite_as_declared_and_vanish_for_absent_tasks(case):
    layer, declared = make(case), facts(case)
    for batch in make_batches(6):
        objective, weights = step(layer, batch)
        present = batch.counts > 0
        assert objective.shape == ()
        assert weights.shape == (4,)
        assert np.isfinite(objective)
        assert np.isfinite(weights).all()
        assert (weights[~present] == 0).all()
        assert np.abs(weights[present]).sum() > 0
        if declared.nonnegative:
            assert (weights >= 0).all()
        if declared.total == "one":
            np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
        if declared.total == "number":
            np.testing.assert_allclose(weights.sum(), present.sum(), rtol=1e-5)


losses_of_four = st.lists(st.floats(0, 50, width=16), min_size=4, max_size=4)
counts_of_four = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@each_method
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(steps=st.lists(st.tuples(losses_of_four, counts_of_four), min_size=1, max_size=3))
def test_any_losses_and_counts_give_finite_weights_and_state(case, steps):
    layer = make(case)
    gramian = make_gramian(4, np.random.default_rng(0))
    for losses, counts in steps:
        objective, weights = step(layer, Batch(np.array(losses), np.array(counts), gramian))
        assert np.isfinite(objective)
        assert np.isfinite(weights).all()
        assert (weights >= 0).all() or not facts(case).nonnegative
        assert (weights[np.array(counts) == 0] == 0).all()
        assert all(np.isfinite(value).all() for value in state(layer).values())


@each_case
def test_permutation_equivariance(case):
    order = [2, 0, 3, 1]
    layer = make(case)
    moved = permuted(layer, order)
    for batch in make_batches(5):
        expected = step(layer, batch)
        actual = step(
            moved,
            Batch(batch.losses[order], batch.counts[order], batch.gramian[np.ix_(order, order)]),
        )
        assert_same_weights(case, actual[1], expected[1][order])
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-3 if solves(case) else 1e-5)


@each_case
@pytest.mark.parametrize("factor", [0.125, 16.0])
def test_a_common_scale_of_losses_and_gradients(case, factor):
    declared = facts(case).scale
    if declared == "free" or case in OTHER_SCALE:
        return
    layer, scaled = make(case), make(case)
    for batch in make_batches(4, seed=11):
        expected = step(layer, batch)[1]
        larger = Batch(factor * batch.losses, batch.counts, factor**2 * batch.gramian)
        actual = step(scaled, larger)[1]
        assert_same_weights(case, actual, expected if declared == "same" else expected / factor)


@pytest.mark.parametrize("case", [case for case in CASES if facts(case).lone_task])
def test_a_lone_task_has_weight_one(case):
    if case == "stch_nadir":  # in the warm-up, the reciprocal of its loss
        return
    layer = make(case, K=1)
    for batch in make_batches(4, K=1, absent=0.0):
        objective, weights = step(layer, batch)
        np.testing.assert_allclose(weights, [1.0], rtol=1e-6)
        np.testing.assert_allclose(objective, batch.losses[0], rtol=1e-6)


@each_case
@pytest.mark.parametrize(
    "numbers", [(1,), pytest.param((2, 3, *range(5, 21)), marks=pytest.mark.slow)], ids=str
)
def test_all_numbers_of_tasks(case, numbers):
    for K in numbers:
        layer = make(case, K)
        (batch,) = make_batches(1, K=K, seed=K)
        weights = step(layer, batch)[1]
        assert weights.shape == (K,)
        assert np.isfinite(weights).all()
        assert ((weights > 0) <= (batch.counts > 0)).all()


@each_case
def test_the_worst_that_can_come_has_no_say(case):
    """All kinds of garbage, broken losses and a short policy; below, each kind by itself."""
    clean = make(case)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        dirty = make(case)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {variable.dtype for variable in dirty.variables} <= {"float32"}
    garbage = (np.nan, np.inf, -1e30, -np.inf, 7.5, np.nan)
    for number, batch in enumerate(make_batches(6, seed=3)):
        gone, other, third = ((number + place) % 4 for place in range(3))
        counts = batch.counts.copy()
        # 257 is 256 in bfloat16, and 1.0001 is 1 in float16.
        counts[[gone, other, third]] = 0, 257, 3
        losses = np.where(batch.losses > 0, batch.losses, 1.0001).astype("float32")
        absent = counts == 0
        given = np.where(absent, garbage[number], losses)
        gramian = np.where(absent | absent[:, None], garbage[number], batch.gramian)
        broken = number % 2 == 1
        present = counts.copy()
        if broken:  # a task that is present: the others move on as if it were not
            given[other], present[other] = garbage[number], 0
        expected = step(clean, Batch(losses, present, batch.gramian))
        actual = step(dirty, Batch(given, counts, gramian))
        assert np.isfinite(actual[0]) == (not broken)
        assert np.isfinite(actual[1]).all()
        np.testing.assert_array_equal(actual[1], expected[1])
        assert_same_state(by_name(dirty), by_name(clean))


@each_representative
@pytest.mark.parametrize("garbage", [7.5, -1e30, np.nan, np.inf])
def test_an_absent_task_has_no_say(case, garbage):
    clean, dirty = make(case), make(case)
    for number, batch in enumerate(make_batches(6, seed=3)):
        counts = batch.counts.copy()
        counts[number % 4] = 0  # at least one task is absent from each batch
        if not counts.any():
            counts[(number + 1) % 4] = 1
        absent = counts == 0
        expected = step(clean, batch._replace(counts=counts))
        gramian = batch.gramian.copy()
        gramian[absent] = garbage
        gramian[:, absent] = garbage
        losses = np.where(absent, garbage, batch.losses)
        actual = step(dirty, Batch(losses, counts, gramian))
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(actual[1], expected[1])
        assert_same_state(by_name(dirty), by_name(clean))


@each_case
def test_no_task_present_is_a_step_of_zero(case):
    layer = make(case)
    run(layer, make_batches(3))
    before = state(layer)
    nothing = Batch(np.full(4, np.nan), np.zeros(4), np.full((4, 4), np.nan))
    objective, weights = step(layer, nothing)
    assert objective == 0
    np.testing.assert_array_equal(weights, np.zeros(4))
    clocks = {path for path in before if path.endswith("/step")}
    after = state(layer)
    for path in clocks:
        assert after[path] in (before[path] + 1, 0)
    # A window of DWA, of the rate of improvement or of the adaptive groups ends.
    moved_by_clock = {"total", "appearances", "last_mean", "mean_before", "log_weights"}
    moved_by_clock |= {"elements", "last_elements", "groups"}
    for path in before.keys() - clocks:
        if path.rsplit("/", 1)[-1] not in moved_by_clock:
            np.testing.assert_array_equal(after[path], before[path], err_msg=path)


@each_case_of_losses
def test_compute_weights_foresees_the_next_training_call(case):
    layer = make(case)
    for batch in make_batches(2 if solves(case) else 5, seed=1):
        before = state(layer)
        foreseen = layer.compute_weights(batch.losses, counts=batch.counts, gramian=batch.gramian)
        assert keras.backend.standardize_dtype(foreseen.dtype) == "float32"
        assert_same_state(state(layer), before)
        np.testing.assert_array_equal(to_numpy(foreseen), to_numpy(step_eagerly(layer, batch)[1]))


@each_case_of_losses
def test_compute_weights_is_the_derivative_of_the_objective(case):
    layer = make(case)
    batches = make_batches(4, seed=2)
    run(layer, batches[:3])
    batch = batches[3]

    def objective(losses):
        return layer(losses, counts=batch.counts, gramian=batch.gramian, training=False)

    expected = to_numpy(layer.compute_weights(*batch))
    np.testing.assert_allclose(gradient(objective, batch.losses), expected, rtol=1e-6, atol=1e-9)
    assert expected.any()


@each_representative
def test_compute_weights_builds_the_layer(case):
    layer = CASES[case](3)
    weights = layer.compute_weights(np.array([1.0, 2.0, 3.0]))
    assert weights.shape == (3,)
    assert layer.built
    assert layer.num_tasks == 3


@each_case_of_losses
def test_evaluation_moves_no_state_and_gives_the_same_objective(case):
    layer = make(case)
    for batch in make_batches(4, seed=4):
        before = state(layer)
        evaluated = step(layer, batch, training=False)
        assert_same_state(state(layer), before)
        trained = step(layer, batch)
        np.testing.assert_array_equal(evaluated[0], trained[0])
        np.testing.assert_array_equal(evaluated[1], trained[1])


@each_case
def test_training_moves_state(case):
    layer = make(case)
    if not layer.non_trainable_variables:
        assert case in STATELESS
        return
    assert case not in STATELESS
    before = state(layer)
    run(layer, make_batches(2, seed=5))
    after = state(layer)
    moved = [path for path in before if not np.array_equal(before[path], after[path])]
    assert moved
    trainable = {variable.path for variable in layer.trainable_variables}
    assert not trainable & set(moved)


@each_representative
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_loss_spoils_the_objective_but_no_state(case, bad):
    layer = make(case)
    batches = make_batches(3, seed=6)
    run(layer, batches[:1])
    other = twin(layer)
    broken = batches[1]
    counts = np.array([4.0, 2.0, 3.0, 5.0], "float32")
    losses = np.array([0.5, bad, 2.0, 1.0], "float32")
    objective, weights = step(layer, Batch(losses, counts, broken.gramian))
    assert not np.isfinite(objective)
    assert np.isfinite(weights).all()
    assert all(np.isfinite(value).all() for value in state(layer).values())
    # The other tasks move on as if the broken one had been absent.
    counts[1] = 0
    without = step(other, Batch(losses, counts, broken.gramian))
    np.testing.assert_array_equal(weights, without[1])
    assert_same_state(by_name(layer), by_name(other))
    recovered = step(layer, batches[2])
    assert np.isfinite(recovered[0])
    np.testing.assert_array_equal(recovered[1], step(other, batches[2])[1])


@pytest.fixture
def _policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield
    keras.config.set_dtype_policy(before)


@each_representative
@pytest.mark.parametrize("_policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
@pytest.mark.usefixtures("_policy")
def test_everything_is_float32_whatever_the_policy(case):
    layer = make(case)
    dtype = keras.config.dtype_policy().compute_dtype
    assert dtype in ("float16", "bfloat16")
    assert {variable.dtype for variable in layer.variables} <= {"float32"}
    exact = twin(layer)
    # Values that the short types hold exactly, apart from the Gramian.
    losses = np.array([0.5, 1.25, 3.0, 0.75])
    counts = np.array([3, 0, 1, 7], "int32")
    gramian = np.diag([1.0, 2.0, 4.0, 0.5])
    short = [keras.ops.cast(value, dtype) for value in (losses, gramian)]
    for training in (True, False):
        objective, weights = layer(
            short[0], counts=counts, gramian=short[1], training=training, return_weights=True
        )
        assert keras.backend.standardize_dtype(objective.dtype) == "float32"
        assert keras.backend.standardize_dtype(weights.dtype) == "float32"
        batch = Batch(losses, counts.astype("float64"), gramian)
        expected = [to_numpy(tensor) for tensor in step_eagerly(exact, batch, training)]
        np.testing.assert_array_equal(to_numpy(objective), expected[0])
        np.testing.assert_array_equal(to_numpy(weights), expected[1])


@each_representative
@pytest.mark.parametrize("_policy", ["mixed_float16", "mixed_bfloat16", "float16"], indirect=True)
@pytest.mark.usefixtures("_policy")
def test_float32_losses_lose_nothing_to_the_policy(case):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    exact = make(case)
    keras.config.set_dtype_policy(policy)
    layer = make(case)
    assert {variable.dtype for variable in layer.variables} <= {"float32"}
    gramian = make_gramian(4, np.random.default_rng(9))
    # 1.0001 is 1 in float16, 70,000 is inf, and 257 is 256 in bfloat16.
    for losses in ([1.0, 1.0001, 0.9999, 0.3], [70000.0, 69999.0, 1.0, 0.1]):
        batch = Batch(np.array(losses, "float32"), np.array([257.0, 1.0, 70000.0, 3.0]), gramian)
        for actual, expected in zip(step(layer, batch), step(exact, batch), strict=True):
            np.testing.assert_array_equal(actual, expected)
    explicit = type(layer).from_config({**layer.get_config(), "dtype": "float16"})
    assert explicit.compute_dtype == explicit.variable_dtype == "float32"


@each_representative
def test_whole_numbers_are_accepted(case):
    layer, other = make(case), make(case)
    losses, counts = np.array([1, 2, 3, 4]), np.array([2, 0, 1, 9])
    expected = step_eagerly(layer, Batch(losses, counts, np.eye(4, dtype="int32")))
    batch = Batch(losses.astype("float32"), counts.astype("float32"), np.eye(4))
    for actual, tensor in zip(step_eagerly(other, batch), expected, strict=True):
        np.testing.assert_array_equal(to_numpy(actual), to_numpy(tensor))


@each_representative
def test_without_counts_all_tasks_are_present(case):
    layer, other = make(case), make(case)
    (batch,) = make_batches(1, absent=0.0)
    batch_of_all = batch._replace(counts=np.ones(4))
    expected = [to_numpy(tensor) for tensor in step_eagerly(layer, batch_of_all)]
    objective, weights = other(batch.losses, gramian=batch.gramian, return_weights=True)
    np.testing.assert_array_equal(to_numpy(objective), expected[0])
    np.testing.assert_array_equal(to_numpy(weights), expected[1])


@each_case
def test_the_configuration_round_trips(case):
    layer = make(case)
    same = {
        "from_config": type(layer).from_config(layer.get_config()),
        "keras": keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)),
        "get": ktr.weighting.get(
            json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        ),
    }
    batches = make_batches(3, seed=7)
    for copy in same.values():
        assert type(copy) is type(layer)
        assert copy.name == layer.name
        assert copy.learning_rate == layer.learning_rate
        assert repr(copy.get_config()) == repr(layer.get_config())
        copy.build((4,))
        for variable, value in zip(copy.variables, layer.variables, strict=True):
            variable.assign(to_numpy(value))
    expected = run(layer, batches)
    for name, copy in same.items():
        np.testing.assert_array_equal(run(copy, batches), expected, err_msg=name)


@each_representative
def test_a_layer_keeps_its_number_of_tasks(case):
    layer = make(case)
    layer.build((4,))  # a second `compile` of the same model
    for K in (1, 3, 5):
        with pytest.raises(ValueError, match=rf"built for 4 tasks.*Received: {K} task"):
            layer.build((K,))
        with pytest.raises(ValueError, match=r"\(4,\).*Received: losses.*" + str(K)):
            layer(np.ones(K))
        with pytest.raises(ValueError, match=r"\(4,\).*Received: losses.*" + str(K)):
            layer.compute_weights(np.ones(K))


@each_representative
@pytest.mark.parametrize(
    ("argument", "shape"), [("counts", (1,)), ("counts", (4, 4)), ("gramian", (4,))]
)
def test_counts_and_gramian_of_another_shape_are_refused(case, argument, shape):
    layer = make(case)
    with pytest.raises(
        ValueError, match=f"`{argument}` must have the shape .*Received: {argument}"
    ):
        layer(np.ones(4), **{argument: np.ones(shape)})


@each_compiled
def test_a_compiled_call_equals_an_eager_one(case):
    eager = make(case)
    other = twin(eager)
    for batch in make_batches(2 if solves(case) else 4, seed=8):
        expected = [to_numpy(tensor) for tensor in step_eagerly(eager, batch)]
        objective, weights = step_compiled(other, batch)
        assert_same_weights(case, weights, expected[1])
        tolerance = 1e-3 if solves(case) else 1e-5
        np.testing.assert_allclose(objective, expected[0], rtol=tolerance)
    for (name, actual), expected in zip(
        by_name(other).items(), by_name(eager).values(), strict=True
    ):
        np.testing.assert_allclose(
            actual, expected, rtol=tolerance, atol=tolerance / 10, err_msg=name
        )


def test_trainable_methods_list_exactly_their_variables():
    trainable = {
        "uncertainty": ["log_variances"],
        "gradnorm": ["logits"],
        "imtl_l": ["log_scales"],
    }
    for case in CASES:
        variables = make(case).trainable_variables
        assert [v.name for v in variables] == trainable.get(method(case), []), case
        assert all(v.shape == (4,) for v in variables)


@each_representative
def test_replicas_share_the_state(case):
    for variable in make(case).non_trainable_variables:
        assert variable.aggregation in ("only_first_replica", "mean"), variable.path


@each_representative
def test_bad_learning_rates_are_refused(case):
    for rate in (0, -1.0, float("nan"), float("inf"), True, "0.1"):
        with pytest.raises(ValueError, match=f"`learning_rate` must be .*Received: .*{rate}"):
            type(make(case))(learning_rate=rate)
    assert type(make(case))(learning_rate=0.5).learning_rate == 0.5
