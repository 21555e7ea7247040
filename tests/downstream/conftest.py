"""Where the data of the downstream tests are."""

import os
from pathlib import Path

import nltk
import pytest
from downstream_data import save_tiny_preset, write_glue_folder

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def glue_folder(tmp_path):
    return write_glue_folder(tmp_path / "glue")


@pytest.fixture(scope="session")
def preset(tmp_path_factory):
    return save_tiny_preset(tmp_path_factory.mktemp("presets") / "tiny")


@pytest.fixture
def shared_glue():
    """GLUE's tables beside the repository; the test is skipped where there are none."""
    folder = SHARED / "glue"
    if not folder.is_dir():
        pytest.skip("needs GLUE's tables in ../shared/data/glue")
    return folder


@pytest.fixture
def nltk_data(monkeypatch):
    """The folder of NLTK's data; the test is skipped where there is none."""
    folders = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep)]
    for folder in [*folders, SHARED / "nltk_data"]:
        if (folder / "corpora").is_dir():
            monkeypatch.setattr(nltk.data, "path", [str(folder)])
            return folder
    pytest.skip("needs NLTK's data: set NLTK_DATA")
