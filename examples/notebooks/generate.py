"""Makes the notebooks from the scripts beside them, and runs them for their output.

    python examples/notebooks/generate.py [name ...]

`SMOKE` and `KERAS_BACKEND` are read by the scripts, as ever. Without names: all.
"""

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent


def scripts() -> list[Path]:
    """The examples, in the order of the alphabet."""
    return sorted(NOTEBOOKS.parent.glob("*.py"))


def unexecuted(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, without output."""
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def is_of_the_example(output: nbformat.NotebookNode) -> bool:
    """Whether it is neither what libraries say while they load, nor a bar and what it shows."""
    html = output.get("data", {}).get("text/html", "")
    return output.get("name") != "stderr" and "UserWarning" not in html


def main(names: list[str]) -> None:
    """Writes the notebooks of the named scripts."""
    for script in scripts():
        if names and script.stem not in names:
            continue
        notebook = unexecuted(script)
        NotebookClient(notebook, timeout=None, record_timing=False, coalesce_streams=True).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = list(filter(is_of_the_example, cell.outputs))
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
        nbformat.write(notebook, NOTEBOOKS / f"{script.stem}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
