"""What Keras users do with a model must work, and the figures must be the ones promised."""

import copy
import time

import keras
import numpy as np
import pytest
from marks import slow
from networks import (
    LOSSES,
    cross_entropy,
    element_losses,
    grouped_data,
    grouped_model,
    skip_on,
    two_headed_data,
    two_headed_model,
    two_headed_network,
)

import keras_taskrobust as ktr
from keras_taskrobust.training.task_metric import check_log_names

#: Stateless, with a state, trainable, and trainable on the Gramian; the rest are slow tests.
REPRESENTATIVES = ("minimax", "group_dro", "uncertainty", "gradnorm")
EVERY_WEIGHTING = [
    name if name in REPRESENTATIVES else slow(name) for name in ktr.weighting.available()
]


def test_logs_are_exact_totals_over_counts_of_the_epoch():
    model = grouped_model(optimizer=keras.optimizers.SGD(0.0), weighting="uniform")
    x, y = grouped_data()
    history = model.fit(x, y, batch_size=5, epochs=1, shuffle=False, verbose=0).history
    losses = element_losses(model.predict(x, verbose=0), y["labels"])
    means = [losses[y["groups"] == group].mean() for group in range(3)]
    for name, mean in zip("abc", means, strict=True):
        assert history[f"{name}_loss"][0] == pytest.approx(mean, rel=1e-5)
    assert history["worst_loss"][0] == pytest.approx(max(means), rel=1e-5)
    assert history["mean_loss"][0] == pytest.approx(np.mean(means), rel=1e-5)


def test_loss_is_the_weighted_objective():
    model = grouped_model(weighting=ktr.weighting.SoftmaxWeightedLoss(alpha=3.0))
    x, y = grouped_data()
    losses = element_losses(model.predict(x, verbose=0), y["labels"])
    means = np.array([losses[y["groups"] == group].mean() for group in range(3)])
    weights = np.exp(3.0 * (means - means.max()))
    weights /= weights.sum()
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx((weights * means).sum(), rel=1e-5)
    assert [logs[f"{n}_weight"] for n in "abc"] == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("weighting", [slow("minimax"), "mgda", "uncertainty"])
def test_a_compiled_step_is_traced_once(weighting, monkeypatch):
    steps = []
    train_step = ktr.MinimaxModel.train_step
    monkeypatch.setattr(
        ktr.MinimaxModel,
        "train_step",
        lambda model, *args: steps.append(1) or train_step(model, *args),
    )
    model = two_headed_model(optimizer="adam", weighting=weighting)
    x, y = two_headed_data(number=12)
    model.fit(x, y, batch_size=4, verbose=0)
    assert len(steps) == (3 if keras.backend.backend() == "torch" else 1)


def test_a_task_never_seen_is_nan_and_in_neither_worst_nor_mean():
    model = grouped_model()
    x, y = grouped_data()
    y["groups"][y["groups"] == 1] = -1
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isnan(logs["b_loss"])
    assert logs["b_weight"] == 0.0
    assert logs["worst_loss"] == max(logs["a_loss"], logs["c_loss"])
    assert logs["mean_loss"] == pytest.approx((logs["a_loss"] + logs["c_loss"]) / 2)


def test_a_broken_loss_names_its_task():
    model = two_headed_model()
    x, y = two_headed_data()
    y["level"][3] = np.nan
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isinf(logs["level_loss"])
    assert np.isfinite(logs["kind_loss"])
    assert not np.isfinite(logs["loss"])


def test_sample_weight_multiplies_totals_and_its_sum_is_the_count():
    model = grouped_model(weighting="uniform")
    x, y = grouped_data()
    weight = np.linspace(0.0, 2.0, len(x)).astype("float32")
    losses = element_losses(model.predict(x, verbose=0), y["labels"])
    wide = np.broadcast_to(weight[:, None], losses.shape)
    inside = y["groups"] == 2
    expected = (losses * wide)[inside].sum() / wide[inside].sum()
    logs = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert logs["c_loss"] == pytest.approx(expected, rel=1e-5)


def test_sample_weight_by_output_and_a_missing_label():
    model = two_headed_model()
    x, y = two_headed_data()
    weights = {"level": np.ones(len(x), "float32"), "kind": np.zeros(len(x), "float32")}
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    assert np.isnan(logs["kind_loss"])
    assert logs["loss"] == pytest.approx(logs["level_loss"], rel=1e-6)


def test_a_keras_mask_excludes_elements():
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    network = keras.Model(inputs, {"next": keras.layers.Dense(7, name="next")(embedded)})
    model = ktr.MinimaxModel(network)
    model.compile("sgd", loss={"next": cross_entropy})
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], "int32")
    y = np.array([[2, 3, 0, 0], [1, 0, 0, 0]], "int32")
    losses = element_losses(model.predict(x, verbose=0)["next"], y)
    logs = model.evaluate(x, {"next": y}, verbose=0, return_dict=True)
    assert logs["next_loss"] == pytest.approx(losses[x > 0].mean(), rel=1e-5)


def test_auxiliary_and_regulariser_are_in_the_loss_and_not_in_the_weighting():
    network = two_headed_network(regulariser=keras.regularizers.L2(0.1))
    model = two_headed_model(
        network, loss={"kind": cross_entropy}, auxiliary={"level": "mse"}, weighting="minimax"
    )
    x, y = two_headed_data()
    outputs = model.predict(x, verbose=0)
    auxiliary = np.mean((outputs["level"] - y["level"]) ** 2)
    kernel = keras.ops.convert_to_numpy(network.layers[1].kernel)
    logs = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    assert model.task_names == ("kind",)
    assert logs["kind_weight"] == 1.0
    expected = logs["kind_loss"] + auxiliary + 0.1 * np.sum(kernel**2)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_metrics_see_labels_and_weighted_metrics_the_groups():
    model = grouped_model(
        metrics=["accuracy"],
        weighted_metrics=[
            keras.metrics.MeanMetricWrapper(
                keras.metrics.sparse_categorical_accuracy, name="inside"
            )
        ],
    )
    x, y = grouped_data()
    correct = model.predict(x, verbose=0).argmax(-1) == y["labels"]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(correct.mean(), abs=1e-6)
    assert logs["inside"] == pytest.approx(correct[y["groups"] >= 0].mean(), abs=1e-6)


def test_metrics_by_output():
    model = two_headed_model(metrics={"kind": ["accuracy"]})
    x, y = two_headed_data()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = np.mean(model.predict(x, verbose=0)["kind"].argmax(-1) == y["kind"])
    assert logs["kind_accuracy"] == pytest.approx(expected)


def test_validation_figures_come_with_val_and_callbacks_see_them():
    model = two_headed_model()
    x, y = two_headed_data()
    stop = keras.callbacks.EarlyStopping("val_worst_loss", mode="min", patience=0, min_delta=1e9)
    history = model.fit(x, y, validation_data=(x, y), epochs=5, callbacks=[stop], verbose=0).history
    assert len(history["loss"]) == 2
    train_logs = {name for name in history if not name.startswith("val_")}
    assert {f"val_{name}" for name in train_logs} == {n for n in history if n.startswith("val_")}


@pytest.mark.parametrize("weighting", [slow("minimax"), "uncertainty"])
def test_learning_rate_callbacks_and_schedules_drive_the_given_optimizer(weighting):
    x, y = two_headed_data()
    model = two_headed_model(optimizer=keras.optimizers.Adam(0.5), weighting=weighting)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.25)
    history = model.fit(x, y, callbacks=[schedule], verbose=0).history
    assert history["learning_rate"] == [0.25]
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == 0.25
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    model = two_headed_model(optimizer=keras.optimizers.SGD(decay), weighting=weighting)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 4
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert rate == pytest.approx(0.6)


def test_weighting_variables_have_their_own_rate_and_no_weight_decay():
    weighting = ktr.weighting.UncertaintyWeighting(learning_rate=0.125)
    optimizer = keras.optimizers.AdamW(0.5, weight_decay=0.9, global_clipnorm=1e-9)
    model = two_headed_model(optimizer=optimizer, weighting=weighting)
    weighting.log_variances.assign([1.0, -1.0])
    x, y = two_headed_data()
    before = keras.ops.convert_to_numpy(weighting.log_variances).copy()
    model.train_on_batch(x, y)
    moved = np.abs(keras.ops.convert_to_numpy(weighting.log_variances) - before)
    # Adam's first step has the length of its rate; decay would add 0.9 * 0.125 to it.
    assert moved == pytest.approx([0.125, 0.125], rel=1e-3)


@pytest.mark.parametrize("weighting", ["minimax", slow("uncertainty"), "gradnorm"])
def test_gradient_accumulation(weighting):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = two_headed_model(optimizer=optimizer, weighting=weighting)
    x, y = two_headed_data()
    start = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.train_on_batch(x, y)
    after_one = [keras.ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.train_on_batch(x, y)
    after_two = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    assert all(np.array_equal(a, b) for a, b in zip(start, after_one, strict=True))
    assert not any(
        np.array_equal(a, b) for a, b in zip(start, after_two, strict=True) if a.size > 3
    )


@pytest.mark.parametrize(
    ("policy", "weighting"),
    [
        ("mixed_float16", "gradnorm"),
        ("mixed_bfloat16", "minimax"),
        slow("mixed_float16", "minimax"),
        slow("mixed_float16", "uncertainty"),
        slow("mixed_bfloat16", "uncertainty"),
        slow("mixed_bfloat16", "gradnorm"),
    ],
)
def test_mixed_precision_trains(policy, weighting):
    x, y = two_headed_data()
    keras.config.set_dtype_policy(policy)
    try:
        model = two_headed_model(
            optimizer=keras.optimizers.SGD(0.05), weighting=weighting, loss=dict(LOSSES)
        )
        history = model.fit(x, y, epochs=15, batch_size=len(x), verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert history["mean_loss"][-1] < 0.99 * history["mean_loss"][0]
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (
        policy == "mixed_float16"
    )


@skip_on("torch")
@pytest.mark.parametrize("weighting", [slow("minimax"), "gradnorm"])
def test_jit_and_several_steps_per_execution_change_nothing(weighting):
    x, y = two_headed_data()
    results = []
    weights = two_headed_network().get_weights()
    for arguments in ({"jit_compile": False}, {"jit_compile": True}, {"steps_per_execution": 4}):
        network = two_headed_network()
        network.set_weights(weights)
        model = two_headed_model(network, weighting=weighting, **arguments)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("weighting", EVERY_WEIGHTING)
def test_save_load_and_continue_equals_an_uninterrupted_run(weighting, tmp_path):
    x, y = two_headed_data()
    layer = ktr.weighting.get(weighting)
    if weighting == "minimax":
        layer = ktr.weighting.SoftmaxWeightedLoss(
            ktr.weighting.SquareRootSchedule(2.0), loss_momentum=0.9
        )
    if weighting == "group_dro":
        layer = ktr.weighting.GroupDRO(0.1, loss_momentum=0.9, adjustment=1.0, group_sizes=[9, 2])
    optimizer = keras.optimizers.AdamW(1e-2, global_clipnorm=1.0)
    model = two_headed_model(two_headed_network(dropout=0.3), optimizer=optimizer, weighting=layer)

    def train(model):
        return model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history

    train(model)
    model.save(tmp_path / "model.keras")
    uninterrupted = train(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert train(loaded) == uninterrupted
    for a, b in zip(model.variables, loaded.variables, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_save_weights_holds_the_weighting(tmp_path):
    model = two_headed_model(weighting=ktr.weighting.GroupDRO(step_size=1.0))
    x, y = two_headed_data()
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other = two_headed_model(weighting=ktr.weighting.GroupDRO(step_size=1.0))
    other.load_weights(tmp_path / "model.weights.h5")
    state = keras.ops.convert_to_numpy(model.weighting.log_probabilities)
    assert np.ptp(state) > 0
    assert np.array_equal(keras.ops.convert_to_numpy(other.weighting.log_probabilities), state)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
def test_export_after_fit(tmp_path):
    model = two_headed_model()
    x, y = two_headed_data()
    model.fit(x, y, verbose=0)
    model.export(tmp_path / "model", verbose=False)
    served = keras.layers.TFSMLayer(tmp_path / "model", call_endpoint="serve")(x)
    for name, output in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(keras.ops.convert_to_numpy(served[name]), output, atol=1e-6)


@pytest.mark.parametrize("weighting", EVERY_WEIGHTING)
def test_evaluate_moves_no_state(weighting):
    model = two_headed_model(weighting=weighting)
    x, y = two_headed_data()
    model.fit(x, y, verbose=0)
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.weighting.variables]
    model.evaluate(x, y, verbose=0)
    for a, b in zip(before, model.weighting.variables, strict=True):
        assert np.array_equal(a, keras.ops.convert_to_numpy(b))


def test_compiling_again_forgets_the_old_weighting():
    model = two_headed_model(weighting="uncertainty")
    x, y = two_headed_data()
    model.fit(x, y, verbose=0)
    model.compile("adam", loss=LOSSES, weighting="gradnorm")
    assert len(model.trainable_variables) == len(model.network.trainable_variables) + 1
    assert [v.name for v in model.weighting.trainable_variables] == ["logits"]
    history = model.fit(x, y, verbose=0).history
    assert len(history) == len(set(history)) == 7


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_compiling_again_with_the_models_own_optimizer(policy, tmp_path):
    x, y = two_headed_data()
    keras.config.set_dtype_policy(policy)
    try:
        model = two_headed_model(weighting="uncertainty")
        model.fit(x, y, verbose=0)
        for weighting in ("uncertainty", "uniform"):
            model.compile(model.optimizer, loss=LOSSES, weighting=weighting)
            history = model.fit(x, y, verbose=0).history
            assert np.isfinite(history["loss"][0])
            model.save(tmp_path / "model.keras")
            keras.models.load_model(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("weighting", ["uniform", "uncertainty"])
def test_moving_averages_are_swapped_in_for_evaluation(weighting):
    x, y = two_headed_data()
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=1.0)
    model = two_headed_model(optimizer=optimizer, weighting=weighting)
    model.train_on_batch(x, y)  # After it, the averages stay.
    expected = model.evaluate(x, y, verbose=0, return_dict=True)["mean_loss"]
    model.train_on_batch(x, y)
    weights = model.network.get_weights()
    found = model.evaluate(
        x, y, verbose=0, return_dict=True, callbacks=[keras.callbacks.SwapEMAWeights()]
    )
    assert found["mean_loss"] == pytest.approx(expected, rel=1e-5)
    for before, after in zip(weights, model.network.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


class Halves(ktr.weighting.TaskWeighting):
    def weigh(self, tasks):
        return keras.ops.ones_like(tasks.losses) / 2.0


def test_a_weighting_of_the_users_own():
    model = two_headed_model(weighting=Halves())
    x, y = two_headed_data()
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["mean_loss"], rel=1e-6)


def test_outputs_in_a_list_go_by_their_names():
    inputs = keras.Input((5,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("left", "right")]
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile("sgd", loss={"left": "mse", "right": "mae"})
    x, y = two_headed_data()
    targets = {"left": y["level"], "right": y["level"]}
    left, right = model.predict(x, verbose=0)
    logs = model.evaluate(x, targets, verbose=0, return_dict=True)
    assert logs["left_loss"] == pytest.approx(np.mean((left - y["level"]) ** 2), rel=1e-5)
    assert logs["right_loss"] == pytest.approx(np.mean(np.abs(right - y["level"])), rel=1e-5)


def test_outputs_in_a_list_must_have_distinct_names():
    inputs = keras.Input((5,))
    head = keras.layers.Dense(1, name="head")
    model = ktr.MinimaxModel(keras.Model(inputs, [head(inputs), head(-inputs)]))
    model.compile("sgd", loss={"head": "mse"})
    x, y = two_headed_data()
    with pytest.raises(ValueError, match=r"distinct names.*Received: \['head', 'head'\]"):
        model.fit(x, [y["level"], y["level"]], verbose=0)


class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(inputs), self.head(-inputs)


@pytest.mark.parametrize("loss", [{"first": "mse"}, ktr.GroupedLoss("mse", ("first",))])
def test_a_tuple_of_outputs_without_names_is_refused(loss):
    model = ktr.MinimaxModel(Pair())
    model.compile("sgd", loss=loss)
    x, y = two_headed_data()
    target = {"labels": y["level"], "groups": np.zeros(len(x), "int32")}
    with pytest.raises(ValueError, match=r"one tensor or a dict. Received: outputs as a tuple"):
        model.fit(x, y["level"] if isinstance(loss, dict) else target, verbose=0)


@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_inputs_in_a_dict_or_tuple(form):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    inputs = {"a": a, "b": b} if form == "dict" else (a, b)
    network = keras.Model(inputs, {"sum": keras.layers.Dense(1, name="sum")(a + b)})
    model = ktr.MinimaxModel(network)
    model.compile("sgd", loss={"sum": "mse"})
    data = [np.ones((4, 2), "float32"), np.zeros((4, 2), "float32")]
    x = dict(zip("ab", data, strict=True)) if form == "dict" else tuple(data)
    history = model.fit(x, {"sum": np.ones((4, 1), "float32")}, verbose=0).history
    assert np.isfinite(history["sum_loss"][0])


def test_a_grain_data_set_feeds_fit():
    grain = pytest.importorskip("grain")
    x, y = grouped_data()
    source = grain.MapDataset.source(
        [(x[i : i + 4], {k: v[i : i + 4] for k, v in y.items()}) for i in range(0, 16, 4)]
    )
    history = (
        grouped_model().fit(source, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0).history
    )
    assert len(history["a_loss"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": {}}, "at least one output name"),
        ({"loss": "mse"}, "`loss` must be a GroupedLoss, or a dict"),
        ({"loss": LOSSES, "loss_weights": {"level": 1.0}}, "`loss_weights` is not supported"),
        ({"loss": LOSSES, "weighting": "nope"}, "Expected one of .*minimax.* Received: 'nope'"),
        ({"loss": LOSSES, "weighting": 3}, "must be a name, a config dict or a TaskWeighting"),
        ({"loss": LOSSES, "auxiliary": {"kind": "mse"}}, "task and auxiliary.*kind"),
        ({"loss": {"worst": "mse", "kind": "mse"}}, "share the logs .*worst_loss"),
        ({"loss": {"a": "mse", "val_a": "mse"}}, "share the logs .*val_a_loss"),
        ({"loss": {"kind": ["mse"]}}, "must be a Keras loss name"),
    ],
)
def test_compile_refuses(arguments, message):
    model = ktr.MinimaxModel(two_headed_network())
    with pytest.raises((ValueError, TypeError), match=message):
        model.compile("sgd", **arguments)


def test_loss_keys_must_match_the_outputs():
    model = two_headed_model(loss={"level": "mse", "colour": "mse"})
    x, y = two_headed_data()
    with pytest.raises(ValueError, match=r"no outputs for \['colour'\], only for"):
        model.fit(x, {**y, "colour": y["level"]}, verbose=0)


def test_a_weighting_built_for_another_number_of_tasks_is_refused():
    weighting = ktr.weighting.SoftmaxWeightedLoss()
    two_headed_model(weighting=weighting)
    with pytest.raises(ValueError, match="built for 2 tasks .* Received: 3 tasks"):
        grouped_model(weighting=weighting)


def test_group_ids_out_of_range_are_refused_in_arrays_and_break_the_loss_in_data_sets():
    model = grouped_model()
    x, y = grouped_data()
    y["groups"][0, 0] = 3
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="between -1 .no task. and 2 .*from -1 to 3"):
            call(x, y)
    with pytest.warns(UserWarning, match="became NaN or infinite.*group ids their range"):
        logs = model.fit(
            ((x, y) for _ in range(1)), shuffle=False, steps_per_epoch=1, verbose=0
        ).history
    assert not np.isfinite(logs["worst_loss"][0])


def test_a_multi_optimizer_is_refused_where_the_weighting_trains():
    main = keras.optimizers.SGD()
    multi = keras.optimizers.MultiOptimizer(lambda variable: main)
    with pytest.raises(ValueError, match="must not be a MultiOptimizer"):
        two_headed_model(optimizer=multi, weighting="uncertainty")


def test_gradnorm_needs_a_shared_variable():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    outputs = {"p": keras.layers.Dense(1, name="p")(a), "q": keras.layers.Dense(1, name="q")(b)}
    model = ktr.MinimaxModel(keras.Model({"a": a, "b": b}, outputs))
    model.compile("sgd", loss={"p": "mse", "q": "mse"}, weighting="gradnorm")
    ones = np.ones((4, 2), "float32")
    with pytest.raises(ValueError, match="no trainable variable is shared"):
        model.fit({"a": ones, "b": ones}, {"p": ones[:, :1], "q": ones[:, :1]}, verbose=0)


def test_from_config_leaves_its_argument():
    model = two_headed_model(weighting=ktr.weighting.AdaptiveGroups(2))
    config, compiled = model.get_config(), model.get_compile_config()
    copies = copy.deepcopy((config, compiled))
    first, second = (ktr.MinimaxModel.from_config(config) for _ in range(2))
    assert first.count_params() == second.count_params()
    first.compile_from_config(compiled)
    ktr.weighting.get(compiled["weighting"])
    assert (config, compiled) == copies


def test_names_of_many_tasks_are_compared_in_no_time():
    names = [f"task_{number}" for number in range(30_000)]
    started = time.process_time()
    check_log_names(names)
    assert time.process_time() - started < 2.0
    with pytest.raises(ValueError, match=r"share the logs \['task_7_loss', 'task_7_triv"):
        check_log_names([*names, "task_7"])


@pytest.mark.parametrize("weighting", ["uniform", "minimax"])
def test_accumulation_takes_the_mean_of_the_small_batches_weighted_gradients(weighting):
    """Also where a task is absent from one of them: the large batch takes another step."""
    x, y = grouped_data(8)
    y["groups"][:4][y["groups"][:4] == 1] = -1
    halves = [(x[:4], {k: v[:4] for k, v in y.items()}), (x[4:], {k: v[4:] for k, v in y.items()})]
    model = grouped_model(weighting=weighting)
    start = model.network.get_weights()

    def update(batches, **arguments):
        model.network.set_weights(start)
        optimizer = keras.optimizers.SGD(0.1, **arguments)
        loss = ktr.GroupedLoss(cross_entropy, ("a", "b", "c"))
        model.compile(optimizer, loss, weighting=ktr.weighting.get(weighting))
        for batch in batches:
            model.train_on_batch(*batch)
        return np.concatenate(
            [
                (now - then).ravel()
                for now, then in zip(model.network.get_weights(), start, strict=True)
            ]
        )

    accumulated = update(halves, gradient_accumulation_steps=2)
    parts = [update([half]) for half in halves]
    np.testing.assert_allclose(accumulated, np.mean(parts, axis=0), rtol=1e-4, atol=1e-6)
    large = update([(x, y)])
    assert np.linalg.norm(large - accumulated) > 0.05 * np.linalg.norm(large)
