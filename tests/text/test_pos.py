"""The nine tasks and the taggers."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_taskrobust.text import PENN_TASKS, POS_TASKS, PosTagger, penn_tag_to_task

pytestmark = pytest.mark.backend_free

# Every tag of the Penn Treebank, with its task as the definition of the tasks has it.
TAGS_OF_TASKS = {
    "verb": "VB VBD VBG VBN VBP VBZ MD",
    "noun": "NN NNS NNP NNPS",
    "adjective": "JJ JJR JJS",
    "determiner": "DT PDT WDT",
    "adverb": "RB RBR RBS WRB",
    "pronoun": "PRP PRP$ WP WP$ EX",
    "preposition": "IN TO RP",
    "conjunction": "CC",
    "interjection": "UH",
    None: "CD FW LS POS SYM $ # `` '' ( ) , . : -LRB- -RRB- -NONE- X",
}


@pytest.fixture(scope="module")
def textblob_tagger():
    return PosTagger("textblob")


def tasks_of(tagger, sentence):
    (tasks,) = tagger.tag([sentence.split()])
    return [POS_TASKS[task] if task >= 0 else None for task in tasks]


def test_the_tasks_are_the_nine_in_order():
    assert POS_TASKS == (
        "verb",
        "noun",
        "adjective",
        "determiner",
        "adverb",
        "pronoun",
        "preposition",
        "conjunction",
        "interjection",
    )


@pytest.mark.parametrize(
    ("task", "tag"), [(task, tag) for task, tags in TAGS_OF_TASKS.items() for tag in tags.split()]
)
def test_penn_tags_map_to_the_tasks(task, tag):
    assert penn_tag_to_task(tag) == (-1 if task is None else POS_TASKS.index(task))


def test_the_penn_tasks_are_the_tags_of_the_nine_side_by_side():
    tags = [tag for task, tags in TAGS_OF_TASKS.items() if task for tag in tags.split()]
    assert tuple(tags) == PENN_TASKS


def test_penn_tasks_refine_the_nine(textblob_tagger):
    sentences = [["She", "didn't", "see", "2", "old", "dogs", ",", "but", "he", "saw", "most"]]
    ((*tasks,),) = PosTagger("textblob", tag_set="penn").tag(sentences)
    names = [PENN_TASKS[task] if task >= 0 else None for task in tasks]
    assert names[:7] == ["PRP", "VBD", "VB", None, "JJ", "NNS", None]
    coarse = [-1 if name is None else penn_tag_to_task(name) for name in names]
    assert [coarse] == textblob_tagger.tag(sentences)


def test_an_unknown_tag_set_lists_the_known():
    with pytest.raises(ValueError, match="`tag_set` must be one of nine, penn. .*=ten"):
        PosTagger("textblob", tag_set="ten")


def test_textblob_tags_plain_english(textblob_tagger):
    assert tasks_of(textblob_tagger, "The old dog quickly told him in 1999 .") == [
        "determiner",
        "adjective",
        "noun",
        "adverb",
        "verb",
        "pronoun",
        "preposition",
        None,
        None,
    ]


def test_textblob_does_not_read_digits_as_chat(textblob_tagger):
    assert tasks_of(textblob_tagger, "2 and 4") == [None, "conjunction", None]


@pytest.mark.parametrize(
    ("words", "first_part"),
    [("She didn't go", "did"), ("She didn\u2019t go", "did"), ("I cannot go", "can")],
)
def test_a_contraction_has_the_task_of_its_first_part(textblob_tagger, words, first_part):
    assert tasks_of(textblob_tagger, words)[1] == "verb", first_part


def test_quotation_marks_have_no_task(textblob_tagger):
    assert tasks_of(textblob_tagger, '" Stop , " he said')[0] is None
    assert tasks_of(textblob_tagger, "\u201c Stop \u201d")[::2] == [None, None]


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5),
        max_size=3,
    )
)
@settings(max_examples=50, deadline=None)
def test_there_is_one_task_for_each_word(sentences):
    tasks = PosTagger("textblob").tag(sentences)
    assert [len(row) for row in tasks] == [len(words) for words in sentences]
    assert all(-1 <= task < len(POS_TASKS) for row in tasks for task in row)


@pytest.mark.parametrize(("name", "share"), [("nltk", 0.97), ("textblob", 0.95)])
def test_tasks_agree_with_the_treebank(nltk_data, name, share):
    from nltk.corpus import treebank

    gold = [
        [(word, tag) for word, tag in sentence if tag != "-NONE-"]
        for sentence in treebank.tagged_sents()
    ]
    predicted = PosTagger(name).tag([[word for word, _ in sentence] for sentence in gold])
    pairs = [
        (task, penn_tag_to_task(tag))
        for tasks, sentence in zip(predicted, gold, strict=True)
        for task, (_, tag) in zip(tasks, sentence, strict=True)
    ]
    assert len(pairs) == 94_084
    agreement = sum(task == expected for task, expected in pairs) / len(pairs)
    print(f"{name}: {agreement:.4f} of {len(pairs)} tokens have the gold tag's task")
    assert agreement >= share


def test_the_description_names_tagger_and_version(textblob_tagger):
    assert re.fullmatch(r"textblob \d+\.\d+(\.\d+)? pattern", textblob_tagger.description)


def test_an_unknown_tagger_lists_the_known():
    with pytest.raises(ValueError, match="`name` must be one of .*textblob.*Received: name=spam"):
        PosTagger("spam")


@pytest.mark.parametrize("word", ["", None, 3])
def test_a_word_must_be_a_non_empty_string(textblob_tagger, word):
    with pytest.raises(ValueError, match="must hold words which are non-empty strings. Received"):
        textblob_tagger.tag([["a", word]])


def test_nltk_without_its_data_says_what_to_do(no_nltk_data):
    with pytest.raises(LookupError, match=r"averaged_perceptron_tagger_eng.*NLTK_DATA"):
        PosTagger("nltk")


def test_auto_falls_back_to_textblob_with_a_warning(no_nltk_data):
    with pytest.warns(UserWarning, match=r"falls back to TextBlob.*NLTK_DATA"):
        tagger = PosTagger("auto")
    assert tagger.name == "textblob"
    assert tagger.tag([["dogs"]]) == [[POS_TASKS.index("noun")]]


def test_auto_is_nltk_where_its_data_are(nltk_data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PosTagger("auto").name == "nltk"
