"""The state of a model on JAX, where a step takes the variables' values and gives new ones."""

from typing import Any

import jax
import jax.numpy as jnp
import keras

_KINDS = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def give_back_state(model):
    """Puts the newest whole state into the variables."""
    model.jax_state_sync()
    model._jax_state = None
    # What a failing trace left.
    model._losses_override = []


class Trainer(keras.Model):
    """Keras's trainer, which always knows the newest whole state.

    Keras takes the values out of the variables when the first step starts, and keeps what to give
    back only from a step that finished. Here it keeps the state from the start. A compiled step
    deletes the state that it is given, whatever becomes of it: the first one is given a copy, so
    that what fails on the device in a first batch leaves the weights of before.
    """

    _jax_state: Any

    def _get_jax_state(self, *, purge_model_variables=False, **kinds):
        state = super()._get_jax_state(**kinds)
        self._jax_state = dict(zip(filter(kinds.get, _KINDS), state, strict=True))
        self._jax_state_synced = False
        if purge_model_variables:
            self._purge_model_variables(**kinds)
        return state

    def _make_function(self, step_function, *args, **kwargs):
        def first(state, data):
            copy = keras.tree.map_structure(jnp.copy, state)
            return jax.block_until_ready(step_function(copy, data))

        run = first

        def step(state, data):
            nonlocal run
            finished: list = []
            try:
                # Python lets an interrupt in between a call and its use, never into `extend`: the
                # call has deleted the former state.
                finished.extend(map(run, (state,), (data,)))
            finally:
                for _, new_state in finished:
                    self._jax_state = dict(zip(self._jax_state, new_state, strict=True))
            ((outputs, state),) = finished
            run = step_function
            return outputs, state

        return super()._make_function(step, *args, **kwargs)
