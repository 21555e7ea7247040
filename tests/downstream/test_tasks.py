"""Metrics against scikit-learn and SciPy; the data of every task, and what is wrong with them."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from keras_taskrobust.downstream import (
    GLUE_TASKS,
    NLTK_TASKS,
    TEXT_TASKS,
    DownstreamTask,
    Examples,
    text_task,
)
from keras_taskrobust.downstream.metrics import METRICS

pytestmark = pytest.mark.backend_free

COUNTS = {
    "CoLA": (8551, {"dev": 1043}),
    "SST-2": (67349, {"dev": 872}),
    "MRPC": (3668, {"dev": 408}),
    "STS-B": (5749, {"dev": 1500}),
    "RTE": (2490, {"dev": 277}),
    "QNLI": (2000, {"dev": 5463}),
    "QQP": (20000, {"dev": 3496}),
    "MNLI": (9888, {"dev_matched": 6238}),
}
LABELS_OF_DEV = {
    "CoLA": (322, 721),
    "SST-2": (428, 444),
    "MRPC": (129, 279),
    "RTE": (146, 131),
    "QNLI": (2702, 2761),
    "QQP": (2172, 1324),
    "MNLI": (2183, 1995, 2060),
}
TFDS_LABELS = {
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
}


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_scikit_learn_and_scipy(seed):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 2, (2, 200))
    expected = {
        "accuracy": metrics.accuracy_score(labels, predictions),
        "f1": metrics.f1_score(labels, predictions),
        "matthews": metrics.matthews_corrcoef(labels, predictions),
    }
    for name, value in expected.items():
        assert METRICS[name](labels, predictions) == value
    hits = labels == predictions
    positives = (labels & predictions).sum()
    assert METRICS["accuracy"](labels, predictions) == hits.mean()
    assert METRICS["f1"](labels, predictions) == pytest.approx(
        2 * positives / (labels.sum() + predictions.sum())
    )
    assert METRICS["matthews"](labels, predictions) == pytest.approx(
        np.corrcoef(labels, predictions)[0, 1]
    )
    numbers, guesses = rng.normal(size=(2, 50)).astype("float32")
    assert METRICS["pearson"](numbers, guesses) == pytest.approx(
        stats.pearsonr(numbers, guesses)[0], abs=1e-6
    )
    assert METRICS["spearman"](numbers, guesses) == pytest.approx(
        stats.spearmanr(numbers, guesses)[0]
    )


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "f1"])
def test_a_constant_prediction_scores_nothing(name):
    assert METRICS[name](np.array([0, 1, 1]), np.zeros(3)) == 0.0


def test_the_trivial_baseline_is_the_best_constant_of_the_training_labels():
    task = DownstreamTask("task", ("f1", "accuracy"), ("0", "1"))
    scores = task.evaluate_trivial(np.array([0, 0, 0, 1, 1]), np.array([1, 0, 0, 0]))
    assert scores == {"f1": pytest.approx(0.4), "accuracy": 0.25}
    accuracy = DownstreamTask("task", ("accuracy",), ("0", "1"))
    assert accuracy.evaluate_trivial(np.array([0, 0, 1]), np.array([1, 1, 0, 1])) == {
        "accuracy": 0.25
    }
    regression = DownstreamTask("task", ("pearson",))
    assert regression.evaluate_trivial(np.array([1.0, 3.0]), np.array([0.0, 1.0])) == {
        "pearson": 0.0
    }


@pytest.mark.parametrize("name", COUNTS)
def test_glue_beside_the_repository_has_the_counts_of_its_readme(name, shared_glue):
    data = text_task(name).load(shared_glue)
    train, dev = COUNTS[name]
    assert len(data.train) == train
    assert {split: len(examples) for split, examples in data.dev.items()} == dev
    if name in LABELS_OF_DEV:
        labels = next(iter(data.dev.values())).labels
        assert tuple(np.bincount(labels)) == LABELS_OF_DEV[name]
    if name == "MRPC":
        assert np.bincount(data.test["MRPC"].labels).tolist() == [578, 1147]
    if name == "STS-B":
        assert data.train.labels.mean() == pytest.approx(2.701, abs=5e-4)


@pytest.mark.parametrize("task", GLUE_TASKS, ids=lambda task: task.name)
def test_glue_tables_are_read_as_they_are(task, glue_folder):
    data = task.load(glue_folder)
    assert len(data.train) == 12
    assert list(data.dev) == list(task.dev_files)
    assert list(data.test) == list(task.test_files)
    assert data.train.texts[0][0].startswith('"the old dog')
    assert all(examples.labels is None for examples in data.test.values())
    assert all(examples.ids[0] == "100" for examples in data.test.values())
    if not task.is_regression:
        assert data.train.labels[:4].tolist() == [k % task.num_outputs for k in range(4)]


@pytest.mark.parametrize("task", GLUE_TASKS, ids=lambda task: task.name)
def test_glue_from_tfds(task):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=5):
        data = task.load()
    assert len(data.train) == 5
    assert list(data.dev) == list(task.dev_files)
    assert list(data.test) == list(task.test_files)
    assert all(isinstance(text, str) for column in data.train.texts for text in column)
    if not task.is_regression:
        names = tfds.builder(f"glue/{task.tfds_name}").info.features["label"].names
        assert len(names) == task.num_outputs
        assert names == TFDS_LABELS.get(task.tfds_name, names)
        if task.tfds_name in TFDS_LABELS:
            assert task.label_names == tuple(names)


def test_mrpc_from_the_files_of_microsoft(glue_folder):
    task, folder = text_task("MRPC"), glue_folder / "MRPC"
    rows = [f"{k % 2}\t{k}\t{k + 1}\tone {k}\ttwo {k}" for k in range(6)]
    text = "\n".join(["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *rows]) + "\n"
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (folder / name).unlink()
    (folder / "msr_paraphrase_train.txt").write_text("\ufeff" + text)
    (folder / "msr_paraphrase_test.txt").write_text(text)
    with pytest.raises(ValueError, match=r"MRPC must hold train.tsv, or .* without dev_ids.tsv"):
        task.load(glue_folder)
    (folder / "dev_ids.tsv").write_text("1\t2\n4\t5\n")
    data = task.load(glue_folder)
    assert data.dev["dev"].texts[0] == ["one 1", "one 4"]
    assert data.dev["dev"].labels.tolist() == [1, 0]
    assert len(data.train) == 4
    assert data.test["MRPC"].labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [("sentence_polarity", 9596, 1066), ("movie_reviews", 1800, 200), ("ppattach", 20801, 4039)],
)
def test_nltk_tasks(name, train, dev, nltk_data):
    data = text_task(name).load()
    assert (len(data.train), len(data.dev["dev"])) == (train, dev)
    assert not set(data.train.texts[0]) >= set(data.dev["dev"].texts[0])
    if name != "ppattach":
        assert np.bincount(data.dev["dev"].labels).tolist() == [dev // 2] * 2


def test_predictions_are_written_as_glue_takes_them():
    assert text_task("RTE").prediction_lines("RTE", np.array([1, 0])) == [
        "not_entailment",
        "entailment",
    ]
    assert text_task("STS-B").prediction_lines("STS-B", np.array([5.7, -1.0, 2.5])) == [
        "5.000",
        "0.000",
        "2.500",
    ]


def test_names_are_unique_and_an_unknown_one_lists_them():
    assert len(TEXT_TASKS) == len(GLUE_TASKS) + len(NLTK_TASKS)
    with pytest.raises(ValueError, match="must be one of MNLI, .*Received: 'COLA'"):
        text_task("COLA")


def _rewrite(path, change):
    path.write_text(change(path.read_text()))


def test_bad_tables_get_one_sentence(glue_folder):
    task, path = text_task("QNLI"), glue_folder / "QNLI" / "dev.tsv"
    good = path.read_text()

    def refused(content, message):
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as error:
            task.load(glue_folder)
        assert "\n" not in str(error.value)

    refused(
        good.replace("question", "query", 1), r"dev.tsv must have the columns 'question'.*it has"
    )
    refused(
        good.replace("not_entailment", "maybe"), r"dev.tsv: a label must be one of 'entailment'"
    )
    refused(good.splitlines()[0] + "\n", r"at least one example. Received: .*dev.tsv")
    refused("", r"dev.tsv must hold a header line and rows")
    refused(
        good + "1\tbroken\n", r"dev.tsv must have 4 tab-separated cells .* or more in 1 of 13 rows"
    )
    refused(good + "1\ta\tb\tentailment\tmore\n", r"dev.tsv must have 4 .* in 1 of 13 rows")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"dev.tsv must be a UTF-8 table"):
        task.load(glue_folder)
    path.unlink()
    with pytest.raises(
        ValueError, match=r"QNLI must hold dev.tsv or dev.tsv.gz. Received: \['test"
    ):
        task.load(glue_folder)
    with pytest.raises(ValueError, match=r"nowhere must be .* a folder 'QNLI'. Received: no such"):
        task.load(glue_folder / "nowhere")
    with pytest.raises(ValueError, match=r"RTE must be .* a folder 'QNLI'. Received: a folder w"):
        task.load(glue_folder / "RTE")
    damaged = glue_folder / "RTE" / "train.tsv.gz"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"train.tsv.gz must be a UTF-8 table, plain or gzip"):
        text_task("RTE").load(glue_folder)
    _rewrite(glue_folder / "STS-B" / "dev.tsv", lambda text: text.replace("4.5", "45"))
    with pytest.raises(ValueError, match="number from 0 to 5. Received: scores from 0.5 to 45"):
        text_task("STS-B").load(glue_folder)
    _rewrite(glue_folder / "STS-B" / "dev.tsv", lambda text: text.replace("45", "high"))
    with pytest.raises(ValueError, match="number from 0 to 5. could not convert.*'high'"):
        text_task("STS-B").load(glue_folder)


def test_a_few_broken_rows_of_many_are_left_out(glue_folder):
    path = glue_folder / "QQP" / "train.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1:] * 200, "7\tbroken"]) + "\n")
    with pytest.warns(UserWarning, match="train.tsv: 1 of 2401 rows are broken"):
        data = text_task("QQP").load(glue_folder)
    assert len(data.train) == 2400


def test_cells_hold_any_character_but_tab_and_line_feed(glue_folder):
    path = glue_folder / "SST-2" / "train.tsv"
    cells = ["a\rb", 'c "d', "e\u2028f\x0bg", "h" * 200_000]
    lines = ["index\tsentence\tlabel", *(f"{k}\t{cell}\t1" for k, cell in enumerate(cells))]
    for end in ("\n", "\r\n"):
        path.write_bytes("".join(line + end for line in [*lines, ""]).encode())
        data = text_task("SST-2").load(glue_folder)
        assert data.train.texts[0] == cells
        assert data.train.labels.tolist() == [1] * 4


def test_no_row_of_a_test_set_is_left_out(glue_folder):
    path = glue_folder / "QQP" / "test.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1:] * 200, "7\tbroken"]) + "\n\n")
    with pytest.raises(ValueError, match=r"test.tsv must have 3 .* Received: 2 in row 2401$"):
        text_task("QQP").load(glue_folder)


def test_examples_refuse():
    with pytest.raises(ValueError, match="at least one example. Received: here"):
        Examples(([],), None, "here")
    with pytest.raises(ValueError, match=r"as many. Received: lengths \[1, 2\] in here"):
        Examples((["a"], ["b", "c"]), None, "here")
