"""Stopping on a broken loss, and the schedule of the learning rate."""

import keras
import numpy as np
import pytest
from networks import (
    grouped_data,
    grouped_model,
    two_headed_data,
    two_headed_model,
)

from keras_taskrobust.training.callbacks import Checkpoint, StopOnBrokenLoss
from keras_taskrobust.training.schedules import LinearWarmupDecay


def test_a_broken_loss_stops_with_its_task_and_step_and_keeps_the_checkpoint(tmp_path):
    model = two_headed_model()
    x, y = two_headed_data()
    checkpoint = Checkpoint(tmp_path)
    callbacks = [StopOnBrokenLoss(), checkpoint]
    model.fit(x, y, batch_size=8, shuffle=False, callbacks=callbacks, verbose=0)
    y["level"][17] = np.inf
    with pytest.raises(FloatingPointError, match=r"task 'level' at step 7 \(batch 2 of its epoch"):
        model.fit(
            x,
            y,
            batch_size=8,
            epochs=2,
            initial_epoch=1,
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )
    assert checkpoint.latest()[1] == 1
    fresh = two_headed_model()
    assert Checkpoint(tmp_path).restore(fresh) == 1
    assert all(np.isfinite(w).all() for w in fresh.get_weights())


def test_a_broken_loss_of_a_data_set_is_told_once():
    x, y = two_headed_data()
    y["level"][3] = np.nan
    model = two_headed_model()
    data = model_batches(x, y)
    with pytest.warns(UserWarning, match="In epoch 1 the loss of 'level'.* became NaN") as told:
        model.fit(data, epochs=2, verbose=0)
    assert sum("became NaN" in str(warning.message) for warning in told) == 1


def model_batches(x, y):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            rows = slice(16 * index, 16 * index + 16)
            return x[rows], {name: label[rows] for name, label in y.items()}

    return Batches()


def test_group_ids_are_a_cause_where_there_are_groups():
    two_headed, grouped = two_headed_data(), grouped_data()
    two_headed[1]["level"][0] = np.inf
    grouped[0][0] = np.nan
    stop = [StopOnBrokenLoss()]
    with pytest.raises(FloatingPointError, match="Group ids out of range do this too"):
        grouped_model().fit(*grouped, callbacks=stop, verbose=0)
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    for model, data in ((two_headed_model(), two_headed), (plain, (grouped[0], grouped[0]))):
        with pytest.raises(FloatingPointError, match=r"of its epoch\)\. What earlier callbacks"):
            model.fit(*data, callbacks=stop, verbose=0)


def test_warmup_and_decay():
    schedule = LinearWarmupDecay(2.0, warmup_steps=4, steps=12)
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in range(14)]
    expected = [0.5 * step for step in range(4)] + [2.0 - 0.25 * step for step in range(9)] + [0.0]
    assert rates == pytest.approx(expected)
    with pytest.raises(ValueError, match="less than `steps`"):
        LinearWarmupDecay(1.0, 5, 5)
