"""The logs of a step are there for whoever listens, and cost nothing where nobody does."""

import keras
import pytest
from networks import grouped_data, grouped_model

from keras_taskrobust.training.logs import hear_steps


class Listener(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(logs)


class OldListener(keras.callbacks.Callback):
    def on_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        (None, False),
        ([], False),
        ([keras.callbacks.EarlyStopping("worst_loss"), keras.callbacks.History()], False),
        (keras.callbacks.EarlyStopping("worst_loss"), False),
        ([keras.callbacks.History(), Listener()], True),
        (Listener(), True),
        ([OldListener()], True),
        (keras.callbacks.LambdaCallback(on_train_batch_end=print), True),
        (keras.callbacks.CallbackList([keras.callbacks.History()]), False),
        (keras.callbacks.CallbackList([Listener()]), True),
    ],
)
def test_who_listens_to_steps(callbacks, expected):
    assert hear_steps(callbacks) is expected


def test_a_listener_hears_every_figure_of_every_step_as_a_float():
    listener = Listener()
    model = grouped_model()
    x, y = grouped_data()
    history = model.fit(x, y, batch_size=len(x) // 2, verbose=0, callbacks=[listener]).history
    assert len(listener.steps) == 2
    assert set(listener.steps[0]) == set(history)
    assert all(type(value) is float for value in listener.steps[0].values())


def test_the_history_is_the_same_whether_steps_are_heard_or_not(capsys):
    histories = []
    for options in ({"verbose": 0}, {"verbose": 0, "callbacks": [Listener()]}, {"verbose": 1}):
        keras.utils.set_random_seed(0)
        model = grouped_model()
        x, y = grouped_data()
        fitted = model.fit(x, y, batch_size=5, epochs=2, shuffle=False, **options)
        histories.append(fitted.history)
    assert histories[0] == histories[1] == histories[2]
    assert "a_loss" in capsys.readouterr().out


def test_a_step_by_hand_is_heard_after_an_unheard_fit():
    model = grouped_model()
    x, y = grouped_data()
    model.fit(x, y, verbose=0)
    assert model.train_on_batch(x, y, return_dict=True)["a_loss"] > 0
