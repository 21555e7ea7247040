"""The logs of a step are there for whoever listens."""

import keras
from networks import grouped_data, grouped_model


class Listener(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(logs)


def test_a_listener_hears_every_figure_of_every_step_as_a_float():
    listener = Listener()
    model = grouped_model()
    x, y = grouped_data()
    history = model.fit(x, y, batch_size=len(x) // 2, verbose=0, callbacks=[listener]).history
    assert len(listener.steps) == 2
    assert set(listener.steps[0]) == set(history)
    assert all(type(value) is float for value in listener.steps[0].values())


def test_the_history_is_the_same_whoever_listens(capsys):
    histories = []
    for options in ({"verbose": 0}, {"verbose": 0, "callbacks": [Listener()]}, {"verbose": 1}):
        keras.utils.set_random_seed(0)
        model = grouped_model()
        x, y = grouped_data()
        fitted = model.fit(x, y, batch_size=5, epochs=2, shuffle=False, **options)
        histories.append(fitted.history)
    assert histories[0] == histories[1] == histories[2]
    assert "a_loss" in capsys.readouterr().out


def test_a_step_by_hand_has_its_figures_after_a_fit():
    model = grouped_model()
    x, y = grouped_data()
    model.fit(x, y, verbose=0)
    assert model.train_on_batch(x, y, return_dict=True)["a_loss"] > 0
