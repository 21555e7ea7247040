"""Several devices of a process take the step of one on all of the batch, on TensorFlow and JAX."""

import keras
import pytest

if keras.backend.backend() == "torch":
    pytest.skip("see `test_torch_replicas`", allow_module_level=True)

from replica_cases import MEASURED, TRAINED, Replica
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
    return run(NAMES, tmp_path_factory.mktemp("devices"), "devices")


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_equal_one(found, name):
    check_equal(TRAINED[name](Replica()), [replica[name] for replica in found])
