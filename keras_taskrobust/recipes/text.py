"""What PoS-BERT's pre-training does in its own way, and its names."""

import dataclasses
import functools

import keras
import keras_hub

from keras_taskrobust.data_loading import WHOLE
from keras_taskrobust.evaluation.held_out import score_groups
from keras_taskrobust.files import folder_to_write, replacing
from keras_taskrobust.recipes.comparison import compare
from keras_taskrobust.recipes.pretraining import PretrainingFamily, compile_with, pretrain
from keras_taskrobust.recipes.text_preparation import PreparedText, prepare_text
from keras_taskrobust.recipes.text_settings import TINY, TextPretraining
from keras_taskrobust.text import PosMasking, TargetCounts, WordPieceEncoder, masked_batches
from keras_taskrobust.text.pos_bert import MASKED_LM, PosBert
from keras_taskrobust.training.rematerialization import rematerialize
from keras_taskrobust.training.schedules import LinearWarmupDecay


def build_pos_bert(
    recipe: TextPretraining, encoder: WordPieceEncoder, counts: TargetCounts
) -> PosBert:
    """A compiled `PosBert` with the recipe's initial weights, optimizer and weighting.

    Args:
        recipe: the settings.
        encoder: that of the text.
        counts: of the training text.
    """
    keras.utils.set_random_seed(recipe.seed)
    policy = keras.dtype_policies.get(recipe.on_device().dtype_policy)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=encoder.vocabulary_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        intermediate_dim=recipe.intermediate_dim,
        dropout=recipe.dropout,
        max_sequence_length=recipe.sequence_length,
        dtype=policy,
    )
    if recipe.rematerialize:
        rematerialize(backbone.transformer_layers)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        encoder.to_tokenizer(), sequence_length=recipe.sequence_length
    )
    next_sentence = None if recipe.next_sentence == "none" else recipe.next_sentence
    masking = _masking(recipe, encoder)
    model = PosBert(
        backbone,
        preprocessor,
        next_sentence,
        masking.group_names,
        recipe.task_loss,
        counts.log_task_shares if recipe.task_loss == "within" else None,
    )
    schedule = LinearWarmupDecay(recipe.peak_learning_rate, recipe.warmup_steps, recipe.steps)
    trivial_losses = counts.trivial_losses(recipe.task_loss).tolist()
    compile_with(
        model, recipe, schedule, dict(zip(masking.group_names, trivial_losses, strict=True))
    )
    return model


class TextFamily(PretrainingFamily[TextPretraining, PreparedText]):
    """PoS-BERT on texts."""

    model = "PoS-BERT"
    unit = "sequences"
    preset = "preset"
    introduction = (
        "Each row is the same small PoS-BERT, trained on the same batches from the same initial "
        "weights. Only the weighing of its part-of-speech tasks differs: pooled is the mean over "
        "all masked words, as in plain masked language modelling, uniform the mean over the tasks, "
        "minimax weighs the largest loss most."
    )
    weightings = {name: {"weighting": name} for name in ("pooled", "uniform", "minimax")}
    demo = dataclasses.replace(TINY, steps=1_200, warmup_steps=120, task_loss="within")

    def prepare(self, recipe, directory):
        return prepare_text(recipe, directory)

    def build(self, recipe, data):
        counts = data.target_counts(_masking(recipe, data.encoder))
        return build_pos_bert(recipe, data.encoder, counts)

    def batches(self, recipe, data, part=WHOLE):
        masking = _masking(recipe, data.encoder)
        batches = masked_batches(
            data.train, masking, recipe.batch_size, seed=recipe.seed, part=part
        )
        return lambda step: batches[step:]

    def score(self, model, recipe, data):
        masking = _masking(dataclasses.replace(recipe, seed=0, masking_copies=1), data.encoder)
        batches = masked_batches(
            data.held_out, masking, recipe.batch_size, shuffle=False, epochs=1, drop_remainder=False
        )
        counts = data.target_counts(masking)
        return score_groups(model, batches, MASKED_LM, masking.group_names, counts)

    def export(self, model, directory):
        with replacing(directory / "model.keras") as partial:
            model.save(partial)
        model.save_to_preset(folder_to_write(directory, self.preset))

    def describe(self, recipe, data):
        within = {"task loss": "of the masked word within its task, which is given"}
        return {
            "corpus": f"{recipe.corpus}, {len(data.train)} training and {len(data.held_out)} "
            f"held-out sequences of {recipe.sequence_length} tokens",
            "tagger": data.train.manifest["settings"]["tagger"],
            "model": f"{recipe.num_layers} layers of {recipe.hidden_dim}, {recipe.num_heads} "
            f"heads, vocabulary of {data.encoder.vocabulary_size}",
            **(within if recipe.task_loss == "within" else {}),
        }


TEXTS = TextFamily()
pretrain_text = functools.partial(pretrain, TEXTS)
compare_text = functools.partial(compare, TEXTS)


def _masking(recipe, encoder):
    return PosMasking(
        encoder,
        rate=recipe.masked_share,
        max_predictions=recipe.max_predictions,
        maskable=recipe.maskable,
        whole_word=recipe.whole_word,
        copies=recipe.masking_copies,
        seed=recipe.seed,
        tag_set=recipe.tag_set,
    )
