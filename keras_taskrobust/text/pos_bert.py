"""PoS-BERT: a BERT whose masked language modelling is nine tasks, one a part of speech."""

import copy
import os
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_taskrobust import checks
from keras_taskrobust.text import encoder_block as encoder_block
from keras_taskrobust.text.pos import POS_TASKS, PosTagger
from keras_taskrobust.training import GroupedLoss, MinimaxModel
from keras_taskrobust.training.tasks import TaskTotals
from keras_taskrobust.types import Tensor
from keras_taskrobust.weighting.base import PACKAGE

MASKED_LM = "masked_lm"
NEXT_SENTENCE = "next_sentence"
TASK_LOSSES = ("full", "within")
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

    The full cross-entropy of a word `w` of task `k` is that of the word within its task, plus that
    of the task, plus a constant of the word:

        -log p(w | context) = -log p(w | context, k) - log P(k | context) + log q_k(w)
        p(w | context, k) = p(w | context) q_k(w) / P(k | context)
        P(k | context) = sum_v p(v | context) q_k(v)

    with `q_k(w) = P(task k | word piece w)`, as counted on the training text. In the full loss the
    tasks compete for `P(k | context)`, whatever is learnt of their words. The loss within the task
    is the cross-entropy of `logits + log q_k`. It does not train how much of `p(w | context)` each
    task gets: of what `fill_mask` then predicts, compare the words of one task.

    Args:
        backbone: a `keras_hub.models.BertBackbone`.
        preprocessor: a KerasHub BERT preprocessor, needed by `save_to_preset` and `fill_mask`.
        next_sentence: `"auxiliary"`, `"task"`, or `None` for no next-sentence prediction; then
            nothing trains the backbone's pooler, and it is frozen.
        groups: the names of the masked tokens' tasks. `(*POS_TASKS, "other")` also trains on the
            remaining tokens; with `weighting="pooled"` that is plain BERT.
        task_loss: `"full"`, `-log p(w | context)` as in the paper, or `"within"`,
            `-log p(w | context, k)`. Metrics see the logits of `p(w | context)` with either.
        log_task_shares: `(K, V)` floats, `log q_k(w)`, for `task_loss="within"`:
            `keras_taskrobust.text.count_targets(text, masking).log_task_shares`. It is kept as a
            weight that is not trained, which is saved and loaded with all others.
        exact_gelu: bool. Whether the head computes the exact GELU, as models of former versions
            did; the default is the backbone's tanh approximation, by which the model is a BERT as
            others know it.
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
        task_loss="full",
        log_task_shares=None,
        exact_gelu=False,
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
        checks.choice("task_loss", task_loss, TASK_LOSSES)
        if (log_task_shares is None) == (task_loss == "within"):
            raise ValueError(
                "`log_task_shares` must be given for task_loss='within', and for it alone: "
                "`keras_taskrobust.text.count_targets(text, masking).log_task_shares` counts it. "
                f"Received: log_task_shares={log_task_shares} for task_loss={task_loss!r}"
            )
        network = _pretraining_network(backbone, next_sentence is not None, exact_gelu)
        super().__init__(network, **kwargs)
        backbone.pooled_dense.trainable = next_sentence is not None
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.next_sentence = next_sentence
        self.groups = tuple(groups)
        self.task_loss = task_loss
        self.exact_gelu = exact_gelu
        if task_loss == "within":
            self._log_task_shares = self._make_table(log_task_shares)

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

    def compute_task_totals(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> TaskTotals:
        if self.task_loss == "within":
            logits = ops.cast(y_pred[MASKED_LM], "float32")
            rows = self._rows(self._log_task_shares, y)
            y_pred = {**y_pred, MASKED_LM: logits + rows}
        return super().compute_task_totals(x, y, y_pred, sample_weight)

    def make_constant_predictor(self):
        outputs = super().make_constant_predictor()
        return outputs if self.task_loss == "full" else _ConstantWords(self, outputs)

    def constant_logits(self, y: Any, log_frequencies: ArrayLike) -> Tensor:
        """The outputs that predict each masked token by the frequencies of words in its task.

        For `task_loss="within"`: they are free of what the loss adds to them.

        Args:
            y: the targets of a batch.
            log_frequencies: `(K, V)`, `log P(w | k)`.

        Returns:
            `(B, P, V)` float32.
        """
        table = ops.convert_to_tensor(log_frequencies, "float32")
        return self._rows(table - self._log_task_shares, y)

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
            "task_loss": self.task_loss,
            "exact_gelu": self.exact_gelu,
        }

    @classmethod
    def from_config(cls, config):
        """A new model, whose weights are random; `log_task_shares`, a weight, is then NaN."""
        arguments = keras.saving.deserialize_keras_object(copy.deepcopy(config))
        arguments.setdefault("exact_gelu", True)  # of a version that knew no other
        if arguments.get("task_loss") == "within":
            shape = len(arguments["groups"]), arguments["backbone"].vocabulary_size
            arguments["log_task_shares"] = np.full(shape, np.nan)
        return cls(**arguments)

    def _make_table(self, log_task_shares: ArrayLike) -> keras.Variable:
        values = np.asarray(log_task_shares, "float32")
        shape = len(self.groups), self.backbone.vocabulary_size
        is_to_be_loaded = np.isnan(values).all()
        is_normalized = np.allclose(np.exp(values).sum(0), 1.0, atol=1e-3)
        if values.shape != shape or not (is_normalized or is_to_be_loaded):
            raise ValueError(
                "`log_task_shares` must be the logarithms of shares that sum to 1 over the tasks, "
                f"of shape {shape}. Received: an array of shape {values.shape}"
            )
        table = self.add_weight(
            shape,
            "zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="log_task_shares",
        )
        table.assign(values)
        return table

    def _rows(self, table: Tensor, y: Any) -> Tensor:
        """Of a `(K, V)` table the row of each masked token's task; any for one of no task."""
        groups = self._task_losses.target_of(MASKED_LM, y)["groups"]
        rows = ops.clip(ops.cast(groups, "int32"), 0, len(self.groups) - 1)
        return ops.take(table, rows, axis=0)

    def _require_preprocessor(self, method: str) -> keras_hub.models.BertTextClassifierPreprocessor:
        if self.preprocessor is None:
            raise ValueError(
                f"`{method}` needs a tokenizer: make the model with `preprocessor=`. "
                "Received: preprocessor=None"
            )
        return self.preprocessor


class _ConstantWords:
    """The words of each task by their frequencies: the best constants within the tasks.

    Args:
        model: `PosBert`.
        outputs: the `ConstantOutputs` of its other outputs.
    """

    def __init__(self, model, outputs):
        self._model = model
        self._outputs = outputs
        self.add = outputs.add

    def predict(self, x, y):
        """The outputs by name."""
        log_frequencies = np.log(self._outputs.of_groups(MASKED_LM)[:, 0])
        words = self._model.constant_logits(y, log_frequencies)
        return {**self._outputs.predict(x, y), MASKED_LM: words}


def _pretraining_network(
    backbone: keras_hub.models.BertBackbone, next_sentence: bool, exact_gelu: bool
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
        intermediate_activation="gelu" if exact_gelu else backbone.transformer_layers[0].activation,
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
