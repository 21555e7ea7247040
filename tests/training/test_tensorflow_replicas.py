"""Replicas of `tf.distribute` take the step of one device on all of the batch."""

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tests tf.distribute", allow_module_level=True)

from replica_cases import EQUAL, TRAINED, Replica
from replica_processes import check_equal, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(EQUAL, tmp_path_factory.mktemp("devices"), "devices")


@pytest.mark.parametrize("name", EQUAL)
def test_two_devices_equal_one(found, name):
    check_equal(TRAINED[name](Replica()), [replica[name] for replica in found])
