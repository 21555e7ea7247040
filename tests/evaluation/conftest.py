"""Runs with made-up scores and histories."""

import dataclasses

import numpy as np
import pytest

from keras_taskrobust.evaluation import Run, TaskScores

TASKS = (
    "verb",
    "noun",
    "adjective",
    "determiner",
    "adverb",
    "pronoun",
    "preposition",
    "conjunction",
    "interjection",
    "next_sentence",
)
_LEVELS = np.array([5.1, 5.9, 6.0, 1.9, 4.7, 3.2, 2.4, 1.6, 7.2, 0.66])
_RATES = np.array([2.4, 3.6, 1.1, 1.6, 0.8, 1.1, 1.8, 0.55, 0.0, 1.0])


def _history(generator, levels, steps):
    curves = levels + (9 - levels) * np.exp(-np.arange(1, steps + 1)[:, np.newaxis] / 60)
    curves = curves + generator.normal(0, 0.2, curves.shape)
    curves[generator.random(steps) < 0.85, TASKS.index("interjection")] = np.nan
    weights = np.exp(np.nan_to_num(curves, nan=-99.0))
    weights /= weights.sum(axis=1, keepdims=True)
    history = {"step": list(range(1, steps + 1))}
    for index, name in enumerate(TASKS):
        history[f"{name}_loss"] = curves[:, index].tolist()
        history[f"{name}_weight"] = weights[:, index].tolist()
        history[f"{name}_gradient_norm"] = np.sqrt(np.abs(curves[:, index])).tolist()
    history["gradient_cosine"] = (
        0.3 * np.cos(curves[:, 0]) + generator.normal(0, 0.1, steps)
    ).tolist()
    history["gradient_conflict"] = generator.random(steps).tolist()
    history["worst_loss"] = np.nanmax(curves, axis=1).tolist()
    history["mean_loss"] = np.nanmean(curves, axis=1).tolist()
    return history


def _parts(scores):
    """The same share in both: the totals and the trivial ones are split alike."""
    return {
        name: TaskScores(
            TASKS,
            share * scores.totals,
            scores.counts,
            trivial_totals=None if scores.trivial_totals is None else share * scores.trivial_totals,
        )
        for name, share in (("within", 2 / 3), ("prior", 1 / 3))
    }


@pytest.fixture
def make_runs():
    """`make_runs({"uniform": 0.0, "minimax": -0.2}, seeds=(0, 1))`: shifts of the losses.

    With `trivial`, the loss of the best constant is that much above the levels of the losses. With
    `parts`, a third of the loss is that of the task, and two thirds that within the task.
    """

    def make(shifts, seeds=(0,), records=400, steps=40, correct=True, trivial=None, parts=False):
        generator = np.random.default_rng(7)
        counts = generator.poisson(_RATES, (records, len(TASKS)))
        counts[:40, TASKS.index("interjection")] = 1
        noise = generator.normal(0, 0.5, counts.shape)
        runs = []
        for weighting, shift in shifts.items():
            for seed in seeds:
                levels = _LEVELS + shift + generator.normal(0, 0.02, len(TASKS))
                totals = counts * np.maximum(levels + noise, 0.01)
                hits = generator.binomial(counts, np.exp(-levels / 3)) if correct else None
                constant = None if trivial is None else counts * (_LEVELS + trivial)
                scores = TaskScores(TASKS, totals, counts, hits, constant)
                if parts:
                    scores = dataclasses.replace(scores, parts=_parts(scores))
                history = _history(generator, levels, steps) if steps else {}
                runs.append(Run(weighting, seed, scores, history, 61.5))
        return runs

    return make
