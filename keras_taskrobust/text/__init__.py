"""PoS-BERT: masked language modelling split into part-of-speech tasks."""

import importlib
from typing import Any

from keras_taskrobust.text.annotated_text import AnnotatedText
from keras_taskrobust.text.annotation import annotate
from keras_taskrobust.text.corpora import Corpus, load_corpus
from keras_taskrobust.text.masking import PosMasking, masked_batches, pos_task_names
from keras_taskrobust.text.pos import PENN_TASKS, POS_TASKS, PosTagger, penn_tag_to_task
from keras_taskrobust.text.tagged_parts import annotate_part
from keras_taskrobust.text.target_counts import TargetCounts, count_targets
from keras_taskrobust.text.vocabulary import (
    SPECIAL_TOKENS,
    WordPieceEncoder,
    load_vocabulary,
    save_vocabulary,
    train_vocabulary,
)

__all__ = [
    "PENN_TASKS",
    "POS_TASKS",
    "SPECIAL_TOKENS",
    "AnnotatedText",
    "Corpus",
    "PosBert",
    "PosMasking",
    "PosTagger",
    "TargetCounts",
    "WordPieceEncoder",
    "annotate",
    "annotate_part",
    "count_targets",
    "load_corpus",
    "load_hugging_face_bert",
    "load_vocabulary",
    "masked_batches",
    "penn_tag_to_task",
    "pos_task_names",
    "save_hugging_face_bert",
    "save_vocabulary",
    "train_vocabulary",
]


#: What needs KerasHub, and the module that it is in.
_MODELS = {
    "PosBert": "pos_bert",
    "load_hugging_face_bert": "hugging_face",
    "save_hugging_face_bert": "hugging_face",
}


def __getattr__(name: str) -> Any:
    """Loads the models, and with them KerasHub, on first use: tagging and masking need neither."""
    if name not in _MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODELS[name]}"), name)
