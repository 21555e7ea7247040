"""The base class, the registry, the shared functions, and weightings of the user's own."""

import keras
import numpy as np
import pytest
from autodiff import compiled, to_numpy
from keras import ops
from scipy import special

import keras_taskrobust as ktr
from keras_taskrobust.weighting import TaskWeighting, available, get, register
from keras_taskrobust.weighting.base import masked_mean, masked_softmax, moving_average

# The registry.

LIBRARY = {
    "minimax": ktr.weighting.SoftmaxWeightedLoss,
    "uniform": ktr.weighting.UniformWeighting,
    "pooled": ktr.weighting.PooledWeighting,
    "hard_max": ktr.weighting.HardMaximum,
    "uncertainty": ktr.weighting.UncertaintyWeighting,
    "gradnorm": ktr.weighting.GradNorm,
    "dwa": ktr.weighting.DynamicWeightAverage,
    "group_dro": ktr.weighting.GroupDRO,
}


@pytest.mark.parametrize("name", LIBRARY)
def test_get_by_name(name):
    layer = get(name)
    assert type(layer) is LIBRARY[name]
    assert layer.name == name
    assert not layer.built
    assert get(name) is not layer


def test_available_is_sorted_and_complete():
    assert list(available()) == sorted(available())
    assert set(LIBRARY) <= set(available())


def test_get_returns_a_layer_as_it_is():
    layer = LIBRARY["minimax"](alpha=3.0)
    assert get(layer) is layer


def test_the_room_shows_its_public_names_and_no_module_of_a_method():
    shown = [name for name in dir(ktr.weighting) if not name.startswith("__")]
    assert shown == sorted([*ktr.weighting.__all__, "base", "registry"])
    assert all(hasattr(ktr.weighting, name) for name in shown)


def test_a_layer_that_was_saved_before_its_module_moved_opens():
    config = keras.saving.serialize_keras_object(LIBRARY["minimax"](alpha=3.0))
    config["module"] = "keras_taskrobust.weighting.minimax"
    assert get(config).alpha == 3.0


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="Received: 'minmax'") as error:
        get("minmax")
    for name in LIBRARY:
        assert name in str(error.value)


@pytest.mark.parametrize("wrong", [None, 3, 1.5, LIBRARY["minimax"], keras.layers.Dense(1), []])
def test_get_refuses_other_things(wrong):
    with pytest.raises(TypeError, match=r"must be a name, a config dict or a TaskWeighting.*Rec"):
        get(wrong)


@pytest.mark.parametrize(
    ("wrong", "way_out"),
    [
        ("scale-free-minimax", r"Did you mean 'scale_free_minimax'\?"),
        ("Minimax", r"Did you mean 'minimax'\?"),
        (LIBRARY["minimax"], r"Give an instance: `SoftmaxWeightedLoss\(\)`"),
        ({"minimax": {"alpha": 2.0}}, r'weighting\.create\("minimax", \{"alpha": 2\.0\}\)'),
        (lambda losses: losses, r"a subclass of TaskWeighting with `weigh\(self, tasks\)`"),
    ],
)
def test_get_names_the_way_out(wrong, way_out):
    with pytest.raises((TypeError, ValueError), match=way_out):
        get(wrong)


def test_weights_of_another_number_than_the_tasks_are_refused():
    class Short(TaskWeighting):
        def weigh(self, tasks):
            return keras.ops.ones(2)

    message = r"`weights` must have the shape \(3,\)\. Received: weights of shape \(2,\)"
    with pytest.raises(ValueError, match=message):
        Short()(np.ones(3))


def test_get_refuses_the_configuration_of_another_object():
    with pytest.raises(TypeError, match=r"must be a name.*Received: <Dense"):
        get(keras.saving.serialize_keras_object(keras.layers.Dense(1)))


@pytest.mark.parametrize("wrong", [int, keras.layers.Dense, lambda tasks: tasks, 3])
def test_register_refuses_what_is_no_weighting(registry, wrong):
    before = dict(registry)
    with pytest.raises(TypeError, match=r"expects a subclass of TaskWeighting. Received: "):
        register("wrong")(wrong)
    assert registry == before


@pytest.mark.parametrize("wrong", [None, 3, ktr.weighting.UniformWeighting])
def test_register_needs_a_name(wrong):
    with pytest.raises(TypeError, match="`register` expects a name.*Received: "):
        register(wrong)


def test_a_name_is_registered_once(registry):
    class First(TaskWeighting):
        pass

    register("taken")(First)

    class Second(TaskWeighting):
        pass

    with pytest.raises(ValueError, match=r"'taken' is registered already.*First"):
        register("taken")(Second)
    assert registry["taken"] is First


def test_a_class_may_be_defined_again(registry):
    """As when a notebook cell runs twice, or a module is reloaded."""

    def define():
        @register("again")
        class Again(TaskWeighting):
            pass

        return Again

    define()
    second = define()
    assert type(get("again")) is second


def test_the_library_s_own_classes_are_not_replaced(registry):
    """Neither under the same name, nor, in saved models, by a class of the same class name."""
    own = type("GradNorm", (TaskWeighting,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match="'gradnorm' is registered already.*Rec.*elsewhere.Grad"):
        register("gradnorm")(own)
    register("my_gradnorm")(own)
    for cls in (own, ktr.weighting.GradNorm):
        assert type(get(keras.saving.serialize_keras_object(cls()))) is cls
    assert type(get("gradnorm")) is ktr.weighting.GradNorm
    assert type(get("my_gradnorm")) is own


# A weighting of the user's own.


class Squares(TaskWeighting):
    def weigh(self, tasks):
        return tasks.losses**2


def test_a_subclass_needs_only_weigh():
    layer = Squares()
    objective, weights = layer(
        np.array([1.0, 2.0, np.nan]), counts=np.array([1, 1, 0]), return_weights=True
    )
    np.testing.assert_allclose(to_numpy(weights), [1.0, 4.0, 0.0])
    assert float(objective) == 9.0
    assert layer.variables == []


def test_a_subclass_that_divides_by_an_absent_task_s_zero_is_masked():
    class Inverse(TaskWeighting):
        def weigh(self, tasks):
            return 1.0 / tasks.losses

    layer = Inverse()
    arguments = {"counts": np.array([1, 0]), "return_weights": True}
    objective, weights = layer(np.array([2.0, 5.0]), **arguments)
    np.testing.assert_array_equal(to_numpy(weights), [0.5, 0.0])
    assert float(objective) == 1.0


def test_a_registered_subclass_goes_by_its_name_and_saves(registry):
    @register("powers")
    class Powers(TaskWeighting):
        def __init__(self, exponent=2.0, **kwargs):
            super().__init__(**kwargs)
            self.exponent = exponent

        def weigh(self, tasks):
            return tasks.losses**self.exponent

        def get_config(self):
            return {**super().get_config(), "exponent": self.exponent}

    assert "powers" in available()
    assert get("powers").exponent == 2.0
    copy = get(keras.saving.serialize_keras_object(Powers(3.0, learning_rate=0.5)))
    assert (type(copy), copy.exponent, copy.learning_rate) == (Powers, 3.0, 0.5)
    np.testing.assert_allclose(to_numpy(copy.compute_weights(np.array([1.0, 2.0]))), [1.0, 8.0])


class Counting(TaskWeighting):
    """Weighs a task by how often it was seen before."""

    def create_state(self, num_tasks):
        self.seen = self.add_state("seen")
        self.calls = self.add_state("calls", shape=())
        self.limit = self.add_state("limit", initializer="ones", shape=(2, 3))

    def weigh(self, tasks):
        return self.seen / ops.maximum(self.calls, 1.0)

    def next_state(self, tasks):
        present = ops.cast(tasks.present, "float32")
        return [(self.seen, self.seen + present), (self.calls, self.calls + 1.0)]


def test_a_subclass_may_keep_state():
    layer = Counting()
    layer.build((3,))
    assert [v.shape for v in layer.non_trainable_variables] == [(3,), (), (2, 3)]
    assert layer.trainable_variables == []
    call = compiled(layer)
    gramian = np.eye(3, dtype="float32")
    for counts in ([1, 1, 0], [1, 0, 0], [0, 2, 0]):
        call(np.ones(3, "float32"), np.array(counts, "float32"), gramian)
    np.testing.assert_array_equal(to_numpy(layer.seen), [2, 2, 0])
    assert float(layer.calls) == 3
    np.testing.assert_allclose(to_numpy(layer.compute_weights(np.ones(3))), [2 / 3, 2 / 3, 0])
    layer(np.ones(3), training=False)
    assert float(layer.calls) == 3


def test_new_states_are_computed_before_any_is_assigned():
    class Exchange(TaskWeighting):
        def create_state(self, num_tasks):
            self.one = self.add_state("one", "zeros")
            self.two = self.add_state("two", "ones")

        def weigh(self, tasks):
            return self.one + 0.0

        def next_state(self, tasks):
            return [(self.one, self.two + 0.0), (self.two, self.one + 0.0)]

    layer = Exchange()
    layer(np.ones(2))
    np.testing.assert_array_equal(to_numpy(layer.one), [1, 1])
    np.testing.assert_array_equal(to_numpy(layer.two), [0, 0])


def test_a_subclass_without_weigh_says_what_is_missing():
    class Empty(TaskWeighting):
        pass

    with pytest.raises((TypeError, NotImplementedError), match="Empty must define `weigh"):
        Empty().compute_weights(np.ones(2))


def test_a_regulariser_is_added_to_the_objective():
    class Penalised(Squares):
        def regulariser(self, tasks):
            return 10.0

    assert float(Penalised()(np.array([1.0, 2.0]))) == 19.0
    np.testing.assert_array_equal(to_numpy(Penalised().compute_weights(np.array([1.0]))), [1.0])


# Building and calling.


@pytest.mark.parametrize("shape", [(0,), (), (3, 1), (None,), (None, 3)])
def test_a_layer_needs_at_least_one_task(shape):
    with pytest.raises(ValueError, match=r"shape \(K,\) of K >= 1 .*Received: input_shape="):
        Squares().build(shape)


@pytest.mark.parametrize("losses", [np.zeros(0), np.float32(1.0), np.ones((3, 1))])
def test_a_call_needs_a_vector(losses):
    for call in (Squares(), Squares().compute_weights):
        with pytest.raises(ValueError, match=r"shape \(K,\) of K >= 1 .*Received: input_shape="):
            call(losses)


def test_a_first_call_builds():
    for arguments in (
        {},
        {"counts": np.ones(3)},
        {"counts": np.ones(3), "gramian": np.eye(3), "training": True, "return_weights": True},
    ):
        layer = Counting()
        layer(np.ones(3), **arguments)
        assert layer.num_tasks == 3
        assert float(layer.calls) == 1


def test_no_gradient_flows_through_the_weights():
    from autodiff import gradient

    slope = gradient(lambda losses: Squares()(losses), np.array([1.0, 2.0]))
    np.testing.assert_allclose(slope, [1.0, 4.0])


def test_a_layer_inside_a_model_follows_the_model_s_mode():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.weighting = Counting()

        def call(self, losses):
            return self.weighting(losses)

    model = Model()
    model(np.ones(3, "float32"), training=True)
    model(np.ones(3, "float32"), training=False)
    assert float(model.weighting.calls) == 1


# The shared functions.


def test_masked_softmax_is_the_softmax_of_the_present():
    values = np.array([0.3, 900.0, -2.0, 1.7], "float32")
    present = np.array([True, False, True, True])
    expected = np.zeros(4)
    expected[present] = special.softmax(2.5 * values[present].astype("float64"))
    actual = to_numpy(masked_softmax(ops.array(values), ops.array(present), scale=2.5))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_masked_softmax_is_precise_for_large_scales():
    values = np.array([100.0, 100.0 + 2**-10, 99.0], "float32")
    expected = special.softmax(1e4 * values.astype("float64"))
    actual = to_numpy(masked_softmax(ops.array(values), ops.array([True] * 3), scale=1e4))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_masked_functions_of_nothing_are_zero():
    values, nobody = ops.array([1.0, 2.0]), ops.array([False, False])
    np.testing.assert_array_equal(to_numpy(masked_softmax(values, nobody)), [0.0, 0.0])
    assert float(masked_mean(values, nobody)) == 0.0


def test_masked_mean():
    values = ops.array([1.0, np.nan, 4.0])
    assert float(masked_mean(values, ops.array([True, False, True]))) == 2.5


def test_moving_average_starts_at_the_first_value():
    average, seen = ops.zeros(2), ops.zeros(2)
    for values, present in (
        ([4.0, 9.0], [True, False]),
        ([2.0, 6.0], [True, True]),
        ([0.0, 7.0], [False, True]),
    ):
        average, seen = moving_average(average, seen, ops.array(values), ops.array(present), 0.75)
    np.testing.assert_allclose(to_numpy(average), [3.5, 6.25])
    np.testing.assert_array_equal(to_numpy(seen), [1, 1])
