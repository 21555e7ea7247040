"""The random states of which every replica has its own: those of dropout, and the like."""

from typing import Any

import keras

SEEDS = 2**31
#: Odd, and such that the seeds of no two replicas are near each other.
SEEDS_APART = 0x1E3779B1


def seeds_of_replica(model: Any) -> list[keras.Variable]:
    """The random states of a model, without those of its weighting: that draws for all."""
    weighting = getattr(model, "weighting", None)
    of_weighting = [] if weighting is None else weighting.variables
    others = {id(variable) for variable in (*model.weights, *of_weighting)}
    return [variable for variable in model.variables if id(variable) not in others]
