"""Layouts of weights on several devices; `test_replicas` trains with them."""

import keras
import pytest

from keras_taskrobust import layout_map

pytestmark = pytest.mark.backend_free


def mesh(names=("batch", "model")):
    return keras.distribution.DeviceMesh((2, 2), names, [f"cpu:{i}" for i in range(4)])


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("transformer_layer_11/self_attention_layer/query/kernel", (None, "model", None)),
        ("vit_encoder/transformer_block_3/mha/attention_output/kernel", ("model", None, None)),
        ("token_embedding/embeddings", (None, "model")),
        ("network/decode_rgb/block_0/mlp/fc2/kernel", ("model", None)),
    ],
)
def test_pairs_of_matrices_are_cut(path, axes):
    assert layout_map(mesh())[path].axes == axes
    assert layout_map(mesh(("batch", "cut")), "cut")[path].axes == tuple(
        axis and "cut" for axis in axes
    )


@pytest.mark.parametrize(
    "path",
    [
        "transformer_layer_0/self_attention_layer/attention_output/bias",
        "transformer_layer_0/feedforward_output_dense/bias",
        "vit_encoder/ln/gamma",
        "position_embedding/embeddings",
        "network/decode_rgb/cross_attention/kv/kernel",
    ],
)
def test_the_rest_is_whole(path):
    assert layout_map(mesh())[path] is None


def test_an_axis_that_is_not_there():
    with pytest.raises(ValueError, match=r"one of the axes \('batch', 'cut'\) of the mesh"):
        layout_map(mesh(("batch", "cut")))
