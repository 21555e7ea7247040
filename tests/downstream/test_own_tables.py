"""Tasks of one's own, from tables: what is read, what is held out, and what is refused."""

import csv
import gzip

import numpy as np
import pytest

from keras_taskrobust.downstream import open_table
from keras_taskrobust.downstream.own_tables import named_tasks

pytestmark = pytest.mark.backend_free

ROWS = [('one, "two"\nthree', "b")] * 20 + [("four", "a")] * 10


def write_csv(path, rows=ROWS, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_every_tenth_example_of_each_class_is_held_out(tmp_path):
    task = open_table("mood", write_csv(tmp_path / "mood.csv"))
    data = task.load()
    assert task.name == "mood"
    assert task.label_names == ("a", "b")
    assert np.bincount(data.train.labels).tolist() == [9, 18]
    assert np.bincount(data.dev["dev"].labels).tolist() == [1, 2]
    assert data.dev["dev"].texts[0] == ['one, "two"\nthree'] * 2 + ["four"]


def test_a_folder_has_a_table_for_each_split(tmp_path):
    write_csv(tmp_path / "train.csv", [(1, "x", "y", "no"), (2, "z", "w", "yes")] * 3, HEADER)
    table = 'label\tsentence1\tsentence2\nyes\ta "quote\tb\n'
    (tmp_path / "dev.tsv.gz").write_bytes(gzip.compress(table.encode()))
    data = open_table("pairs", tmp_path).load()
    assert data.train.texts == (["x", "z"] * 3, ["y", "w"] * 3)
    assert data.dev["dev"].texts == (['a "quote'], ["b"])
    assert data.dev["dev"].labels.tolist() == [1]


HEADER = ("id", "sentence1", "sentence2", "label")


def test_the_digest_is_that_of_the_examples(tmp_path):
    first = open_table("t", write_csv(tmp_path / "a.csv")).digest
    assert open_table("t", write_csv(tmp_path / "b.csv")).digest == first
    assert open_table("t", write_csv(tmp_path / "a.csv", ROWS[:-1] * 2)).digest != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,genre\na,b\n", r"must have the columns 'label' and 'text' .*Received: 'text', 'gen"),
        ("", r"must have the columns 'label' and 'text'"),
        ("text,label\na,b\nc\n", r"must have 2 comma-separated cells .*Received: 1 in row 3"),
        ("text,label\na,b\nc, \n", r"must have a label in every row. Received: none in row 3"),
        ('text,label\n"a,b\n', r"must be comma-separated.*Received: line 2: unexpected end"),
        ("text,label,label\na,b,b\n", r"columns` must be different values"),
        ("text,label\n" + "a,b\n" * 9, r"ten examples of a class.*Received: 9 of the largest"),
        ("text,label\n" + "a,b\n" * 20, r"must be classes, two or more.*Received: 1 different"),
        (
            "text,label\n" + "a,b\n" * 11 + "".join(f"a,{k}\n" for k in range(20)),
            r"must be classes.*Received: 21 different labels in 30 training",
        ),
    ],
)
def test_what_is_no_table_of_classes_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        open_table("mine", path)
    assert "mine.csv" in str(error.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    path = write_csv(tmp_path / "mood.csv")
    with pytest.raises(ValueError, match=r"no such file. Did you mean '.*mood.csv'\?"):
        open_table("mood", tmp_path / "mod.csv")
    with pytest.raises(ValueError, match=r"must hold train.csv or train.tsv. Received: \['mood"):
        open_table("mood", tmp_path)
    path.write_bytes(b"text,label\n\xff,a\n")
    with pytest.raises(ValueError, match=r"mood.csv must be a UTF-8 table"):
        open_table("mood", path)
    path.rename(tmp_path / "train.csv")
    write_csv(tmp_path / "train.csv")
    write_csv(tmp_path / "dev.csv", [("a", "c")])
    with pytest.raises(ValueError, match=r"a label must be one of 'a', 'b'. Received: 'c'"):
        open_table("mood", tmp_path)


def test_names_of_tables_and_folders(tmp_path, monkeypatch):
    folder, table = str(tmp_path), str(tmp_path / "a.b.tsv.gz")
    names, tables = named_tasks(["RTE", folder, table, f"x={table}"])
    assert names == ("RTE", tmp_path.name, "a.b", "x")
    assert tables == {tmp_path.name: folder, "a.b": table, "x": table}
    (tmp_path / "RTE").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named_tasks(["RTE", ""]) == (("RTE", ""), {})
