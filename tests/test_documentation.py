"""The README and the pages do what they show: their code runs, their commands are understood.

What needs data or a network is written as a `code-block` directive, which is not run.
"""

import doctest
import re
import runpy
import shlex
from pathlib import Path

import pytest

from keras_taskrobust import cli
from keras_taskrobust.recipes import text_preparation

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(python|pycon|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = {page.name: FENCE.findall(page.read_text()) for page in PAGES}
WITH_CODE = [name for name, blocks in BLOCKS.items() if {"python", "pycon"} & set(dict(blocks))]
COMMANDS = sorted(
    {
        line
        for blocks in BLOCKS.values()
        for language, text in blocks
        if language == "bash"
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("taskrobust ")
    }
)


class Understood(BaseException):
    """Raised where a command would start its work."""


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch):
    """From top to bottom, in one namespace."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": name}
    for language, text in BLOCKS[name]:
        if language == "python":
            script = tmp_path / "block.py"
            script.write_text(text)
            names |= runpy.run_path(str(script), init_globals=names)
        elif language == "pycon":
            session = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
            result = doctest.DocTestRunner().run(session, clear_globs=False)
            names |= session.globs
            assert not result.failed


@pytest.mark.backend_free
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command, monkeypatch):
    def stop(*_):
        raise Understood

    monkeypatch.setattr(cli, "starting_keras", stop)
    for name in ("prepare_text", "prepare_text_part"):  # without Keras
        monkeypatch.setattr(text_preparation, name, stop)
    with pytest.raises(Understood):
        cli.main(shlex.split(command, comments=True)[1:])


@pytest.mark.backend_free
def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = PAGES[0].read_text()
    assert len(text.split()) <= 700
    targets = [ROOT / target for target in re.findall(r"\]\(([^):#]+)\)", text)]
    assert len(targets) > 10
    assert [path for path in targets if not path.exists()] == []
