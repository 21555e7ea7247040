"""The table of what the benchmarks found can be made from what is there."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_taskrobust.evaluation import TaskScores

pytestmark = pytest.mark.backend_free

ROOT = Path(__file__).parents[1]


def test_the_summary_has_every_ratio(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import summary

    for path in (ROOT / "benchmarks" / "results").glob("*.csv"):
        shutil.copy(path, tmp_path)
    (tmp_path / "summary.csv").unlink(missing_ok=True)
    summary.summarise(tmp_path)
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["benchmark"] for row in rows} >= {"step-time", "finetuning", "tagging"}
    for row in rows:
        lower, middle, upper = (
            float(row[k]) for k in ("lower_quartile", "ratio", "upper_quartile")
        )
        assert 0 < lower <= middle <= upper
        assert float(row["noise"]) > 0
    brown = next(row for row in rows if row["case"] == "words of brown")
    with next(tmp_path.glob("tagging_*.csv")).open(newline="") as file:
        times_faster = float(next(csv.DictReader(file))["nltk_over_ours_50"])
    assert float(brown["ratio"]) == pytest.approx(1 / times_faster, abs=1e-3)
    assert (ROOT / "benchmarks" / "results" / "summary.csv").read_text() == (
        tmp_path / "summary.csv"
    ).read_text()


def test_a_whole_run_is_kept_with_its_cells_and_its_means(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import lift_keep

    counts = np.random.default_rng(0).integers(0, 3, (2_345, 2))
    scores = TaskScores(("noun", "verb"), counts * 1.5, counts)
    folder, kept = tmp_path / "lift_x", tmp_path / "kept" / "lift_x"
    for run, seed in (("raw-minimax-0-aa", 0), ("raw-minimax-1-bb", 1)):
        (folder / "runs" / run).mkdir(parents=True)
        for name in ("finished.json", "history.csv", "model.keras"):
            (folder / "runs" / run / name).write_text(name)
        (folder / "runs" / run / "recipe.json").write_text(json.dumps({"seed": seed}))
        scores.save(folder / "runs" / run / "scores.npz")
    (folder / "cells").mkdir()
    for row, seed in (("raw minimax", 0), ("scratch", 0), ("scratch", 1)):
        for task in ("SST-2", "QQP")[: 2 - seed]:
            cell = folder / "cells" / f"{row.replace(' ', '-')}-{seed}-{task}-cc.json"
            cell.write_text(json.dumps({"row": row, "seed": seed}))
    lift_keep.main(folder, 2, tmp_path / "kept")
    assert [path.name for path in (kept / "runs").iterdir()] == ["raw-minimax-0-aa"]
    assert not list(kept.glob("runs/*/model.keras"))
    assert sorted(path.name for path in (kept / "cells").iterdir()) == [
        "raw-minimax-0-QQP-cc.json",
        "raw-minimax-0-SST-2-cc.json",
        "scratch-0-QQP-cc.json",
        "scratch-0-SST-2-cc.json",
    ]
    found = TaskScores.load(kept / "runs" / "raw-minimax-0-aa" / "scores.npz")
    assert len(found.counts) == 24
    np.testing.assert_array_equal(found.counts.sum(0), counts.sum(0))
    np.testing.assert_allclose(found.losses, scores.losses)
