"""The prediction files of cells, and those of them that belong to a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.files import write_atomically
from keras_taskrobust.recipes.comparison import file_name


def write_predictions(directory: Path, key: str, epoch: str, texts: Mapping[str, str]) -> None:
    """Writes the predictions of a cell, as `cells/<key>/<epoch>/<name>.tsv`.

    Args:
        directory: the folder of the cells.
        key: the key of the cell.
        epoch: "last" or "best".
        texts: names to the contents of files.
    """
    for name, text in texts.items():
        write_atomically(_folder(directory, key, epoch) / f"{name}.tsv", text.encode())


def publish_predictions(
    directory: Path, keys: Sequence[str], results: Sequence[DownstreamResult], epoch: str
) -> None:
    """Copies the predictions of cells to `predictions/<row>/seed-<seed>/`; others there go.

    Nothing is done if no cell has predictions.

    Args:
        directory: the folder of the cells.
        keys: the keys of the cells.
        results: what `load_results` read of these.
        epoch: "last" or "best".
    """
    published = directory / "predictions"
    sources = {
        published / file_name(one.weighting) / f"seed-{one.seed}" / path.name: path
        for key, one in zip(keys, results, strict=True)
        if not one.failure
        for path in _folder(directory, key, epoch).glob("*.tsv")
    }
    if not sources:
        return
    for target, source in sources.items():
        write_atomically(target, source.read_bytes())
    for path in published.glob("*/seed-*/*.tsv"):
        if path not in sources:
            path.unlink(missing_ok=True)


def _folder(directory: Path, key: str, epoch: str) -> Path:
    return directory / "cells" / key / epoch
