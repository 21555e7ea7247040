"""BERT's blocks in few operations: KerasHub's numbers, gradients, files, and every weighting."""

import contextlib

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops
from marks import slow

from keras_taskrobust.text.encoder_block import fused_block
from keras_taskrobust.text.pos_bert import PosBert
from keras_taskrobust.training.backends import backend
from keras_taskrobust.training.fused_layers import FusedLayers

if not backend.FUSES_LAYERS:
    pytest.skip("Keras's own is as fast", allow_module_level=True)

IS_TORCH = keras.backend.backend() == "torch"
to_numpy = ops.convert_to_numpy

BATCH, LENGTH, DIM = 3, 5, 8


def make_block(dropout=0.0, dim=DIM, **options):
    keras.utils.set_random_seed(0)
    block = keras_hub.layers.TransformerEncoder(
        16, 2, dropout=dropout, activation="gelu", **options
    )
    block.build((None, LENGTH, dim))
    rng = np.random.default_rng(0)
    for weight in block.weights:  # biases that are not 0, too
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return block


def tokens(batch=BATCH):
    return ops.convert_to_tensor(
        np.random.default_rng(1).normal(size=(batch, LENGTH, DIM)), "float32"
    )


PADDING = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], "int32")


@contextlib.contextmanager
def never_own_call(block, training=True):
    """The block's own way is not taken: its attention is not called."""
    refused = training

    class Refusing(keras.layers.MultiHeadAttention):
        def __call__(self, *args, training=None, **kwargs):
            if training == refused:
                raise AssertionError("called")
            return super().__call__(*args, training=training, **kwargs)

    attention = block._self_attention_layer
    attention.__class__ = Refusing
    try:
        yield
    finally:
        attention.__class__ = keras.layers.MultiHeadAttention


def outputs_and_gradients(block, padding, training):
    """The outputs, and the gradients of their cubes' mean by the tokens and the weights."""
    weights = block.trainable_weights
    if IS_TORCH:
        import torch

        x = tokens().requires_grad_()
        y = block(x, padding_mask=padding, training=training)
        gradients = torch.autograd.grad((y**3).mean(), [x, *(weight.value for weight in weights)])
        return [to_numpy(tensor) for tensor in (y, *gradients)]
    import jax

    def mean(x, values):
        with keras.StatelessScope(state_mapping=[*zip(weights, values, strict=True)]):
            y = block(x, padding_mask=padding, training=training)
        return (y**3).mean(), y

    values = [weight.value for weight in weights]
    (_, y), (by_x, by_weights) = jax.value_and_grad(mean, (0, 1), has_aux=True)(tokens(), values)
    return [to_numpy(tensor) for tensor in (y, by_x, *by_weights)]


@pytest.mark.parametrize("normalize_first", [False, True])
@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize(("dropout", "training"), [(0.0, True), (0.5, False)])
def test_equals_keras_hubs(normalize_first, padding, dropout, training):
    """Outputs and gradients, with samples that are padding alone."""
    block = make_block(dropout, normalize_first=normalize_first)
    expected = outputs_and_gradients(block, padding, training)
    with FusedLayers(block).running(), never_own_call(block, training):
        found = outputs_and_gradients(block, padding, training)
    for own, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=2e-5)


def test_dropout_is_as_often_and_unbiased():
    """Of 4,000 equal samples: the moments of KerasHub's outputs."""
    block = make_block(dropout=0.3)
    x = ops.repeat(tokens(1), 4000, axis=0)
    theirs = to_numpy(block(x, training=True))
    with FusedLayers(block).running():
        ours = to_numpy(block(x, training=True))
        in_inference = to_numpy(block(x[:1], training=False))
    error = theirs.std(0) * (2 / 4000) ** 0.5
    assert (abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)
    np.testing.assert_allclose(
        in_inference, to_numpy(block(x[:1], training=False)), rtol=1e-4, atol=1e-5
    )


def hooked(block):
    block._feedforward_layer_norm.register_forward_hook(lambda layer, x, y: 2 * y)


def watched(block):
    layer = block._self_attention_layer.query_dense
    call = layer.call
    layer.__dict__["call"] = lambda *args, **kwargs: 2 * call(*args, **kwargs)


@pytest.mark.parametrize("change", [hooked, watched] if IS_TORCH else [watched])
def test_what_is_hung_on_a_layer_inside_still_runs(change):
    block = make_block()
    before = to_numpy(block(tokens()))
    change(block)
    expected = to_numpy(block(tokens()))
    assert abs(expected - before).max() > 0.1
    with FusedLayers(block).running():
        assert to_numpy(block(tokens())).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention_mask": np.tril(np.ones((BATCH, LENGTH, LENGTH)))},
        {"return_attention_scores": True},
    ],
)
def test_what_it_does_not_know_is_keras_hubs(arguments):
    block = make_block()
    expected = block(tokens(), **arguments)
    with FusedLayers(block).running():
        found = block(tokens(), **arguments)
    for own, theirs in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert own.tolist() == theirs.tolist()


def test_a_subclass_is_left_alone():
    class Own(keras_hub.layers.TransformerEncoder):
        def call(self, inputs, **kwargs):
            return inputs

    block = Own(16, 2)
    block.build((None, LENGTH, DIM))
    with FusedLayers(block).running():
        assert block(tokens()).tolist() == tokens().tolist()


def test_low_rank_adaptation_counts():
    block = make_block()
    for layer in (block._feedforward_output_dense, block._self_attention_layer.value_dense):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.random.default_rng(0).normal(size=layer.lora_kernel_b.shape))
    expected = to_numpy(block(tokens()))
    with FusedLayers(block).running():
        np.testing.assert_allclose(to_numpy(block(tokens())), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_keras_hubs():
    block = make_block(dtype="mixed_bfloat16")
    expected = to_numpy(ops.cast(block(tokens()), "float32"))
    with FusedLayers(block).running():
        found = block(tokens())
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    found = to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def make_model(weighting, dropout=0.0):
    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.BertBackbone(
        20, 2, 2, DIM, 16, dropout=dropout, max_sequence_length=LENGTH
    )
    model = PosBert(backbone, groups=("a", "b", "c"))
    model.compile(keras.optimizers.SGD(0.1), weighting=weighting, gradients_at="shared")
    return model


def batch():
    rng = np.random.default_rng(0)
    x = {
        "token_ids": rng.integers(0, 20, (4, LENGTH)),
        "segment_ids": np.zeros((4, LENGTH), "int32"),
        "padding_mask": np.array([[1] * 5, [1] * 5, [1] * 4 + [0], [1] * 3 + [0] * 2]),
        "mask_positions": rng.integers(0, 3, (4, 2)),
    }
    words = {
        "labels": rng.integers(0, 20, (4, 2)),
        "groups": np.array([[0, 1], [2, 0], [1, 2], [-1, 0]]),
    }
    return x, {"masked_lm": words, "next_sentence": rng.integers(0, 2, 4)}


@pytest.mark.parametrize("weighting", ["minimax", "mgda", slow("graddrop")])
@pytest.mark.parametrize("passes", ["single", "together"] if IS_TORCH else ["of the backend"])
def test_steps_are_those_without(weighting, passes, monkeypatch):
    """By one pass a task, and by one pass for all of them, under `vmap`."""
    if IS_TORCH:
        monkeypatch.setattr(backend, "runs_on_cpu", lambda values: passes == "single")
    models = [make_model(weighting) for _ in range(2)]
    monkeypatch.setattr(models[0], "_fused_running", contextlib.nullcontext)
    models[1]._fused_layers = FusedLayers(models[1].network)
    blocks = models[1].backbone.transformer_layers
    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.enter_context(never_own_call(block))
        for _ in range(3):
            models[1].train_on_batch(*batch())
    for _ in range(3):
        models[0].train_on_batch(*batch())
    for own, theirs in zip(models[1].get_weights(), models[0].get_weights(), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-5)


def test_files_and_presets_are_keras_hubs(tmp_path):
    """To the bit, also those that are written while a step runs."""
    model = make_model("minimax", dropout=0.1)
    plain, fused = tmp_path / "plain", tmp_path / "fused"
    model.backbone.save_to_preset(str(plain))
    expected = model.get_config()
    with FusedLayers(model.network).running():
        model.backbone.save_to_preset(str(fused))
        assert model.get_config() == expected
    for file in ("config.json", "metadata.json"):
        texts = [(folder / file).read_text().split('"date_saved"')[0] for folder in (plain, fused)]
        assert texts[0] == texts[1]
    reopened = keras_hub.models.BertBackbone.from_preset(str(fused))
    for own, theirs in zip(reopened.get_weights(), model.backbone.get_weights(), strict=True):
        assert own.tobytes() == theirs.tobytes()
    assert all("call" not in block.__dict__ for block in model.backbone.transformer_layers)


def test_attention_of_another_kind_is_none_of_it():
    block = make_block()
    block._self_attention_layer._use_gate = True
    assert fused_block(block) is None
