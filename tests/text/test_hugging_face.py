"""BERTs to Hugging Face's Transformers and back: the same logits, ids and weights."""

import json
import math

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

from keras_taskrobust.hugging_face_files import read_arrays, write_arrays
from keras_taskrobust.text import (
    SPECIAL_TOKENS,
    PosBert,
    load_hugging_face_bert,
    save_hugging_face_bert,
)

VOCABULARY = [*SPECIAL_TOKENS, "the", "cat", "##s", "café", "cafe", "mat", ".", ",", "'", "E", "中"]
LENGTH, POSITIONS = 12, 7


def make_bert(next_sentence="auxiliary", lowercase=True, **arguments):
    """A model whose weights are all random, biases and normalisations too."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(VOCABULARY),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=LENGTH,
    )
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=VOCABULARY, lowercase=lowercase)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=LENGTH
    )
    model = PosBert(backbone, preprocessor, next_sentence, **arguments)
    generator = np.random.default_rng(0)
    network = model.network
    network.set_weights([generator.normal(size=w.shape) for w in network.get_weights()])
    return model


def make_inputs():
    generator = np.random.default_rng(1)
    padding_mask = np.ones((3, LENGTH), "int32")
    padding_mask[1, POSITIONS:] = 0
    return {
        "token_ids": generator.integers(0, len(VOCABULARY), (3, LENGTH), dtype="int32"),
        "segment_ids": generator.integers(0, 2, (3, LENGTH), dtype="int32"),
        "padding_mask": padding_mask,
        "mask_positions": np.tile(np.arange(POSITIONS, dtype="int32"), (3, 1)),
    }


def outputs_of(model, inputs):
    outputs = model.network(inputs, training=False)
    return {name: ops.convert_to_numpy(value) for name, value in outputs.items()}


def outputs_of_transformers(model, inputs):
    import torch

    tokens = {
        name: torch.tensor(inputs[ours], dtype=torch.long)
        for name, ours in {
            "input_ids": "token_ids",
            "token_type_ids": "segment_ids",
            "attention_mask": "padding_mask",
        }.items()
    }
    with torch.no_grad():
        return model.eval()(**tokens)


def assert_same_weights(first, second):
    assert len(first.weights) == len(second.weights)
    for one, other in zip(first.weights, second.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="the extra dev is not installed")


@pytest.mark.slow
def test_transformers_compute_the_same_logits(transformers, tmp_path):
    model, inputs = make_bert(), make_inputs()
    save_hugging_face_bert(model, tmp_path)
    expected = outputs_of(model, inputs)
    opened, info = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    logits = outputs_of_transformers(opened, inputs).logits.numpy()
    np.testing.assert_allclose(logits[:, :POSITIONS], expected["masked_lm"], atol=1e-4)
    opened = transformers.BertForPreTraining.from_pretrained(tmp_path)
    is_next, is_random = outputs_of_transformers(opened, inputs).seq_relationship_logits.numpy().T
    np.testing.assert_allclose([is_random, is_next], expected["next_sentence"].T, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_make_the_same_ids(transformers, lowercase, tmp_path):
    model = make_bert(lowercase=lowercase)
    save_hugging_face_bert(model, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == LENGTH
    for text in ["The cats, café.", "E\tthe  CAFÉ's mat", "中mat中 unknown", "the [MASK]"]:
        pieces = tokenizer.tokenize(text)
        if "[MASK]" in text:
            assert pieces == ["the", "[MASK]"]
            continue
        ids = ops.convert_to_numpy(model.preprocessor.tokenizer(text)).tolist()
        assert tokenizer.convert_tokens_to_ids(pieces) == ids
        cls, separator = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
        assert tokenizer(text)["input_ids"] == [cls, *ids, separator]


@pytest.mark.slow
def test_a_bert_of_transformers_is_read(transformers, tmp_path):
    import torch

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=8,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        hidden_act="gelu_pytorch_tanh",
        initializer_range=1.0,
    )
    original = transformers.BertForPreTraining(config)
    original.save_pretrained(tmp_path)
    inputs = make_inputs()
    found = outputs_of(load_hugging_face_bert(tmp_path), inputs)
    expected = outputs_of_transformers(original, inputs)
    logits = expected.prediction_logits.numpy()[:, :POSITIONS]
    np.testing.assert_allclose(found["masked_lm"], logits, atol=1e-4)
    swapped = expected.seq_relationship_logits.numpy()[:, ::-1]
    np.testing.assert_allclose(found["next_sentence"], swapped, atol=1e-4)


@pytest.mark.parametrize("next_sentence", ["auxiliary", None])
def test_there_and_back_all_weights_are_the_same(next_sentence, tmp_path):
    model = make_bert(next_sentence, lowercase=False)
    save_hugging_face_bert(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "tokenizer_config.json",
    }
    loaded = load_hugging_face_bert(tmp_path, next_sentence=next_sentence, groups=("a", "b"))
    assert loaded.groups == ("a", "b")
    assert_same_weights(model.network, loaded.network)
    tokenizer = loaded.preprocessor.tokenizer
    assert tokenizer.get_vocabulary() == VOCABULARY
    assert (tokenizer.lowercase, tokenizer.strip_accents) == (False, False)
    assert loaded.preprocessor.sequence_length == LENGTH


@pytest.mark.backend_free
def test_arrays_are_read_as_they_were_whatever_their_order_in_memory(tmp_path):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    arrays = {"transposed": array.T, "reversed": array[::-1], "whole": array}
    write_arrays(tmp_path / "model.safetensors", arrays)
    found = read_arrays(tmp_path / "model.safetensors")
    assert {name: one.tolist() for name, one in found.items()} == {
        name: one.tolist() for name, one in arrays.items()
    }


def test_keras_hub_reads_the_backbone(tmp_path):
    model = make_bert()
    save_hugging_face_bert(model, tmp_path)
    assert_same_weights(keras_hub.models.BertBackbone.from_preset(str(tmp_path)), model.backbone)


def test_a_backbone_alone_and_older_names(tmp_path):
    model = make_bert()
    save_hugging_face_bert(model.backbone, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertModel"]
    assert not (tmp_path / "vocab.txt").exists()
    arrays = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in read_arrays(tmp_path / "model.safetensors").items()
    }
    write_arrays(tmp_path / "model.safetensors", arrays)
    with pytest.warns(UserWarning, match=r"lacks 7 weights of the heads.*cls\.predictions\.bias"):
        loaded = load_hugging_face_bert(tmp_path)
    assert loaded.preprocessor is None
    assert_same_weights(loaded.backbone, model.backbone)


def test_what_is_no_bert_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be one that `save_pretrained.*config\.json"):
        load_hugging_face_bert(tmp_path)
    save_hugging_face_bert(make_bert(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))

    write(hidden_act="relu", model_type="bert")
    with pytest.raises(ValueError, match="hidden_act='gelu_pytorch_tanh' or .*'relu'"):
        load_hugging_face_bert(tmp_path)
    write(num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"must hold all weights .*bert\.encoder\.layer\.2\."):
        load_hugging_face_bert(tmp_path)
    write(intermediate_size=15)
    with pytest.raises(ValueError, match=r"feedforward_intermediate_dense/kernel` \(15, 8\)"):
        load_hugging_face_bert(tmp_path)
    write()
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"must be one that .*model\.safetensors"):
        load_hugging_face_bert(tmp_path)


def test_the_head_of_former_versions_keeps_its_exact_gelu(tmp_path):
    model = make_bert()
    config = model.get_config()
    del config["exact_gelu"]
    former = PosBert.from_config(config)
    values = np.linspace(-4, 4, 41).astype("float32")

    def activation(model):
        dense = model.network.get_layer("masked_lm")._intermediate_dense
        return ops.convert_to_numpy(dense.activation(ops.convert_to_tensor(values)))

    exact = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in values]
    cubes = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    np.testing.assert_allclose(activation(former), exact, atol=1e-6)
    np.testing.assert_allclose(activation(model), values * (1 + np.tanh(cubes)) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="Received: exact_gelu=True"):
        save_hugging_face_bert(former, tmp_path)
    make_bert(exact_gelu=True).save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").exact_gelu
