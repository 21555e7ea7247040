"""A killed `fit` that goes on inside its epoch, to the bit of one that nothing interrupted."""

import keras
import numpy as np
import pytest
from networks import RUN_EAGERLY, two_headed_data, two_headed_model, two_headed_network

import keras_taskrobust as ktr

BACKEND = keras.backend.backend()
X, Y = two_headed_data(40)
BATCHES = 5
START = two_headed_network().get_weights()


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


def build():
    keras.utils.set_random_seed(1)
    network = two_headed_network(dropout=0.3)
    network.set_weights(START)
    weighting = ktr.weighting.UncertaintyWeighting(learning_rate=0.1)
    return two_headed_model(
        network,
        optimizer=keras.optimizers.AdamW(1e-2),
        weighting=weighting,
        metrics={"level": "mae"},
        run_eagerly=RUN_EAGERLY,
    )


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        return batch_at(index)


def batch_at(index):
    rows = np.arange(8 * index, 8 * index + 8) % len(X)
    return X[rows], {name: labels[rows] for name, labels in Y.items()}


def arrays():
    return {"x": X, "y": Y, "batch_size": 8, "shuffle": False}


def py_dataset():
    return {"x": Batches(), "shuffle": False}


def generator():
    return {
        "x": (batch_at(index) for index in range(10**6)),
        "shuffle": False,
        "steps_per_epoch": BATCHES,
    }


def grain_map():
    """Another order in each epoch, which a data set that starts anew does not have."""
    import grain

    dataset = grain.MapDataset.range(BATCHES).seed(3).shuffle().repeat().map(batch_at)
    return {"x": dataset, "shuffle": False, "steps_per_epoch": BATCHES}


def grain_iter():
    import grain

    arguments = grain_map()
    return arguments | {"x": arguments["x"].to_iter_dataset(grain.ReadOptions(1, 2))}


def grain_read_ahead():
    """An epoch an iterator, whose batches are read before training needs them."""
    import grain

    dataset = grain.MapDataset.range(BATCHES).map(batch_at)
    return {"x": dataset.to_iter_dataset(grain.ReadOptions(2, 4)), "shuffle": False}


def grain_shuffled_window():
    """An iterator with a state of its own."""
    import grain

    dataset = grain.MapDataset.range(4 * BATCHES).map(batch_at).to_iter_dataset()
    shuffled = grain.experimental.WindowShuffleIterDataset(dataset, window_size=7, seed=1)
    return {"x": shuffled, "shuffle": False, "steps_per_epoch": BATCHES}


def grain_loader():
    import grain

    class Source:
        def __len__(self):
            return BATCHES

        def __getitem__(self, index):
            return batch_at(index)

        def __repr__(self):
            return "batches"  # by which grain knows it again

    sampler = grain.samplers.IndexSampler(BATCHES, seed=2, shuffle=True)
    return {
        "x": grain.DataLoader(data_source=Source(), sampler=sampler),
        "shuffle": False,
        "steps_per_epoch": BATCHES,
    }


def tf_data():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(9, seed=1).batch(8).repeat()
    return {"x": dataset, "shuffle": False, "steps_per_epoch": BATCHES}


DATA = [arrays, py_dataset, generator, grain_iter, grain_read_ahead, grain_shuffled_window]
DATA += [pytest.param(data, marks=pytest.mark.slow) for data in (grain_map, grain_loader)]
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data")
DATA.append(pytest.param(tf_data, marks=needs_tensorflow))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # a `grain` data set has no length
def test_a_killed_fit_goes_on_to_the_bit(data, tmp_path, monkeypatch):
    if data in (grain_iter, grain_shuffled_window):  # of the others there is one state an iterator
        monkeypatch.setattr("keras_taskrobust.training.grain_stream.SECONDS_APART", 0.0)
    whole = build()
    history = whole.fit(**data(), epochs=3, verbose=0).history
    for kill in (KillAt(0, 2), KillAt(1, 3)):
        backup = ktr.BackupAndRestore(tmp_path, minutes=0)
        with pytest.raises(Killed):
            build().fit(**data(), epochs=3, verbose=0, callbacks=[backup, kill])
    model, backup = build(), ktr.BackupAndRestore(tmp_path, minutes=0)
    rest = model.fit(**data(), epochs=3, verbose=0, callbacks=[backup]).history
    assert rest == {name: values[1:] for name, values in history.items()}
    for ours, theirs in zip(state_of(model), state_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    again = build()
    assert again.fit(**data(), epochs=3, verbose=0, callbacks=[backup]).history == {}
    np.testing.assert_array_equal(again.get_weights()[0], whole.get_weights()[0])


def test_data_in_another_order_are_refused(tmp_path):
    backup = ktr.BackupAndRestore(tmp_path)
    for data in (arrays(), py_dataset()):
        with pytest.raises(ValueError, match="`shuffle=False`, or a data set with a seed"):
            build().fit(**data | {"shuffle": True}, callbacks=[backup])
    with pytest.raises(ValueError, match="say where they are.* data of type Batches"):
        build().fit(**py_dataset(), steps_per_epoch=2, callbacks=[backup])


def test_other_models_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = ktr.BackupAndRestore(tmp_path)
    with pytest.raises(TypeError, match="for the `fit` of a MinimaxModel.*Received: Sequential"):
        model.fit(X, Y["level"], callbacks=[backup], verbose=0)
    unbuilt = ktr.MinimaxModel(keras.Sequential([keras.layers.Dense(1)]))
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="a model that is built"):
        unbuilt.fit(X, Y["level"], shuffle=False, callbacks=[backup], verbose=0)


def test_a_failure_while_batches_are_passed_over_leaves_a_model_that_trains(tmp_path):
    backup = ktr.BackupAndRestore(tmp_path, minutes=0)
    with pytest.raises(Killed):
        build().fit(**arrays(), verbose=0, callbacks=[backup, KillAt(0, 3)])
    model = build()
    with pytest.raises(Killed):
        model.fit(**arrays(), verbose=0, callbacks=[backup, KillAt(0, 1)])
    before = model.get_weights()[0]
    model.fit(**arrays(), verbose=0)
    assert (model.get_weights()[0] != before).any()


def test_checkpoints_are_made_by_time_and_at_the_end(tmp_path):
    build().fit(**arrays(), epochs=3, verbose=0, callbacks=[ktr.BackupAndRestore(tmp_path)])
    (saved,) = tmp_path.glob("*.weights.h5")
    assert saved.name == f"checkpoint-step-{3 * BATCHES:08d}.weights.h5"


@pytest.mark.skipif(BACKEND == "torch", reason="not offered by Keras on torch")
def test_steps_in_one_execution_are_passed_over_together(tmp_path):
    def compiled():
        model = build()
        model.steps_per_execution = 2
        return model

    whole = compiled()
    whole.fit(**arrays(), epochs=2, verbose=0)
    backup = ktr.BackupAndRestore(tmp_path, minutes=0)
    with pytest.raises(Killed):
        compiled().fit(**arrays(), epochs=2, verbose=0, callbacks=[backup, KillAt(1, 1)])
    model = compiled()
    model.fit(**arrays(), epochs=2, verbose=0, callbacks=[backup])
    for ours, theirs in zip(state_of(model), state_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
