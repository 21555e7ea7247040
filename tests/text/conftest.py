"""Shared fixtures of the text tests."""

import os
from pathlib import Path

import nltk
import pytest

from keras_taskrobust.text import WordPieceEncoder, load_corpus, train_vocabulary

BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / "shared" / "data" / "nltk_data"


@pytest.fixture
def nltk_data(monkeypatch):
    """The folder of NLTK's data; the test is skipped where there is none."""
    folders = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep)]
    for folder in [*folders, BESIDE_THE_REPOSITORY]:
        if (folder / "corpora").is_dir():
            monkeypatch.setattr(nltk.data, "path", [str(folder)])
            return folder
    pytest.skip("needs NLTK's data: set NLTK_DATA")


@pytest.fixture
def no_nltk_data(monkeypatch):
    """A machine without NLTK's data and without a network."""
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(
        "keras_taskrobust.text.nltk_resources._download", lambda package: "no network"
    )


@pytest.fixture(scope="session")
def documents():
    """The first 24 documents of the bundled corpus, some 16,000 words, split by rules."""
    from keras_taskrobust.text.splitting import TextSplitter

    splitter = TextSplitter("rules")
    texts = list(load_corpus("bundled").raw_documents())[:24]
    return [splitter(text) for text in texts]


@pytest.fixture(scope="session")
def encoder(documents):
    sentences = (words for document in documents for words in document)
    return WordPieceEncoder(train_vocabulary(sentences, size=1500))
