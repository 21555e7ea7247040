"""The prediction files of cells that belong to a report."""

from collections.abc import Sequence
from pathlib import Path

from keras_taskrobust.evaluation.downstream_comparison import DownstreamResult
from keras_taskrobust.files import file_name, path_inside, path_to_write, write_atomically


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
    sources = {
        f"predictions/{file_name(one.row)}/seed-{one.seed}/{path.name}": path
        for key, one in zip(keys, results, strict=True)
        if not one.failure
        for path in _predictions_of(directory, key, epoch)
    }
    if not sources:
        return
    for name, source in sources.items():
        write_atomically(path_to_write(directory, name), source.read_bytes())
    for path in directory.glob("predictions/*/seed-*/[!.]*.tsv"):
        name = path.relative_to(directory).as_posix()
        if name not in sources:
            path_to_write(directory, name).unlink(missing_ok=True)


def _predictions_of(directory: Path, key: str, epoch: str) -> list[Path]:
    """The files of a cell, none of which may be a link: what it leads to is not published."""
    folder = f"cells/{key}/{epoch}"
    found = path_inside(directory, folder).glob("[!.]*.tsv")
    return [path_to_write(directory, f"{folder}/{path.name}") for path in found]
