"""The matrix of NLTK's tagger gives NLTK's tags, ties and rare forms among them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tag.perceptron import PerceptronTagger

from keras_taskrobust.text.perceptron import MatrixTagger

pytestmark = pytest.mark.backend_free

TAGS = ("A", "B", "C", "NN")
WORDS = (
    "the",
    "a",
    "Dog",
    "dogs",
    "x",
    "up-hill",
    "-",
    "1984",
    "12",
    "7th",
    "-START-",
    "no\u00efve",
)


def random_tagger(seed):
    """Every feature of some sentences, with weights so small and few that many scores are equal."""
    generator = np.random.default_rng(seed)
    tagger = PerceptronTagger(load=False)
    tagger.classes = tagger.model.classes = set(TAGS)
    tagger.tagdict = {"the": "A", "dogs": "NN", "x": ""}
    for _ in range(30):
        words = list(generator.choice(WORDS, 6))
        context = [*tagger.START, *map(tagger.normalize, words), *tagger.END]
        for i, word in enumerate(words):
            previous, one_before = generator.choice([*TAGS, *tagger.START], 2)
            for feature in tagger._get_features(i, word, context, previous, one_before):
                kept = generator.choice(TAGS, 2, replace=False)
                weights = generator.integers(-3, 4, 2) / 1000
                tagger.model.weights[feature] = dict(zip(kept, weights.tolist(), strict=True))
    return tagger


@pytest.fixture(scope="module", params=[0, 1])
def taggers(request):
    tagger = random_tagger(request.param)
    return tagger, MatrixTagger(tagger)


@settings(max_examples=200, deadline=None)
@given(sentences=st.lists(st.lists(st.sampled_from([*WORDS, "new"]), max_size=9), max_size=6))
def test_tags_are_those_of_nltk(taggers, sentences):
    nltk_tagger, ours = taggers
    expected = [[tag for _, tag in nltk_tagger.tag(words)] for words in sentences]
    assert ours.tag(sentences) == expected


def test_weights_that_no_integer_holds_are_refused():
    tagger = random_tagger(0)
    tagger.model.weights["bias"] = {"A": 0.12345}
    with pytest.raises(ValueError, match="whole thousandths"):
        MatrixTagger(tagger)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conll2000", "treebank"])
def test_tags_of_whole_corpora_are_those_of_nltk(nltk_data, name):
    from nltk import corpus

    sentences = [list(words) for words in getattr(corpus, name).sents()]
    tagger = PerceptronTagger()
    expected = [[tag for _, tag in tagger.tag(words)] for words in sentences]
    assert MatrixTagger(tagger).tag(sentences) == expected
