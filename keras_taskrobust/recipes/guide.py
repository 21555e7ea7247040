"""`README.txt` in the folder of a run or report: what each file is, and what to read first."""

from collections.abc import Mapping
from pathlib import Path

from keras_taskrobust.files import write_atomically

NAME = "README.txt"
_FIRST = {
    "report.html": "the report: findings, tables, plots; any browser opens it",
    "report.md": "the same as Markdown",
}
_RESULTS = {
    "preset": "KerasHub preset of the encoder, which fine-tuning starts from",
    "model.keras": "the whole model, for keras.saving.load_model, once keras_taskrobust.vision, or "
    "of texts PosBert from keras_taskrobust.text, is imported",
    "huggingface": "the model for Transformers, with a model card: taskrobust export",
    "keras": "the model for KerasHub, with a model card",
    "multimae": "the weights for the reference MultiMAE, with a model card",
    "predictions": "predictions of held-out and test examples, a folder for each row and seed",
    "metrics.csv": "held-out losses of each task, numbers in full",
    "downstream.csv": "scores of each downstream task, numbers in full",
    "inheritance.csv": "the metric of each task after fine-tuning on each, numbers in full",
    "history.csv": "task losses and weights in training, from step to step",
    "tensorboard": "the same for TensorBoard: tensorboard --logdir FOLDER",
    "*.png": "the plots and pictures of the report",
    "reconstructions*.npz": "what the pictures of reconstructions are drawn from",
    "scores.npz": "held-out losses of each record",
}
_KEPT = {
    "runs": "the pre-training runs of the comparison, each with a README.txt of its own",
    "cells": "figures of each fine-tuning, by row, seed, task and a hash of what decides them",
    "heads": "the heads that were trained beforehand",
    "comparison.json": "what the report is drawn from: taskrobust report FOLDER draws it again",
    "recipe.json": "the settings of the run",
    "fingerprints.json": "backend, versions, and digests of the data: it goes on with no others",
    "finished.json": "that the run is done, in how many seconds, with which backend and versions",
    "checkpoint-*": "the newest two states of training, named by their steps, to go on from",
    "text": "the corpus, tagged and tokenized",
    "*.traceback.txt": "where something failed; the same command tries it again",
}
_PARTS = {"Read first": _FIRST, "Results": _RESULTS, "Kept to go on, or to draw again": _KEPT}


def write_guide(directory: Path) -> None:
    """Writes `README.txt`, about what is in the folder now.

    Args:
        directory: the folder of a run or report.
    """
    parts = {title: _those_in(directory, files) for title, files in _PARTS.items()}
    width = max((len(name) for files in parts.values() for name in files), default=0)
    paragraphs = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {files[name]}" for name in files)])
        for title, files in parts.items()
        if files
    ]
    write_atomically(directory / NAME, ("\n\n".join(paragraphs) + "\n").encode())


def _those_in(directory: Path, files: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if any(directory.glob(name))}
