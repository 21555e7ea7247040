"""Where every batch holds one task, weights that sum to one say nothing: that is told once."""

import warnings

import numpy as np
import pytest
from networks import grouped_data, grouped_model

from keras_taskrobust.weighting import GroupDRO

X, Y = grouped_data(8)
LONE = {**Y, "groups": np.broadcast_to(np.arange(8)[:, None] // 4, (8, 4)).astype("int32")}


@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_one_task_a_batch_is_told_once(validation):
    model = grouped_model(weighting="minimax")
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "validation_data": validation}
    with pytest.warns(UserWarning, match="No batch of this epoch held two tasks") as told:
        model.fit(X, LONE, epochs=2, **arguments)
    assert sum("No batch of this epoch" in str(warning.message) for warning in told) == 1


@pytest.mark.parametrize("weighting", ["uncertainty", GroupDRO(normalize_over="all")])
def test_weights_that_still_say_something_are_not_warned_of(weighting):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No batch of this epoch")
        grouped_model(weighting=weighting).fit(X, LONE, batch_size=4, shuffle=False, verbose=0)
        grouped_model().fit(X, Y, batch_size=4, verbose=0)
