"""`PosBert` to a folder that Hugging Face's Transformers open, and back."""

import os
import warnings
from pathlib import Path
from typing import Any

import keras_hub
from keras import ops

from keras_taskrobust.hugging_face_files import (
    CONFIG,
    WEIGHTS,
    read_arrays,
    read_json,
    to_keras,
    to_pytorch,
    transformers_name,
    write_json,
    write_model,
)
from keras_taskrobust.text.pos_bert import MASKED_LM, NEXT_SENTENCE, PosBert
from keras_taskrobust.text.vocabulary import (
    SPECIAL_TOKENS,
    WordPieceEncoder,
    load_vocabulary,
    save_vocabulary,
)

_VOCABULARY = "vocab.txt"
_TOKENIZER = "tokenizer_config.json"
_EPSILON = 1e-12
#: KerasHub's BERT has the first; those of before had the second, which differs by less than 0.001.
_ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "gelu_new")
_SPECIAL_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
_LAYERS = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "segment_embedding": "bert.embeddings.token_type_embeddings",
    "embeddings_layer_norm": "bert.embeddings.LayerNorm",
    "pooled_dense": "bert.pooler.dense",
    MASKED_LM: "cls.predictions",
    f"{MASKED_LM}/intermediate_dense": "cls.predictions.transform.dense",
    f"{MASKED_LM}/intermediate_layer_norm": "cls.predictions.transform.LayerNorm",
    NEXT_SENTENCE: "cls.seq_relationship",
}
_BLOCK_LAYERS = {
    "self_attention_layer/query": "attention.self.query",
    "self_attention_layer/key": "attention.self.key",
    "self_attention_layer/value": "attention.self.value",
    "self_attention_layer/attention_output": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
    "feedforward_layer_norm": "output.LayerNorm",
}


def save_hugging_face_bert(
    model: PosBert | keras_hub.models.BertBackbone,
    folder: str | os.PathLike,
    tokenizer: keras_hub.tokenizers.BertTokenizer | None = None,
) -> None:
    """Writes a BERT as Hugging Face's Transformers keep it; PyTorch is not needed.

    `transformers.BertForMaskedLM.from_pretrained(folder)` opens a `PosBert`, with the same logits;
    `BertForPreTraining` also has its next-sentence head, whose classes are swapped, as Transformers
    count them. `transformers.BertModel` opens a backbone alone, and
    `keras_hub.models.BertBackbone.from_preset(folder)` either.

    Args:
        model: `PosBert`, or a backbone without heads.
        folder: where `config.json`, `model.safetensors`, `vocab.txt` and `tokenizer_config.json`
            go.
        tokenizer: of a backbone; a `PosBert` brings its own. `None`: no vocabulary is written.

    Raises:
        ValueError: the head of the model was made with `exact_gelu=True`.

    Example:

    ```python
    save_hugging_face_bert(keras.saving.load_model("runs/mine/model.keras"), "mine")
    logits = transformers.BertForMaskedLM.from_pretrained("mine")(**tokens).logits
    ```
    """
    folder = Path(folder)
    backbone = model
    if isinstance(model, PosBert):
        _check_head(model)
        backbone = model.backbone
        tokenizer = tokenizer or (model.preprocessor and model.preprocessor.tokenizer)
    names = _names(backbone.num_layers)
    arrays = {
        transformers_name(variable.path, names): to_pytorch(
            variable.path, ops.convert_to_numpy(ops.cast(variable, "float32"))
        )
        for variable in _variables(model)
    }
    _swap_next_sentence(arrays)
    encoder = tokenizer and WordPieceEncoder.from_tokenizer(tokenizer)
    write_model(folder, _config(model, backbone, encoder), arrays)
    if encoder:
        _write_tokenizer(folder, encoder, backbone.max_sequence_length)


def load_hugging_face_bert(folder: str | os.PathLike, **arguments: Any) -> PosBert:
    """Reads a BERT of Hugging Face's Transformers into a `PosBert`, whose `backbone` has no heads.

    KerasHub's BERT computes the tanh approximation of the GELU: of a model with the exact one, such
    as bert-base-uncased, the logits are not quite the same.

    Args:
        folder: what `save_hugging_face_bert` or `save_pretrained` of a BERT wrote. A model of the
            hub is first fetched with `huggingface_hub.snapshot_download`.
        **arguments: of `PosBert`, such as `next_sentence` and `groups`.

    Returns:
        `PosBert`, with a preprocessor if there is a vocabulary. A head that the folder lacks has
        its initial weights, and a warning says so.

    Raises:
        ValueError: it is no such folder, or its model is no BERT that KerasHub can compute.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    _check_config(config)
    arrays = {_with_prefix(name): array for name, array in read_arrays(folder / WEIGHTS).items()}
    _swap_next_sentence(arrays)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_dim=config["hidden_size"],
        intermediate_dim=config["intermediate_size"],
        dropout=config["hidden_dropout_prob"],
        max_sequence_length=config["max_position_embeddings"],
        num_segments=config["type_vocab_size"],
    )
    model = PosBert(backbone, _read_preprocessor(folder, backbone), **arguments)
    names = _names(backbone.num_layers)
    found = [(one, transformers_name(one.path, names)) for one in _variables(model)]
    missing = [name for _, name in found if name not in arrays]
    if any(name.startswith("bert.") and ".pooler." not in name for name in missing):
        raise ValueError(
            f"{folder / WEIGHTS} must hold all weights of a BERT. Received: none of the names "
            f"{', '.join(missing[:3])}"
        )
    values = [
        (one, to_keras(one.path, arrays[name], tuple(one.shape)))
        for one, name in found
        if name in arrays
    ]
    for variable, value in values:
        variable.assign(value)
    if missing:
        warnings.warn(
            f"{folder} lacks {len(missing)} weights of the heads, which are as they were drawn: "
            f"{', '.join(missing)}",
            stacklevel=2,
        )
    return model


def _names(num_layers):
    """Keras paths of layers to what Transformers call them."""
    blocks = {
        f"transformer_layer_{index}/{layer}": f"bert.encoder.layer.{index}.{name}"
        for index in range(num_layers)
        for layer, name in _BLOCK_LAYERS.items()
    }
    return _LAYERS | blocks


def _variables(model):
    return (model.network if isinstance(model, PosBert) else model).weights


def _swap_next_sentence(arrays):
    """Here class 1 is the next sentence, in Transformers class 0."""
    for name in ("cls.seq_relationship.weight", "cls.seq_relationship.bias"):
        if name in arrays:
            arrays[name] = arrays[name][::-1]


def _check_head(model):
    if model.exact_gelu:
        raise ValueError(
            "A BERT of Transformers has one activation, and `model` two: the tanh approximation of "
            "the GELU in its blocks, and the exact one in its head. Export `model.backbone`, or "
            "make the model with exact_gelu=False. Received: exact_gelu=True"
        )


def _config(model, backbone, encoder):
    has_head = isinstance(model, PosBert)
    return {
        "architectures": ["BertForMaskedLM" if has_head else "BertModel"],
        "model_type": "bert",
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": backbone.dropout,
        "max_position_embeddings": backbone.max_sequence_length,
        "type_vocab_size": backbone.num_segments,
        "hidden_act": _ACTIVATIONS[0],
        "layer_norm_eps": _EPSILON,
        "tie_word_embeddings": True,
        **({"pad_token_id": encoder.pad_id} if encoder else {}),
    }


def _check_config(config):
    """Refuses what KerasHub's BERT does not compute."""
    expected = {
        "model_type": ("bert",),
        "hidden_act": _ACTIVATIONS,
        "layer_norm_eps": (_EPSILON,),
        "position_embedding_type": ("absolute", None),
        "tie_word_embeddings": (True, None),
        "is_decoder": (False, None),
    }
    wrong = {name: config.get(name) for name in expected if config.get(name) not in expected[name]}
    if wrong:
        words = ", ".join(f"{name}={' or '.join(map(repr, expected[name]))}" for name in wrong)
        raise ValueError(
            f"{CONFIG} must be that of a BERT that KerasHub computes, with {words}. Received: "
            f"{', '.join(f'{name}={value!r}' for name, value in wrong.items())}"
        )


def _with_prefix(name):
    """The name as `BertForMaskedLM` has it: `BertModel` has no prefix, TensorFlow's gamma, beta."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else f"bert.{name}"


def _write_tokenizer(folder, encoder, length):
    save_vocabulary(encoder.vocabulary, folder / _VOCABULARY)
    write_json(
        folder / _TOKENIZER,
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": encoder.lowercase,
            "strip_accents": encoder.strip_accents,
            "tokenize_chinese_chars": True,
            "model_max_length": length,
            **dict(zip(_SPECIAL_NAMES, SPECIAL_TOKENS, strict=True)),
        },
    )


def _read_preprocessor(folder, backbone):
    """The preprocessor, or `None` without a vocabulary. Accents go with case by default."""
    if not (folder / _VOCABULARY).exists():
        return None
    settings = read_json(folder / _TOKENIZER) if (folder / _TOKENIZER).exists() else {}
    lowercase = settings.get("do_lower_case", True)
    strip_accents = settings.get("strip_accents")
    encoder = WordPieceEncoder(
        load_vocabulary(folder / _VOCABULARY),
        lowercase=lowercase,
        strip_accents=lowercase if strip_accents is None else strip_accents,
    )
    return keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=backbone.max_sequence_length
    )
