"""The prediction files of cells that belong to a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.files import (
    file_name,
    link_or_copy,
    path_inside,
    path_to_write,
    write_atomically,
)


def keep_predictions(directory: Path, key: str, texts: Mapping[str, str]) -> None:
    """Writes the files of a cell, those of the same text once.

    Args:
        directory: the folder of the cells.
        key: the key of the cell.
        texts: names of files to their texts.
    """
    written: dict[str, Path] = {}
    for name, text in texts.items():
        path = path_to_write(directory, f"cells/{key}/{name}")
        if text in written:
            link_or_copy(written[text], path)
        else:
            write_atomically(path, text.encode())
            written[text] = path


def publish_predictions(
    directory: Path, keys: Sequence[str], results: Sequence[DownstreamResult], epoch: str
) -> None:
    """Shows the predictions of cells in `predictions/<row>/seed-<seed>/`, too; others there go.

    Nothing is done if no cell has predictions.

    Args:
        directory: the folder of the cells.
        keys: the keys of the cells.
        results: what `load_results` read of these.
        epoch: "last" or "best".
    """
    sources = {
        f"predictions/{file_name(one.row)}/seed-{one.seed}/{path.name}": path
        for key, one in zip(keys, results, strict=True)
        if not one.failure
        for path in _predictions_of(directory, key, epoch)
    }
    if not sources:
        return
    for name, source in sources.items():
        link_or_copy(source, path_to_write(directory, name))
    for path in directory.glob("predictions/*/seed-*/[!.]*.tsv"):
        name = path.relative_to(directory).as_posix()
        if name not in sources:
            path_to_write(directory, name).unlink(missing_ok=True)


def _predictions_of(directory: Path, key: str, epoch: str) -> list[Path]:
    """The files of a cell, none of which may be a link: what it leads to is not published."""
    folder = f"cells/{key}/{epoch}"
    found = path_inside(directory, folder).glob("[!.]*.tsv")
    return [path_to_write(directory, f"{folder}/{path.name}") for path in found]
