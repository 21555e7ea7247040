"""A folder from somebody else: whatever it holds, a report changes nothing outside it."""

import contextlib
import copy
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_taskrobust import cli, files
from keras_taskrobust.evaluation import TaskScores, drawing
from keras_taskrobust.evaluation.reconstructions import Reconstructions
from keras_taskrobust.recipes.reporting import draw
from keras_taskrobust.recipes.text import prepare_text
from keras_taskrobust.recipes.text_settings import TINY
from keras_taskrobust.text.annotated_text import array_path, is_whole

pytestmark = pytest.mark.backend_free

RUN = "runs/uniform-0-abc"
PREDICTIONS = "cells/uniform-0-RTE-abc/last/RTE.tsv"
CELL = {
    "row": "uniform",
    "seed": 0,
    "task": "RTE",
    "scores": {"last": {"accuracy": 0.75}, "best": {"accuracy": 0.75}},
    "trivial": {"accuracy": 0.5},
    "seconds": 1.5,
    "pretraining_seconds": 2.5,
}
CONTENTS = {
    "comparison.json": {
        "title": "Received",
        "settings": {"backend": "torch"},
        "introduction": "A folder.",
        "runs": {RUN: "uniform"},
        "cells": ["uniform-0-RTE-abc", "uniform-1-RTE-abc"],
        "failures": {"minimax, seed 0": "The loss must be finite."},
        "minimum_targets": 1,
        "select": "last",
    },
    "cells/uniform-0-RTE-abc.json": CELL,
    "cells/uniform-1-RTE-abc.json": {**CELL, "seed": 1, "scores": {}, "failure": "It failed."},
    f"{RUN}/recipe.json": {"seed": 0, "steps": 2, "steps_per_report": 1},
    f"{RUN}/finished.json": {"seconds": 1.5},
}
MARK = "outside"


class NoCanvas:
    """Draws nothing: what the pictures show is tested elsewhere, and takes most of the time."""

    def __init__(self, figure):
        pass

    def print_figure(self, file, **arguments):
        file.write(b"a picture")


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "FigureCanvasAgg", NoCanvas)
        patch.setattr(files.os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def received(tmp_path_factory):
    """A whole folder of a comparison."""
    folder = tmp_path_factory.mktemp("whole") / "received"
    run = folder / RUN
    TaskScores(("noun", "verb"), np.ones((4, 2)), np.ones((4, 2))).save(run / "scores.npz")
    (run / "history.csv").write_text("epoch,noun_loss,verb_loss\n0,2.0,3.0\n1,1.0,2.0\n")
    images = np.zeros((3, 1, 2, 2, 3), "uint8")
    painted = Reconstructions({"rgb": images}, {"wall": np.zeros(3, "uint8")})
    painted.save(run / "reconstructions.npz")
    (folder / PREDICTIONS).parent.mkdir(parents=True)
    (folder / PREDICTIONS).write_text("index\tprediction\n0\tentailment\n")
    store(folder, CONTENTS)
    return folder


@pytest.fixture
def folder(received, tmp_path):
    return shutil.copytree(received, tmp_path / "received")


def store(folder, contents):
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))


def places(content, path=()):
    """The keys and values of JSON, as paths: (..., key) of a value, (..., key, None) of a key."""
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        yield (*path, key)
        if isinstance(content, dict):
            yield (*path, key, None)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(content, path, value):
    *way, last = path[:-1] if path[-1] is None else path
    for key in way:
        content = content[key]
    if path[-1] is None:
        if isinstance(value, str):
            content[value] = content.pop(last)
    else:
        content[last] = value


def snapshot(parent):
    """Everything outside of the received folder, with its content."""
    return {
        path.relative_to(parent): path.read_bytes() if path.is_file() else None
        for path in sorted(parent.rglob("*"))
        if parent / "received" not in (path, *path.parents)
    }


ALL_PLACES = [(name, path) for name, content in CONTENTS.items() for path in places(content)]
HOSTILE = st.sampled_from(
    [
        f"../{MARK}/x",
        f"0/../../../{MARK}/x",
        f"../../../{MARK}",
        f"..\\..\\{MARK}",
        f"/PARENT/{MARK}/x",
        f"cells/../../{MARK}/victim",
        "..",
        ".",
        "",
        "x" * 300,
        "<script>alert(1)</script>",
        "[click](javascript:x) ![x](http://y)",
        "$\\frac$ _x_ $",
        "_x",
        "[red] [/x] \x1b[2J\x07",
        "\ud800\u202e",
        "a\0b",
        "a\nb\r\n# c",
        "1e999",
    ]
) | st.text(max_size=20)
VALUES = HOSTILE | st.sampled_from(
    [None, True, [], {}, [[]], {"": {}}, -1, 10**30, 1.5, 1e308, float("nan"), float("inf")]
)


def refusal(folder):
    """What an error says that the command line says in a sentence; nothing if it drew."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fonts without a character, and of infinities
            draw(folder)
    except ValueError as error:
        return str(error)
    return "Received"


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_hostile_fields_change_nothing_outside(received, data):
    chosen = data.draw(st.lists(st.sampled_from(ALL_PLACES), min_size=1, max_size=2))
    with tempfile.TemporaryDirectory() as parent:
        parent = Path(parent)
        folder = shutil.copytree(received, parent / "received")
        (parent / MARK / "seed-0").mkdir(parents=True)
        (parent / MARK / "seed-0" / "victim.tsv").write_text("mine")
        contents = copy.deepcopy(CONTENTS)
        for name, path in chosen:
            value = data.draw(VALUES)
            if isinstance(value, str):
                value = value.replace("/PARENT", str(parent))
            with contextlib.suppress(LookupError, TypeError, AttributeError):  # it went before
                put(contents[name], path, value)
        store(folder, contents)
        before = snapshot(parent)
        assert "Received" in refusal(folder)
        assert snapshot(parent) == before


@pytest.mark.parametrize("seed", ["0/../../../../outside", "..", [], 1.5, True, -1, 2**32, None])
def test_a_seed_is_an_integer(folder, seed):
    store(folder, {"cells/uniform-0-RTE-abc.json": {**CELL, "seed": seed}})
    message = r"uniform-0-RTE-abc\.json must hold `seed`, an integer .* Received: .* run it again"
    with pytest.raises(ValueError, match=message):
        draw(folder)


def test_the_folder_of_these_tests_is_drawn(folder, capsys):
    cli.main(["report", str(folder)])
    assert (folder / "predictions/uniform/seed-0/RTE.tsv").exists()
    assert (folder / "reconstructions.png").exists()
    captured = capsys.readouterr()
    assert "RTE" in captured.out
    assert "Failed: minimax, seed 0" in captured.err


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_in_a_sentence(received, data):
    with tempfile.TemporaryDirectory() as parent:
        folder = shutil.copytree(received, Path(parent) / "received")
        others = [f"{RUN}/{name}" for name in ("scores.npz", "reconstructions.npz", "history.csv")]
        path = folder / data.draw(st.sampled_from([*CONTENTS, *others]))
        content = path.read_bytes()
        place = data.draw(st.integers(0, len(content) - 1))
        damaged = data.draw(st.sampled_from([content[:place], b"[]", b"[" * 10**5, b"\xff" * 9]))
        path.write_bytes(damaged)
        assert "Received" in refusal(folder)


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("predictions", "outside"),
        ("predictions/other/seed-0", "outside/seed-0"),
        ("cells/uniform-0-RTE-abc/last", "outside/seed-0"),
        ("cells/uniform-0-RTE-abc/last/RTE.tsv", "outside/seed-0/victim.tsv"),
        ("cells", "outside/cells"),
    ],
)
def test_links_are_not_followed_for_writing(folder, link, leads_to, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(folder / "cells", outside / "cells")
    (outside / "seed-0").mkdir()
    (outside / "seed-0" / "victim.tsv").write_text("mine")
    if (folder / link).is_dir():
        shutil.rmtree(folder / link)
    (folder / link).unlink(missing_ok=True)
    (folder / link).parent.mkdir(parents=True, exist_ok=True)
    (folder / link).symlink_to(tmp_path / leads_to)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="symbolic link"):
        draw(folder)
    assert snapshot(tmp_path) == before


def test_reports_replace_links_in_their_place(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for name in ("report.md", "report.html", "metrics.csv", "downstream.png"):
        (folder / name).symlink_to(outside)
    draw(folder)
    assert outside.read_text() == "mine"
    assert (folder / "report.md").read_text().startswith("# Received")


@pytest.mark.parametrize("link", ["text", "text/annotated", ".lock"])
def test_a_run_writes_through_no_link(link, tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(outside / "lock" if link == ".lock" else outside)
    with pytest.raises((ValueError, OSError), match="symbolic link"):
        prepare_text(TINY, folder)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("layout", [{"dtype": "|O", "shape": [4]}, {"dtype": "i4,O", "shape": [1]}])
def test_an_array_of_addresses_is_refused(layout, tmp_path):
    path = array_path(tmp_path, "token_ids")
    path.write_bytes(bytes(32))
    with pytest.raises(ValueError, match="must be of numbers. Received: dtype "):
        is_whole(path, layout)
    with pytest.raises(ValueError, match="must stay in its folder"):
        array_path(tmp_path, "../token_ids")
