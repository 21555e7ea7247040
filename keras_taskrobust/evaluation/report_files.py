"""What all reports have in common: their order, their files, tables of rows, failures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_taskrobust.evaluation.environments import environment_blocks, mixed_blocks
from keras_taskrobust.evaluation.rendering import (
    Block,
    Entry,
    Heading,
    Notes,
    Paragraph,
    Picture,
    Table,
    to_csv,
    to_html,
    to_markdown,
)
from keras_taskrobust.evaluation.runs import Failure
from keras_taskrobust.files import write_atomically


def write_files(
    directory: Path,
    title: str,
    sections: Sequence[Block],
    settings: Mapping[str, str],
    computed_with: Mapping[str, Mapping[str, str]],
    tables: Mapping[str, Iterable[Sequence[Any]]],
    introduction: str = "",
) -> tuple[Path, ...]:
    """Writes `report.md`, `report.html` and CSV files, each whole or not at all.

    Args:
        directory: where the files go, and where the pictures are; made if it is missing.
        title: the report's title.
        sections: what this report is about: its headline, tables, pictures and failures.
        settings: what was run, shown as a table.
        computed_with: what `environments` returned.
        tables: names of CSV files to their rows.
        introduction: plain text under the title; an empty line starts a new paragraph.

    Returns:
        The paths written, the two reports last.
    """
    blocks: list[Block] = [
        *(Paragraph(text) for text in introduction.split("\n\n") if text.strip()),
        *mixed_blocks(computed_with),
        *sections,
        _settings_table(settings),
        *environment_blocks(computed_with),
    ]
    names = [block.file_name for block in blocks if isinstance(block, Picture)]
    pictures = {name: (directory / name).read_bytes() for name in names}
    texts = {
        **{name: to_csv(rows) for name, rows in tables.items()},
        "report.html": to_html(title, blocks, pictures),
        "report.md": to_markdown(title, blocks),
    }
    for name, text in texts.items():
        write_atomically(directory / name, text.encode("utf-8", "replace"))
    return tuple(directory / name for name in texts)


def table_of_rows(
    corner: str,
    rows: Iterable[Any],
    columns: Mapping[Any, str],
    entry: Callable[[Any, Any], Entry],
    title: str = "",
) -> Table:
    """A table with a line for each row of a comparison.

    Args:
        corner: the heading of the first column, which holds the names of the rows.
        rows: the rows.
        columns: what each further column is of, to its heading.
        entry: from a row and what a column is of to the entry.
        title: the heading over the table.

    Returns:
        `Table`.
    """
    return Table(
        (corner, *columns.values()),
        tuple((Entry(row.name), *(entry(row, key) for key in columns)) for row in rows),
        title=title,
    )


def failure_blocks(
    failures: Sequence[Failure], text: str, header: tuple[str, str, str, str]
) -> list[Block]:
    """What failed, under a `text` that says what that means; empty if nothing did."""
    if not failures:
        return []
    rows = tuple(tuple(Entry(str(field)) for field in failure) for failure in failures)
    return [Heading("Failed"), Paragraph(text), Table(header, rows, text_columns=(0, 2, 3))]


def failure_notes(failures: Sequence[Failure]) -> Notes:
    """The same as lines of the terminal."""
    lines = (f"Failed: {row}, seed {seed}, {task}: {text}" for row, seed, task, text in failures)
    return Notes(tuple(lines), important=True)


def _settings_table(settings):
    return Table(
        ("setting", "value"),
        tuple((Entry(str(name)), Entry(str(value))) for name, value in settings.items()),
        text_columns=(0, 1),
        title="Settings",
    )
