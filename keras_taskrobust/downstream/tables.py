"""Tab-separated tables as GLUE has them: plain or gzip, without quoting."""

import gzip
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

_MOST_BROKEN = 0.001


def find_table(folder: Path, names: Sequence[str]) -> Path | None:
    """Finds the first of several files, each plain or with `.gz` after its name.

    Args:
        folder: the folder.
        names: file names.

    Returns:
        The path, or `None`.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def decode_table(path: Path) -> str:
    """The text of a table, plain or gzip, without a byte order mark.

    Raises:
        ValueError: the file is damaged or not UTF-8.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} must be a UTF-8 table, plain or gzip. Received: {error}"
        ) from None


def read_table(
    path: Path, header: Sequence[str] = (), every_row: bool = False
) -> dict[str, list[str]]:
    """Reads a table with a header line. Rows with too few or too many cells are broken.

    Args:
        path: path of the file, gzip if it ends in `.gz`.
        header: the columns of a table that may lack its header line.
        every_row: bool. Whether a broken row is refused. Else a few are left out with a warning.

    Returns:
        dict of column names to lists of strings.

    Raises:
        ValueError: the file is damaged, not UTF-8, or has broken rows that are not left out.
    """
    text = decode_table(path)
    rows = _split(text)
    if not rows:
        raise ValueError(f"{path} must hold a header line and rows. Received: an empty file")
    if not header or set(header) <= set(rows[0]):
        header, rows = rows[0], rows[1:]
    whole = [row for row in rows if len(row) == len(header)]
    if every_row and len(whole) < len(rows):
        _refuse_broken(path, rows, len(header))
    _report_broken(path, len(header), len(rows), len(rows) - len(whole))
    return {name: [row[index] for row in whole] for index, name in enumerate(header)}


def take_columns(
    table: dict[str, list[str]], names: Sequence[str], path: Path
) -> tuple[list[str], ...]:
    """Takes columns out of a table.

    Args:
        table: what `read_table` returned.
        names: the columns.
        path: where the table comes from, for errors.

    Returns:
        tuple of lists of strings.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(
            f"{path} must have the columns {', '.join(map(repr, names))}. Received: a table "
            f"without {', '.join(map(repr, missing))}; it has {', '.join(map(repr, table))}"
        )
    return tuple(table[name] for name in names)


def _split(text: str) -> list[list[str]]:
    """The cells of each line, without the blank lines at the end."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return [line.split("\t") for line in lines]


def _refuse_broken(path, rows, columns):
    number, row = next(pair for pair in enumerate(rows, start=1) if len(pair[1]) != columns)
    raise ValueError(
        f"{path} must have {columns} tab-separated cells in every row. "
        f"Received: {len(row)} in row {number}"
    )


def _report_broken(path, columns, rows, broken):
    if not broken:
        return
    if broken > _MOST_BROKEN * rows:
        raise ValueError(
            f"{path} must have {columns} tab-separated cells in every row. "
            f"Received: fewer or more in {broken} of {rows} rows"
        )
    warnings.warn(f"{path}: {broken} of {rows} rows are broken and left out", stacklevel=3)
