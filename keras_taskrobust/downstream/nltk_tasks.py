"""Small text tasks from NLTK's corpora, for small models."""

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from keras_taskrobust.downstream.text_task import Examples, TaskData, TextTask, class_ids

_FOLDS = 10


@dataclasses.dataclass(frozen=True)
class NltkTask(TextTask):
    """A classification task from a corpus of NLTK. Subclasses read it.

    Args:
        name: the name of NLTK's corpus.
        metrics: as in `DownstreamTask`.
        label_names: the labels as the corpus has them.
    """

    def load(self, data_dir: str | os.PathLike | None = None) -> TaskData:
        """Reads the splits. `data_dir` has no say: NLTK finds its data by itself."""
        from keras_taskrobust.text.nltk_resources import load_nltk_resource

        train, dev = load_nltk_resource(self.name, self.read)
        return TaskData(self._examples(train, "train"), {"dev": self._examples(dev, "dev")})

    def read(self) -> tuple[Iterable[tuple[str, str]], Iterable[tuple[str, str]]]:
        """Reads the training and the held-out split as (text, label), the latter in any order."""
        raise NotImplementedError

    def _examples(self, pairs, split):
        texts, labels = zip(*pairs, strict=True)
        source = f"nltk:{self.name}, {split}"
        return Examples((texts,), class_ids(labels, self.label_names, source), source)


@dataclasses.dataclass(frozen=True)
class _Polarity(NltkTask):
    """Sentences or reviews in one file or one folder a class; every tenth is held out."""

    def read(self):
        from nltk import corpus as corpora

        corpus = getattr(corpora, self.name)
        by_class = [self._texts(corpus, label) for label in self.label_names]
        pairs = [
            (text, label)
            for label, texts in zip(self.label_names, by_class, strict=True)
            for text in texts
        ]
        number = np.concatenate([np.arange(len(texts)) for texts in by_class])
        held_out = number % _FOLDS == _FOLDS - 1
        return [pairs[i] for i in np.flatnonzero(~held_out)], [
            pairs[i] for i in np.flatnonzero(held_out)
        ]

    def _texts(self, corpus, label):
        return [" ".join(words) for words in corpus.sents(categories=[label])]


@dataclasses.dataclass(frozen=True)
class _MovieReviews(_Polarity):
    """Whole reviews; a model with few positions sees their beginnings."""

    def _texts(self, corpus, label):
        return [" ".join(corpus.raw(file).split()) for file in corpus.fileids(categories=[label])]


@dataclasses.dataclass(frozen=True)
class _Attachment(NltkTask):
    """Whether a prepositional phrase belongs to the verb or to the noun before it."""

    def read(self):
        from nltk.corpus import ppattach

        splits = (ppattach.attachments(name) for name in ("training", "devset"))
        train, dev = (
            [
                (" ".join((one.verb, one.noun1, one.prep, one.noun2)), one.attachment)
                for one in split
            ]
            for split in splits
        )
        return train, dev


NLTK_TASKS = (
    _Polarity("sentence_polarity", ("accuracy",), ("neg", "pos")),
    _MovieReviews("movie_reviews", ("accuracy",), ("neg", "pos")),
    _Attachment("ppattach", ("accuracy",), ("V", "N")),
)
"""Sentence polarity and movie reviews (Pang and Lee), prepositional phrases (Ratnaparkhi)."""
