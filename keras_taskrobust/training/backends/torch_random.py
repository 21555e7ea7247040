"""A model's own random numbers on PyTorch, counted without waiting for the device."""

import keras
import torch


class RandomStream(keras.random.SeedGenerator):
    """Keras's generator of seeds, whose state the host remembers.

    To read it from the device each step would be to wait there for all that is under way.
    """

    def __init__(self):
        super().__init__()
        self._known: tuple[torch.Tensor, int, list[int]] | None = None

    def numbers(self) -> list[int]:
        """The two numbers of the state: the seed, and how often it was used."""
        state = self.state.value
        # PyTorch counts how often a tensor was written, whoever did it.
        if self._known is None or self._known[0] is not state or self._known[1] != state._version:
            self._known = state, state._version, state.tolist()
        return list(self._known[2])

    def count(self) -> None:
        """Moves on, as `next` does."""
        seed, count = self.numbers()
        state = self.state.value
        with torch.no_grad():
            state[1] += 1
        self._known = state, state._version, [seed, count + 1]
