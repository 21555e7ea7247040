"""The step of several replicas against that of one device: engines x models x weightings.

    python benchmarks/replicas.py [--engines torch jax tensorflow] [--models MLP PosBert MM-MAE]
        [--output FILE.csv]

Five steps of AdamW with weight decay and global clipping, a task that one replica alone has, uneven
sample weights, and auxiliary losses with weights of their own (but for MM-MAE). On
PyTorch the replicas' parts differ in size, too. The cases are those of `tests/training`. A row is
written as soon as it is known; the command fails if a difference is too large.
"""

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "training"))

from replica_cases import WEIGHTINGS
from replica_processes import difference, run

#: Of each engine: the kind of replicas, their number, and what that is called.
SETTINGS = {
    "torch": [("processes", 2, "2 processes"), ("processes", 3, "3 processes")],
    "jax": [
        ("devices", 2, "2 devices"),
        ("devices", 4, "4 devices"),
        ("processes", 2, "2 processes"),
    ],
    "tensorflow": [("devices", 2, "2 devices"), ("processes", 2, "2 workers")],
}
MODELS = {"MLP": "perceptron", "PosBert": "PosBert", "MM-MAE": "MM-MAE"}
LARGEST = 2e-5
COLUMNS = ("engine", "model", "weighting", "replicas", "difference", "are_equal", "sums_a_step")


def rows_of(engine, model):
    """A row for each weighting and setting.

    `difference` is that of the weights after the steps over the size of the update; `are_equal`
    says whether the weights of all replicas are, to the bit. `sums_a_step` are collectives, where
    they are counted.
    """
    os.environ["KERAS_BACKEND"] = engine
    cases = {weighting: f"{MODELS[model]} {weighting}" for weighting in WEIGHTINGS}

    def outcome(kind, number):
        with tempfile.TemporaryDirectory() as folder:
            return run([*cases.values()], Path(folder), kind, number)

    (one,) = outcome("one", 1)
    for kind, number, replicas in SETTINGS[engine]:
        processes = outcome(kind, number)
        for weighting, case in cases.items():
            first, *others = found = [process[case] for process in processes]
            yield {
                "engine": engine,
                "model": model,
                "weighting": weighting,
                "replicas": replicas,
                "difference": f"{max(difference(one[case], each) for each in found):.1e}",
                "are_equal": all(each["copies_are_equal"] for each in found)
                and all((other["after"] == first["after"]).all() for other in others),
                "sums_a_step": first["sums_of_last_step"] or "",
            }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", nargs="+", choices=SETTINGS, default=[*SETTINGS])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    with arguments.output.open("w", newline="") if arguments.output else sys.stdout as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for model in arguments.models:
            for engine in arguments.engines:
                for row in rows_of(engine, model):
                    rows.append(row)
                    writer.writerow(row)
                    file.flush()
    broken = [r for r in rows if not (float(r["difference"]) < LARGEST and r["are_equal"])]
    if broken:
        raise SystemExit(f"{len(broken)} of {len(rows)} rows are not equal: {broken}")


if __name__ == "__main__":
    main()
