"""Continuing a killed run to the same numbers, from a checkpoint that is whole."""

import os
import pickle
import shutil
import time

import keras
import numpy as np
import pytest
from networks import two_headed_data, two_headed_model, two_headed_network

import keras_taskrobust as ktr
from keras_taskrobust.training.callbacks import Checkpoint


def test_a_run_from_a_checkpoint_equals_an_uninterrupted_one(tmp_path):
    x, y = two_headed_data()
    weights = two_headed_network().get_weights()

    def make():
        network = two_headed_network(dropout=0.3)
        network.set_weights(weights)
        optimizer = keras.optimizers.AdamW(1e-2)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        weighting = ktr.weighting.UncertaintyWeighting(learning_rate=0.1)
        return two_headed_model(network, optimizer=optimizer, weighting=weighting)

    def fit(model, epochs, start=0, **arguments):
        return model.fit(
            x,
            y,
            batch_size=8,
            epochs=epochs,
            initial_epoch=start,
            shuffle=False,
            verbose=0,
            **arguments,
        ).history

    keras.utils.set_random_seed(1)
    whole = fit(make(), 4)
    keras.utils.set_random_seed(1)
    fit(make(), 2, callbacks=[Checkpoint(tmp_path)])
    model = make()
    start = Checkpoint(tmp_path).restore(model)
    rest = fit(model, 4, start)
    assert start == 2
    assert {name: values[2:] for name, values in whole.items()} == rest


def test_an_epoch_that_goes_on_in_its_middle_ends_as_a_whole_one(tmp_path):
    x, y = two_headed_data()
    weights = two_headed_network().get_weights()

    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 1 and batch == 2:
                raise Killed

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def make(metrics=None, on_nonfinite=None):
        keras.utils.set_random_seed(1)
        network = two_headed_network(dropout=0.3)
        network.set_weights(weights)
        weighting = ktr.weighting.UncertaintyWeighting(learning_rate=0.1)
        return two_headed_model(
            network,
            optimizer="adamw",
            weighting=weighting,
            metrics=metrics,
            on_nonfinite=on_nonfinite,
        )

    def fit(model, checkpoint, epochs, start=0, skipped=0, callbacks=()):
        rest = {name: labels[8 * skipped :] for name, labels in y.items()}
        return model.fit(
            x[8 * skipped :],
            rest,
            batch_size=8,
            epochs=epochs,
            initial_epoch=start,
            shuffle=False,
            verbose=0,
            callbacks=[checkpoint, *callbacks],
        ).history

    whole, saving = make(), {"steps_per_epoch": 4, "minutes": 0}
    expected = fit(whole, Checkpoint(tmp_path / "whole", steps_per_epoch=4), 3)
    with pytest.raises(Killed):
        fit(make(), Checkpoint(tmp_path / "cut", **saving), 3, callbacks=[Kill()])
    checkpoint, model = Checkpoint(tmp_path / "cut", **saving), make()
    assert (checkpoint.restore(model), checkpoint.steps_of_epoch) == (1, 3)
    history = fit(model, checkpoint, 2, 1, 3)
    assert history == {name: values[1:2] for name, values in expected.items()}
    # As after the end of any epoch.
    assert (checkpoint.restore(model), checkpoint.steps_of_epoch) == (2, 0)
    assert fit(model, checkpoint, 3, 2) == {name: values[2:] for name, values in expected.items()}
    for ours, theirs in zip(model.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, theirs)))

    shutil.rmtree(tmp_path / "cut")
    with pytest.raises(Killed):
        fit(make(), Checkpoint(tmp_path / "cut", **saving), 3, callbacks=[Kill()])
    again = Checkpoint(tmp_path / "cut", **saving)
    counting = make(on_nonfinite="skip")  # from now on
    again.restore(counting)
    assert fit(counting, again, 2, 1, 3) == {**history, "skipped_steps": [0.0]}

    shutil.rmtree(tmp_path / "cut")
    with pytest.raises(Killed):
        fit(make(), Checkpoint(tmp_path / "cut", **saving), 3, callbacks=[Kill()])
    other = make({"level": keras.metrics.MeanAbsoluteError()})
    other.evaluate(x, y, verbose=0)  # builds them
    again.restore(other)
    with pytest.raises(ValueError, match="compiled with the metrics of before"):
        fit(other, again, 2, 1, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of a fit of three epochs, and the weights after it."""
    folder = tmp_path_factory.mktemp("saved")
    model = fit_with(Checkpoint(folder), epochs=3)
    return folder, model.get_weights()


def fit_with(checkpoint, model=None, **arguments):
    x, y = two_headed_data()
    model = model or two_headed_model()
    model.fit(x, y, shuffle=False, verbose=0, callbacks=[checkpoint], **arguments)
    return model


def files_of(*epochs):
    return {f"checkpoint-{one:08d}.{ending}" for one in epochs for ending in ("json", "weights.h5")}


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_last_two_checkpoints_are_kept(saved, tmp_path):
    assert names_in(saved[0]) == files_of(2, 3)
    fit_with(Checkpoint(tmp_path, every=2), epochs=5)
    assert names_in(tmp_path) == files_of(4, 5)


def test_names_count_steps_where_they_are_known(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved[0], folder)
    checkpoint, model = Checkpoint(folder, steps_per_epoch=8), two_headed_model()
    assert checkpoint.restore(model) == 3
    fit_with(checkpoint, model, initial_epoch=3, epochs=4)
    steps = {f"checkpoint-step-00000032.{ending}" for ending in ("json", "weights.h5")}
    assert names_in(folder) == files_of(3) | steps
    again = Checkpoint(folder, steps_per_epoch=8)
    assert again.found() == {3, 4}
    assert again.latest() == (folder / "checkpoint-step-00000032.weights.h5", 4)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda weights, json: os.truncate(weights, weights.stat().st_size // 2),
    "empty": lambda weights, json: weights.write_bytes(b""),
    "altered": lambda weights, json: flip_a_bit(weights),
    "without digest": lambda weights, json: json.unlink(),
    "half a digest": lambda weights, json: os.truncate(json, 20),
    "another digest": lambda weights, json: json.write_text("[]"),
    "a deep digest": lambda weights, json: json.write_text("[" * 100_000),
    "of another epoch": lambda weights, json: shutil.copy(
        json.with_name("checkpoint-00000002.json"), json
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_former_one_taken(damage, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved[0], folder)
    path = folder / "checkpoint-00000003.weights.h5"
    damage(path, path.with_name("checkpoint-00000003.json"))
    checkpoint, model = Checkpoint(folder), two_headed_model()
    with pytest.warns(UserWarning, match=f"The checkpoint {path} is damaged.* the one before it"):
        assert checkpoint.restore(model) == 2
    fit_with(checkpoint, model, initial_epoch=2, epochs=3)
    for ours, theirs in zip(model.get_weights(), saved[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert names_in(folder) == files_of(2, 3)
    assert Checkpoint(folder).latest() == (path, 3)


def test_the_last_sound_checkpoint_outlives_damaged_ones(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved[0], folder)
    (folder / "checkpoint-00000002.weights.h5").rename(folder / "checkpoint-00000001.weights.h5")
    (folder / "checkpoint-00000002.json").unlink()
    damaged = folder / "checkpoint-00000004.weights.h5"
    damaged.write_bytes(b"")
    checkpoint, model = Checkpoint(folder), two_headed_model()
    with pytest.warns(UserWarning, match=str(damaged)):
        assert checkpoint.restore(model) == 3
    fit_with(checkpoint, model, initial_epoch=3, epochs=4)
    assert names_in(folder) == files_of(3, 4)
    for path in folder.glob("*.h5"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged") as warned:
        assert checkpoint.restore(model) == 0
    assert len(warned) == 2
    fit_with(checkpoint, model, epochs=1)
    assert checkpoint.latest()[1] == 1


def test_a_checkpoint_is_read_without_pickle(saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    model = two_headed_model()
    assert Checkpoint(saved[0]).restore(model) == 3
    np.testing.assert_array_equal(model.get_weights()[0], saved[1][0])


def test_a_saved_model_with_code_is_refused(tmp_path):
    inputs = keras.Input((5,))
    outputs = keras.layers.Lambda(lambda x: x * 2)(keras.layers.Dense(1)(inputs))
    model = ktr.MinimaxModel(keras.Model(inputs, outputs))
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Lambda|lambda"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_what_is_no_checkpoint_is_left_alone(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved[0], folder)
    strays = {"checkpoint-x.weights.h5", "checkpoint-.json", "checkpoint-00000009.weights.h5.old"}
    for name in strays:
        (folder / name).write_text("")
    # A process that is killed now leaves a digest without weights.
    (folder / "checkpoint-00000004.json").write_text("{}")
    checkpoint, model = Checkpoint(folder), two_headed_model()
    assert checkpoint.restore(model) == 3
    fit_with(checkpoint, model, initial_epoch=3, epochs=4)
    assert names_in(folder) == files_of(3, 4) | strays


def test_checkpoints_that_nobody_restored_are_not_replaced(saved):
    with pytest.raises(ValueError, match=r"`restore` must come before `fit`.*00000003\.weights"):
        fit_with(Checkpoint(saved[0]))
    assert names_in(saved[0]) == files_of(2, 3)


def test_the_seconds_are_those_of_all_starts_up_to_the_checkpoint(tmp_path):
    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            time.sleep(0.2)

    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    x, y = two_headed_data()
    checkpoint = Checkpoint(tmp_path)
    callbacks = [Slow(), Kill(), checkpoint]
    with pytest.raises(Killed):
        two_headed_model().fit(x, y, epochs=3, verbose=0, callbacks=callbacks)
    first = checkpoint.seconds
    resumed, model = Checkpoint(tmp_path), two_headed_model()
    start = resumed.restore(model)
    assert (start, resumed.seconds) == (1, first)
    began = time.perf_counter()
    model.fit(x, y, initial_epoch=1, epochs=3, verbose=0, callbacks=[Slow(), resumed])
    assert first + 0.4 <= resumed.seconds <= first + time.perf_counter() - began
    again = Checkpoint(tmp_path)
    assert (again.restore(two_headed_model()), again.seconds) == (3, resumed.seconds)
