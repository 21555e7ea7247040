"""How the cost of a minimax step grows with the number of tasks, 2 to 1,000.

    KERAS_BACKEND=jax python benchmarks/growth.py

A small perceptron whose samples fall into so many groups, over Keras's own step of the same network
(see `step_time.py`), in CPU time: the network does not grow, so what grows is ours. Each block is
an epoch, and its end, where every task is logged, is part of it.
"""

import functools
import time
from pathlib import Path

import tyro
from step_time import mlp_case, run_cases


def main(
    tasks: tuple[int, ...] = (2, 10, 100, 1000),
    rounds: int = 9,
    output: Path | None = None,
):
    """Prints a line a number of tasks, and appends it to a csv file.

    Args:
        tasks: numbers of tasks.
        rounds: rounds of three blocks.
        output: csv file; by default none.
    """
    cases = {f"mlp, {number} tasks": functools.partial(mlp_case, groups=number) for number in tasks}
    run_cases(cases, rounds, output, time.process_time)


if __name__ == "__main__":
    tyro.cli(main)
