"""All benchmarks of speed, one after the other, and one table of what they found.

    python -m benchmarks [NAMES ...] [--backends jax torch tensorflow] [--device NAME]
    python -m benchmarks summary

Each writes `benchmarks/results/<name>_<device>.csv` in the place of the one before, once it is
whole. `summary` reads what is there, prints a table, and writes `benchmarks/results/summary.csv`.
Peers come with the extra `bench`; texts and taggers lie where `NLTK_DATA` says. Give the benchmarks
of a processor one core (`taskset -c 0`), and nothing beside them.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.summary import summarise

HERE = Path(__file__).parent
BACKENDS = ("jax", "torch", "tensorflow")
#: Names to the backends that a benchmark runs on: those asked for, or these.
BENCHMARKS: dict[str, tuple[str, ...] | None] = {
    "accelerator": None,
    "balancing": None,
    "finetuning": None,
    "growth": None,
    "mm_mae_step": None,
    "peers": None,
    "preparation": ("jax",),
    "replica_time": ("torch",),
    "replicas": ("torch",),
    "step_time": None,
    "tagging": ("jax",),
    "tensorflow_time": ("tensorflow",),
}


def main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(BENCHMARKS),
    backends: tuple[str, ...] = BACKENDS,
    device: str = f"{os.cpu_count()}-cores-{platform.machine()}",
):
    """Runs benchmarks, and writes their results and a summary.

    Args:
        names: of the benchmarks, or `summary` alone.
        backends: those to run on.
        device: what the files of results are named after.
    """
    unknown = set(names) - {*BENCHMARKS, "summary"}
    if unknown:
        raise SystemExit(f"There is no benchmark {sorted(unknown)}: {sorted(BENCHMARKS)}, summary")
    failed = [name for name in names if name != "summary" and not _run(name, backends, device)]
    summarise(HERE / "results")
    if failed:
        raise SystemExit(f"Failed, and what was there before is kept: {', '.join(failed)}")


def _run(name: str, backends: tuple[str, ...], device: str) -> bool:
    result = HERE / "results" / f"{name.replace('_', '-')}_{device}.csv"
    partial = result.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    for backend in BENCHMARKS[name] or backends:
        command = [sys.executable, str(HERE / f"{name}.py"), "--output", str(partial)]
        print(f"{backend}: {' '.join(command)}", flush=True)
        if subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}).returncode:
            partial.unlink(missing_ok=True)
            return False
    partial.replace(result)
    return True


if __name__ == "__main__":
    tyro.cli(main)
