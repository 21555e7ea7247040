"""The examples begin as they promise, and their notebooks have their source."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.backend_free

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def generator():
    path = EXAMPLES / "notebooks" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_has_the_source_of_its_script_and_output(script):
    notebook = nbformat.read(EXAMPLES / "notebooks" / f"{script.stem}.ipynb", as_version=4)
    assert source(notebook) == source(generator().unexecuted(script))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(
        output.output_type == "stream" or "text/html" in output.get("data", {})
        for output in outputs
    )


def test_every_notebook_has_a_script():
    notebooks = {path.stem for path in (EXAMPLES / "notebooks").glob("*.ipynb")}
    assert notebooks == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_begins_with_its_costs_one_install_line_and_the_backend(script):
    text = script.read_text(encoding="utf-8")
    header, install, imports = generator().unexecuted(script).cells[:3]
    assert header.source.startswith("# ")
    assert "| at full size | one CPU core | T4 | TPU v3-8 |" in header.source
    assert re.findall(r"^\| (time|memory) \|", header.source, re.MULTILINE) == ["time", "memory"]
    assert len(re.findall(r"^%pip install", install.source, re.MULTILINE)) == 1
    assert "skip-execution" in install.metadata["tags"]
    lines = imports.source.splitlines()
    assert lines[0] == "import os"
    assert next(line for line in lines[1:] if line).startswith(
        'os.environ.setdefault("KERAS_BACKEND", '
    )
    assert text.count('SMOKE = os.environ.get("SMOKE") == "1"') == 1
