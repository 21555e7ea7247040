"""One table of what the benchmarks of speed found: our time over another's, with its quartiles."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

Row = dict[str, str]
#: What a row of the summary has. `ratio` is our time over that of `over`; `noise` is a time over
#: itself, in the same rounds.
COLUMNS = (
    "benchmark",
    "device",
    "backend",
    "case",
    "over",
    "ratio",
    "lower_quartile",
    "upper_quartile",
    "noise",
    "rounds",
)


def summarise(results: Path) -> None:
    """Reads all results, prints the table and writes `summary.csv` beside them."""
    rows = [
        {"benchmark": name, "device": device, **row}
        for path in sorted(results.glob("*_*.csv"))
        for name, _, device in (path.stem.partition("_"),)
        if name in _READERS
        for row in _READERS[name](_read(path))
    ]
    with (results / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    Console().print(table)


def _read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _over(ours: str, theirs: str, name: str) -> Callable[[list[Row]], Iterator[Row]]:
    """Reads what `step_time.summarise` wrote, or what renamed its columns."""

    def read(rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            lower, upper = row[f"{ours}_quartiles"].split("-")
            yield {
                "backend": row["backend"],
                "case": row["case"],
                "over": name,
                "ratio": row[f"{ours}_over_{theirs}"],
                "lower_quartile": lower,
                "upper_quartile": upper,
                "noise": row[f"{theirs}_over_{theirs}"],
                "rounds": row["rounds"],
            }

    return read


def _of_peers(rows: list[Row]) -> Iterator[Row]:
    ending = " over itself"
    noise = {
        (row["backend"], row["case"]): row["ratio_50"]
        for row in rows
        if row["peer"].endswith(ending)
    }
    for row in rows:
        if not row["peer"].endswith(ending):
            yield {
                "backend": row["backend"],
                "case": row["case"],
                "over": row["peer"].replace("_", " "),
                "ratio": row["ratio_50"],
                "lower_quartile": row["ratio_25"],
                "upper_quartile": row["ratio_75"],
                "noise": noise.get((row["backend"], row["case"]), ""),
                "rounds": row["rounds"],
            }


def _of_tagging(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        yield {
            "backend": "",
            "case": row["what"],
            "over": "NLTK",
            "ratio": _inverse(row["nltk_over_ours_50"]),
            "lower_quartile": _inverse(row["nltk_over_ours_75"]),
            "upper_quartile": _inverse(row["nltk_over_ours_25"]),
            "noise": row["nltk_over_nltk_50"],
            "rounds": row["rounds"],
        }


def _inverse(number: str) -> str:
    return f"{1 / float(number):.3f}"


def _of_replicas(rows: list[Row]) -> Iterator[Row]:
    for row in rows:
        lower, upper = row["together_quartiles"].split()
        yield {
            "backend": "torch",
            "case": f"{row['model']}, {row['weighting']}, 2 processes",
            "over": "one process, half the batch",
            "ratio": row["together"],
            "lower_quartile": lower,
            "upper_quartile": upper,
            "noise": row["alone_again"],
            "rounds": row.get("rounds", ""),
        }


_STOCK = _over("minimax", "stock", "Keras's own step")
_READERS = {
    "step-time": _STOCK,
    "growth": _STOCK,
    "mm-mae-step": _STOCK,
    "finetuning": _over("ours", "keras_hub", "KerasHub and fit"),
    "peers": _of_peers,
    "tagging": _of_tagging,
    "replica-time": _of_replicas,
}
