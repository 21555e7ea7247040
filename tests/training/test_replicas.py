"""Several devices of a process take the step of one on all of the batch, on TensorFlow and JAX."""

import keras
import numpy as np
import pytest

if keras.backend.backend() == "torch":
    pytest.skip("see `test_torch_replicas`", allow_module_level=True)

from replica_cases import DROPOUT, MEASURED, TRAINED, Replica
from replica_processes import check_equal, run

pytestmark = pytest.mark.slow

NAMES = [
    *(f"perceptron {name}" for name in ("minimax", "uncertainty", "group_dro", "upgrad")),
    *("perceptron gradnorm", "perceptron graddrop", "representation pcgrad"),
    *("diagnostics", "scaled losses", "scaled gradients", MEASURED),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All cases in one process, whose start takes longer than they."""
    return run([*NAMES, DROPOUT], tmp_path_factory.mktemp("devices"), "devices")


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_equal_one(found, name):
    check_equal(TRAINED[name](Replica()), [replica[name] for replica in found])


def test_dropout_differs_between_devices(found):
    ((*passes,),) = (replica[DROPOUT] for replica in found)
    for kept in passes:
        np.testing.assert_array_equal(np.unique(kept), [0, 1, 2])  # of two alike none has 1
    assert len({kept.tobytes() for kept in passes}) == 3
    if keras.backend.backend() == "jax":
        np.testing.assert_array_equal(passes, TRAINED[DROPOUT](Replica()))
