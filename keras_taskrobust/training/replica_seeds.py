"""The random states of which every replica has its own: those of dropout, and the like."""

from typing import Any

import keras

SEEDS = 2**31
#: Odd, and such that the seeds of no two replicas are near each other.
SEEDS_APART = 0x1E3779B1


def seeds_of_replica(model: Any) -> list[keras.Variable]:
    """The random states of a model, without those of its weighting: that draws for all."""
    common = {id(variable) for variable in model.weighting.variables}
    return [state for state in model._seed_states() if id(state) not in common]
