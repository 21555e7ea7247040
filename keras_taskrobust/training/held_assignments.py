"""What a step assigns on its way, held back until all that may fail is over."""

from typing import Any

import keras

from keras_taskrobust.training.keras_internals import assign_outside_scopes, value_outside_scopes


class HeldAssignments(keras.StatelessScope):
    """Holds back what is assigned to a model's variables while it is open.

    Inside, a variable has the value that was assigned to it. After an error it has the one of
    before. Trainable variables are assigned at once, since their gradients are taken by the
    variables themselves; so are all variables of a model that is not built yet.

    Args:
        model: a compiled `MinimaxModel`.

    Example:

    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    >>> network.compile("sgd", "mse")
    >>> network.optimizer.build(network.trainable_variables)
    >>> mean = network.layers[0].moving_mean
    >>> with HeldAssignments(network) as held:
    ...     _ = mean.assign([1.0, 2.0])
    >>> mean.numpy().tolist()
    [0.0, 0.0]
    >>> held.make()
    >>> mean.numpy().tolist()
    [1.0, 2.0]
    """

    def __init__(self, model: keras.Model):
        super().__init__(collect_losses=True)
        # Keras and `build_optimizer` build it where all layers are.
        self._is_open_to_all = not model.optimizer.built
        self._held: dict[int, Any] = {}

    def __enter__(self):
        return self if self._is_open_to_all else super().__enter__()

    def __exit__(self, *args, **kwargs):
        if not self._is_open_to_all:
            super().__exit__(*args, **kwargs)

    def get_current_value(self, variable):
        return self.state_mapping.get(id(variable), value_outside_scopes(variable))

    def add_update(self, update):
        variable, _ = update
        if variable.trainable:
            self.assign_at_once(*update)
        else:
            self._held[id(variable)] = variable
            super().add_update(update)

    def assign_at_once(self, variable, value):
        """Assigns a value that cannot be held."""
        self._held.pop(id(variable), None)
        self.state_mapping.pop(id(variable), None)
        assign_outside_scopes(variable, value)

    def change_of(self, variable):
        """What is held for a variable less its value of before; `None` if nothing is."""
        if id(variable) not in self._held:
            return None
        return self.state_mapping[id(variable)] - value_outside_scopes(variable)

    @property
    def pending(self) -> tuple[list, list]:
        """The variables, and the values that they are to get."""
        return list(self._held.values()), [self.state_mapping[key] for key in self._held]

    def make(self) -> None:
        """Makes the assignments, after the scope was closed."""
        for variable, value in zip(*self.pending, strict=True):
            variable.assign(value)
