"""What all reports have in common."""

import csv
from types import SimpleNamespace

import pytest

from keras_taskrobust.evaluation.rendering import Entry, Heading, Notes, Paragraph, Picture, Table
from keras_taskrobust.evaluation.report_files import (
    failure_blocks,
    failure_notes,
    table_of_rows,
    write_files,
)

pytestmark = pytest.mark.backend_free

FAILURES = [("uniform", 0, "RTE", "killed"), ("minimax", 1, "CoLA", "no | memory")]
SECONDS = {"a": 1.0, "b": 2.0}


def write(directory, sections, **arguments):
    computed_with = {"a": {"keras": "3.15"}, "b": {"keras": "3.16"}}
    tables = {"one.csv": iter([("name", "value"), ("a, b", 0.5)]), "two.csv": [("x",)]}
    return write_files(
        directory, "Title", sections, {"steps": "3"}, computed_with, tables, **arguments
    )


def test_a_report_has_its_parts_in_order(tmp_path):
    sections = [Paragraph("Found.", important=True), Heading("Part"), Paragraph("Text.")]
    write(tmp_path, sections, introduction="One.\n\n \n\nTwo.")
    lines = [line for line in (tmp_path / "report.md").read_text().splitlines() if line]
    starts = ["# Title", "One.", "Two.", "**These figures were not all", "**Found.**", "## Part"]
    starts += ["Text.", "## Settings", "| setting", "| :--", "| steps", "## Computed with"]
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=False))
    assert lines[-2:] == ["| a | 3.15 |", "| b | 3.16 |"]


def test_all_files_are_written_and_pictures_are_inside(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    paths = write(tmp_path, [Picture("a.png", "A picture.")])
    assert [path.name for path in paths] == ["one.csv", "two.csv", "report.html", "report.md"]
    with open(tmp_path / "one.csv", newline="") as file:
        assert list(csv.reader(file)) == [["name", "value"], ["a, b", "0.5"]]
    assert "base64,cGljdHVyZQ==" in (tmp_path / "report.html").read_text()


def test_nothing_is_written_if_a_picture_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path, [Picture("missing.png", "A picture.")])
    assert not list(tmp_path.iterdir())


def test_a_table_has_a_line_for_each_row():
    rows = [
        SimpleNamespace(name=name, seed=0, seconds=seconds) for name, seconds in SECONDS.items()
    ]
    columns = {"seed": "Seed", "seconds": "Seconds"}
    table = table_of_rows("row", rows, columns, lambda row, key: Entry(str(getattr(row, key))), "T")
    assert table.header == ("row", "Seed", "Seconds")
    assert [[entry.text for entry in row] for row in table.rows] == [
        ["a", "0", "1.0"],
        ["b", "0", "2.0"],
    ]
    assert table.title == "T"


def test_failures_are_a_table_in_a_report_and_lines_in_the_terminal():
    heading, paragraph, table = failure_blocks(FAILURES, "Why.", ("row", "seed", "task", "reason"))
    assert (heading, paragraph) == (Heading("Failed"), Paragraph("Why."))
    assert isinstance(table, Table)
    assert [entry.text for entry in table.rows[1]] == ["minimax", "1", "CoLA", "no | memory"]
    assert failure_blocks([], "Why.", ("row", "seed", "task", "reason")) == []
    assert failure_notes(FAILURES[:1]) == Notes(("Failed: uniform, seed 0, RTE: killed",), True)
