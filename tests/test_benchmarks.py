"""The table of what the benchmarks found can be made from what is there."""

import csv
import shutil
from pathlib import Path

import pytest

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
