"""PoS-BERT: a BERT whose masked language modelling is nine tasks, one a part of speech."""

import copy
import os
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_taskrobust.text.pos import POS_TASKS, PosTagger
from keras_taskrobust.training import GroupedLoss, MinimaxModel
from keras_taskrobust.weighting.base import PACKAGE

MASKED_LM = "masked_lm"
NEXT_SENTENCE = "next_sentence"
INITIALIZER_RANGE = 0.02


@keras.saving.register_keras_serializable(PACKAGE)
class PosBert(MinimaxModel):
    """Pre-trains a KerasHub BERT on the masked tokens of each part of speech (Wang et al. 2023).

    The masked-language-modelling head is tied to the token embedding and computed at the masked
    positions only. Each masked token belongs to the task of its part of speech, so one loss over
    one output becomes K task losses (`GroupedLoss`). A batch is what
    `keras_taskrobust.text.masked_batches` delivers: inputs `{"token_ids", "segment_ids",
    "padding_mask"}`, each `(B, S)`, and `"mask_positions"` `(B, P)`; targets
    `{"masked_lm": {"labels", "groups"}}`, each `(B, P)`, and `"next_sentence"` `(B,)`.

    The paper leaves open how next-sentence prediction is weighed. Here it is an auxiliary loss
    with weight 1, or a further task.

    Args:
        backbone: a `keras_hub.models.BertBackbone`.
        preprocessor: a KerasHub BERT preprocessor, needed by `save_to_preset` and `fill_mask`.
        next_sentence: `"auxiliary"`, `"task"`, or `None` for no next-sentence prediction; then
            nothing trains the backbone's pooler, and it is frozen.
        groups: the names of the masked tokens' tasks. `(*POS_TASKS, "other")` also trains on the
            remaining tokens; with `weighting="pooled"` that is plain BERT.
        **kwargs: `keras.Model` arguments, such as `name`.

    Example:

    >>> import keras_hub
    >>> backbone = keras_hub.models.BertBackbone(
    ...     vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
    ...     max_sequence_length=12,
    ... )
    >>> model = PosBert(backbone)
    >>> model.compile("adam", weighting="minimax")
    >>> model.task_names[:3]
    ('verb', 'noun', 'adjective')

    Reference:
        [Task-Robust Pre-Training for Worst-Case Downstream Adaptation]
        (https://arxiv.org/abs/2306.12070), section 4.1.
    """

    def __init__(
        self,
        backbone,
        preprocessor=None,
        next_sentence="auxiliary",
        groups=POS_TASKS,
        **kwargs,
    ):
        if not isinstance(backbone, keras_hub.models.BertBackbone):
            raise ValueError(
                "`backbone` must be a keras_hub.models.BertBackbone. "
                f"Received: backbone={backbone!r}"
            )
        if next_sentence not in ("auxiliary", "task", None):
            raise ValueError(
                "`next_sentence` must be 'auxiliary', 'task' or None. "
                f"Received: next_sentence={next_sentence!r}"
            )
        super().__init__(_pretraining_network(backbone, next_sentence is not None), **kwargs)
        backbone.pooled_dense.trainable = next_sentence is not None
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.next_sentence = next_sentence
        self.groups = tuple(groups)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        weighting="minimax",
        auxiliary=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        """`MinimaxModel.compile`, with the losses of PoS-BERT unless `loss` says otherwise.

        Args:
            optimizer: a Keras optimizer.
            loss: `None` for the cross-entropy of the masked tokens, split into `groups`, and of
                next-sentence prediction.
            weighting: as in `MinimaxModel.compile`.
            auxiliary: as in `MinimaxModel.compile`; with `loss=None` it is set here.
            metrics: as in `MinimaxModel.compile`.
            weighted_metrics: as in `MinimaxModel.compile`.
            **kwargs: as in `MinimaxModel.compile`.
        """
        if loss is None:
            cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            loss = {MASKED_LM: GroupedLoss(cross_entropy, self.groups)}
            if self.next_sentence == "task":
                loss[NEXT_SENTENCE] = cross_entropy
            if self.next_sentence == "auxiliary":
                auxiliary = {NEXT_SENTENCE: cross_entropy}
        super().compile(optimizer, loss, weighting, auxiliary, metrics, weighted_metrics, **kwargs)

    def fill_mask(
        self, text: str, top_k: int = 5, tagger: str = "auto"
    ) -> list[list[dict[str, Any]]]:
        """Predicts the masked words of a text.

        Args:
            text: str with at least one `[MASK]`.
            top_k: int. Predictions for each mask.
            tagger: the `PosTagger` that names the task of each prediction in its sentence.

        Returns:
            For each mask a list of dicts: `"token"` (str), `"probability"` (float), `"task"`
            (str, a part of speech, or `None` for the rest).

        Raises:
            ValueError: if there is no preprocessor, no mask, or the text is too long.

        Example:

        ```python
        model.fill_mask("the [MASK] sat on the mat .")
        ```
        """
        tokenizer = self._require_preprocessor("fill_mask").tokenizer
        pieces = text.split("[MASK]")
        if len(pieces) < 2:
            raise ValueError(f"`text` must contain '[MASK]'. Received: text={text!r}")
        ids, positions = [tokenizer.cls_token_id], []
        for index, piece in enumerate(pieces):
            if index:
                positions.append(len(ids))
                ids.append(tokenizer.mask_token_id)
            if piece.strip():
                ids.extend(int(token) for token in ops.convert_to_numpy(tokenizer(piece)))
        ids.append(tokenizer.sep_token_id)
        limit = self.backbone.max_sequence_length
        if len(ids) > limit:
            raise ValueError(
                f"`text` must have at most {limit} tokens with [CLS] and [SEP]. "
                f"Received: {len(ids)} tokens"
            )
        outputs = self(_single_example(ids, positions), training=False)
        logits = outputs[MASKED_LM] if isinstance(outputs, dict) else outputs
        probabilities = ops.convert_to_numpy(ops.softmax(ops.cast(logits, "float32")))[0]
        best = np.argsort(-probabilities, axis=-1)[:, :top_k]
        words = [[tokenizer.id_to_token(int(token)) for token in row] for row in best]
        tasks = _tasks_in_context(pieces, words, PosTagger(tagger))
        return [
            [
                {"token": word, "probability": float(probabilities[mask, token]), "task": task}
                for word, token, task in zip(words[mask], best[mask], tasks[mask], strict=True)
            ]
            for mask in range(len(positions))
        ]

    def save_to_preset(self, preset_dir: str | os.PathLike) -> None:
        """Writes backbone, tokenizer and preprocessor as a KerasHub preset.

        `keras_hub.models.BertTextClassifier.from_preset(preset_dir, num_classes=2)` opens it and
        takes raw strings.

        Args:
            preset_dir: the folder to write.
        """
        preprocessor = self._require_preprocessor("save_to_preset")
        self.backbone.save_to_preset(os.fspath(preset_dir))
        keras_hub.models.BertTextClassifierPreprocessor(
            preprocessor.tokenizer, sequence_length=preprocessor.sequence_length
        ).save_to_preset(os.fspath(preset_dir))

    def get_config(self):
        config = super().get_config()
        del config["network"]
        return {
            **config,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "next_sentence": self.next_sentence,
            "groups": list(self.groups),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(copy.deepcopy(config)))

    def _require_preprocessor(self, method: str) -> keras_hub.models.BertTextClassifierPreprocessor:
        if self.preprocessor is None:
            raise ValueError(
                f"`{method}` needs a tokenizer: make the model with `preprocessor=`. "
                "Received: preprocessor=None"
            )
        return self.preprocessor


def _pretraining_network(
    backbone: keras_hub.models.BertBackbone, next_sentence: bool
) -> keras.Model:
    def initializer():
        return keras.initializers.TruncatedNormal(stddev=INITIALIZER_RANGE)

    inputs = {
        **backbone.input,
        "mask_positions": keras.Input((None,), dtype="int32", name="mask_positions"),
    }
    encoded = backbone(backbone.input)
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=backbone.token_embedding,
        intermediate_activation="gelu",
        layer_norm_epsilon=1e-12,
        kernel_initializer=initializer(),
        dtype=backbone.dtype_policy,
        name=MASKED_LM,
    )
    outputs = {MASKED_LM: head(encoded["sequence_output"], inputs["mask_positions"])}
    if next_sentence:
        outputs[NEXT_SENTENCE] = keras.layers.Dense(
            2, kernel_initializer=initializer(), dtype=backbone.dtype_policy, name=NEXT_SENTENCE
        )(encoded["pooled_output"])
    return keras.Model(inputs, outputs, name="pos_bert_network")


def _single_example(ids, positions):
    token_ids = np.array([ids], dtype="int32")
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
        "mask_positions": np.array([positions], dtype="int32"),
    }


def _tasks_in_context(pieces, words, tagger):
    """The task of each predicted word, tagged in the text with the other masks filled best."""
    filled = [row[0] for row in words]
    tasks = []
    for mask, row in enumerate(words):
        sentences, places = [], []
        for word in row:
            choice = [*filled[:mask], word, *filled[mask + 1 :]]
            sentence = pieces[0].split()
            for index, (chosen, piece) in enumerate(zip(choice, pieces[1:], strict=True)):
                if index == mask:
                    places.append(len(sentence))
                sentence += [chosen, *piece.split()]
            sentences.append(sentence)
        tags = [tags[place] for tags, place in zip(tagger.tag(sentences), places, strict=True)]
        tasks.append([None if tag < 0 else POS_TASKS[tag] for tag in tags])
    return tasks
