"""PosBert: losses by group against NumPy, presets that KerasHub opens, and its own conveniences."""

import copy

import keras
import keras_hub
import numpy as np
import pytest
from marks import slow

import keras_taskrobust as ktr
from keras_taskrobust.text import POS_TASKS, SPECIAL_TOKENS, PosBert

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "quickly", "on", "mat", "and", "."]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS]
LENGTH, PREDICTIONS = 12, 3


def make_backbone(dropout=0.0, **arguments):
    return keras_hub.models.BertBackbone(
        **{
            "vocabulary_size": len(VOCABULARY),
            "num_layers": 1,
            "num_heads": 2,
            "hidden_dim": 8,
            "intermediate_dim": 16,
            "max_sequence_length": LENGTH,
            "dropout": dropout,
            **arguments,
        }
    )


def make_preprocessor():
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=VOCABULARY, lowercase=True)
    return keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH)


def make_batch(number=8, groups=9, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "token_ids": rng.integers(5, 16, (number, LENGTH), dtype="int32"),
        "segment_ids": np.zeros((number, LENGTH), "int32"),
        "padding_mask": np.ones((number, LENGTH), "int32"),
        "mask_positions": rng.integers(1, LENGTH, (number, PREDICTIONS), dtype="int32"),
    }
    masked = {
        "labels": rng.integers(5, 16, (number, PREDICTIONS), dtype="int32"),
        "groups": rng.integers(-1, groups, (number, PREDICTIONS), dtype="int32"),
    }
    return x, {"masked_lm": masked, "next_sentence": rng.integers(0, 2, number, dtype="int32")}


def test_losses_by_group_equal_numpy_on_gathered_positions():
    model = PosBert(make_backbone())
    model.compile(keras.optimizers.SGD(0.0), weighting="uniform")
    x, y = make_batch()
    full = keras.ops.convert_to_numpy(
        model.backbone.predict({k: v for k, v in x.items() if k != "mask_positions"}, verbose=0)[
            "sequence_output"
        ]
    )
    gathered = np.take_along_axis(full, x["mask_positions"][..., None], 1)
    head = model.network.get_layer("masked_lm")
    hidden = head._intermediate_layer_norm(head._intermediate_dense(gathered))
    embedding = keras.ops.convert_to_numpy(model.backbone.token_embedding.embeddings)
    logits = keras.ops.convert_to_numpy(hidden) @ embedding.T
    logits = logits + keras.ops.convert_to_numpy(head._bias)
    np.testing.assert_allclose(model.predict(x, verbose=0)["masked_lm"], logits, atol=1e-5)
    shifted = logits - logits.max(-1, keepdims=True)
    losses = (
        np.log(np.exp(shifted).sum(-1))
        - np.take_along_axis(shifted, y["masked_lm"]["labels"][..., None], -1)[..., 0]
    )
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    for index, task in enumerate(POS_TASKS):
        inside = y["masked_lm"]["groups"] == index
        expected = losses[inside].mean() if inside.any() else np.nan
        np.testing.assert_allclose(logs[f"{task}_loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("next_sentence", [slow("auxiliary"), "task", slow(None)])
def test_next_sentence_prediction_in_its_three_places(next_sentence):
    model = PosBert(make_backbone(), next_sentence=next_sentence)
    model.compile("adam", weighting="minimax")
    x, y = make_batch()
    if next_sentence is None:
        del y["next_sentence"]
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert len(model.task_names) == (10 if next_sentence == "task" else 9)
    trains_pooler = model.backbone.pooled_dense.kernel.trainable
    assert trains_pooler == (next_sentence is not None)


def test_other_tokens_are_a_tenth_task():
    model = PosBert(make_backbone(), groups=(*POS_TASKS, "other"))
    model.compile("adam", weighting="pooled")
    x, y = make_batch(groups=10)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isfinite(logs["other_loss"])


def test_save_load_and_continue_with_dropout(tmp_path):
    model = PosBert(make_backbone(dropout=0.2), preprocessor=make_preprocessor())
    model.compile(keras.optimizers.AdamW(1e-2), weighting="uncertainty")
    x, y = make_batch()

    def train(model):
        return model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]

    train(model)
    model.save(tmp_path / "model.keras")
    expected = train(model)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert train(loaded) == expected
    assert loaded.preprocessor.sequence_length == LENGTH


def test_a_preset_opens_as_a_classifier_of_raw_strings(tmp_path):
    model = PosBert(make_backbone(), preprocessor=make_preprocessor())
    model.save_to_preset(tmp_path / "preset")
    classifier = keras_hub.models.BertTextClassifier.from_preset(
        str(tmp_path / "preset"), num_classes=2
    )
    assert classifier.predict(["the cat sat on the mat .", "a dog"], verbose=0).shape == (2, 2)
    assert classifier.preprocessor.sequence_length == LENGTH
    for own, loaded in zip(model.backbone.weights, classifier.backbone.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(own), keras.ops.convert_to_numpy(loaded)
        )


def test_fill_mask_names_words_with_their_task():
    model = PosBert(make_backbone(), preprocessor=make_preprocessor())
    head = model.network.get_layer("masked_lm")
    bias = np.zeros(len(VOCABULARY), "float32")
    bias[VOCABULARY.index("cat")], bias[VOCABULARY.index("ran")] = 60.0, 50.0
    head._bias.assign(bias)
    ((first, second),) = model.fill_mask("the [MASK] sat on the mat .", top_k=2, tagger="textblob")
    assert first["token"] == "cat"
    assert first["task"] == "noun"
    assert first["probability"] > 0.99
    assert second["token"] == "ran"
    assert len(model.fill_mask("[MASK] [MASK]", top_k=1, tagger="textblob")) == 2


def test_a_backbone_made_through_keras_nlp_is_the_same_class():
    keras_nlp = pytest.importorskip("keras_nlp")
    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=16, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    model = PosBert(backbone)
    model.compile("adam")
    assert np.isfinite(model.evaluate(*make_batch(), verbose=0, return_dict=True)["loss"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PosBert(keras.Sequential()), "`backbone` must be a keras_hub.models.BertBackbone"),
        (lambda: PosBert(make_backbone(), next_sentence="yes"), "'auxiliary', 'task' or None"),
        (lambda: PosBert(make_backbone()).fill_mask("a [MASK]"), "needs a tokenizer"),
        (lambda: PosBert(make_backbone(), make_preprocessor()).fill_mask("a cat"), "must contain"),
        (
            lambda: PosBert(make_backbone(), make_preprocessor()).fill_mask("[MASK]" + " a" * 20),
            "at most 12 tokens",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_is_exported():
    assert ktr.text.PosBert is PosBert


def test_from_config_leaves_its_argument():
    config = PosBert(make_backbone()).get_config()
    former = copy.deepcopy(config)
    PosBert.from_config(config)
    assert config == former


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_a_mistake_in_the_first_batch_leaves_the_backbone(method):
    model = PosBert(make_backbone())
    model.compile("adam")
    x, y = make_batch(number=4)
    tokens = {name: values for name, values in x.items() if name != "mask_positions"}
    before = model.backbone.predict(tokens, verbose=0)["pooled_output"]
    wrong = {**y, "next_sentence": np.zeros((4, 7, 2), "int32")}
    with pytest.raises(Exception, match=r"shape|size|dimension|rank"):
        getattr(model, method)(x, wrong, verbose=0)
    np.testing.assert_array_equal(
        before, model.backbone.predict(tokens, verbose=0)["pooled_output"]
    )
    if method == "fit":
        model.fit(x, y, verbose=0)
