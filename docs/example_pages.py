"""The notebooks of `examples/`, and a list of them."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "examples"


def pages() -> dict[str, str | bytes]:
    """File names to their content."""
    found: dict[str, str | bytes] = {
        path.name: path.read_bytes() for path in sorted(_FOLDER.rglob("*.ipynb"))
    }
    entries = "\n".join(Path(name).stem for name in found)
    found["index.md"] = (
        "# Examples\n\nEach is a script and the notebook made from it, in the folder `examples/`. "
        "They are made for Kaggle and Colab.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    )
    return found
