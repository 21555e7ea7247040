"""Several devices take the step of one on all of the batch, on TensorFlow and JAX."""

import keras
import numpy as np
import pytest

if keras.backend.backend() == "torch":
    pytest.skip("see `test_torch_replicas`", allow_module_level=True)

from replica_cases import BATCH, BORROWED, DROPOUT, MEASURED, OVERFLOWING, PLAIN, TRAINED, Replica
from replica_processes import check_equal, run

pytestmark = pytest.mark.slow

NAMES = [
    *(f"perceptron {name}" for name in ("minimax", "uncertainty", "group_dro", "upgrad")),
    *("perceptron gradnorm", "perceptron graddrop", "representation pcgrad"),
    *("skipped dwa", "skipped upgrad", *PLAIN),
    *("diagnostics", "scaled losses", "scaled gradients", OVERFLOWING, MEASURED),
    *("PosBert minimax", "MM-MAE upgrad"),
]
NAMES_OF_PROCESSES = ["perceptron minimax", "perceptron upgrad", "scaled losses", "skipped dwa"]
NAMES_OF_MODELS = ["PosBert minimax", "MM-MAE pcgrad"]
#: The weights that `layout_map` cuts, of a layer of each transformer.
CUT = {
    "PosBert minimax": [
        "token_embedding/embeddings",
        *(f"transformer_layer_0/self_attention_layer/{n}/kernel" for n in ("query", "key")),
        *(f"transformer_layer_0/self_attention_layer/{n}/bias" for n in ("query", "key")),
        *(f"transformer_layer_0/self_attention_layer/value/{n}" for n in ("kernel", "bias")),
        "transformer_layer_0/self_attention_layer/attention_output/kernel",
        *(f"transformer_layer_0/feedforward_intermediate_dense/{n}" for n in ("kernel", "bias")),
        "transformer_layer_0/feedforward_output_dense/kernel",
    ],
    "MM-MAE pcgrad": [
        *(f"vit_encoder/transformer_block_1/mha/{n}/kernel" for n in ("query", "key", "value")),
        *(f"vit_encoder/transformer_block_1/mha/{n}/bias" for n in ("query", "key", "value")),
        "vit_encoder/transformer_block_1/mha/attention_output/kernel",
        *(f"vit_encoder/transformer_block_1/mlp/dense_1/{n}" for n in ("kernel", "bias")),
        "vit_encoder/transformer_block_1/mlp/dense_2/kernel",
        *(
            f"network/decode_{modality}/{layer}mlp/{name}"
            for modality in ("rgb", "depth")
            for layer in ("", "block_0/")
            for name in ("fc1/kernel", "fc1/bias", "fc2/kernel")
        ),
    ],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All cases in one process, whose start takes longer than they."""
    return run([*NAMES, DROPOUT, BORROWED, BATCH], tmp_path_factory.mktemp("devices"), "devices")


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


def test_arrays_of_a_data_set_are_not_written(found):
    assert [replica[BORROWED] for replica in found] == [[True, True]]


def test_a_batch_is_predicted_once(found):
    for predicted, expected in (replica[BATCH] for replica in found):
        np.testing.assert_allclose(predicted, expected, rtol=1e-5)


def test_two_processes_equal_one(tmp_path):
    replicas = run(NAMES_OF_PROCESSES, tmp_path, "processes")
    for name in NAMES_OF_PROCESSES:
        check_equal(TRAINED[name](Replica()), [replica[name] for replica in replicas])


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone cuts weights")
def test_models_on_two_devices_each_equal_one(tmp_path):
    """With `layout_map`, on two pairs of devices."""
    (found,) = run(NAMES_OF_MODELS, tmp_path, "model", number=4)
    for name in NAMES_OF_MODELS:
        check_equal(TRAINED[name](Replica()), [found[name]])
        assert sorted(found[name]["cut"]) == sorted(CUT[name])
        # The two moments of AdamW.
        assert found[name]["cut_of_optimizer"] == 2 * len(CUT[name])
