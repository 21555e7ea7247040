"""Writes the pages that come from the code: weightings, names, commands, results, examples."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import api_pages
import command_pages
import example_pages
import result_pages
import weighting_pages

_WRITERS = {
    "weightings": weighting_pages.pages,
    "api": api_pages.pages,
    "commands": command_pages.pages,
    "results": result_pages.pages,
    "examples": example_pages.pages,
}


def write_all(folder: Path) -> None:
    """Makes the folder anew; a page that is as before keeps its time, so that builds are short.

    Args:
        folder: path.
    """
    for name, pages in _WRITERS.items():
        _write(folder / name, pages())


def _write(folder: Path, pages: Mapping[str, str | bytes]) -> None:
    """Files by name; what else lies in the folder goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in pages:
            path.unlink()
    for name, content in pages.items():
        path = folder / name
        data = content.encode() if isinstance(content, str) else content
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
