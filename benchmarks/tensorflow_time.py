"""What a step of PosBert takes on TensorFlow, by the clock and in CPU time.

    KERAS_BACKEND=tensorflow taskset -c 0 python benchmarks/tensorflow_time.py

The PosBert of `step_time.py`, by `fit`, in an order that rotates:

- `arrays`: as they are.
- `jit_compile`: the same, compiled by XLA.
- `not_tuned`: a `tf.data.Dataset` of them whose options switch autotuning off.

`fit` may return late: where it drops a data set, it waits for the thread that tunes it, which
sleeps 10 ms, then 20 ms, and so on, up to a minute. So a `fit` that ends at 3 seconds may return
at 5.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tyro
from step_time import pos_bert_case
from timing import append_row, time_in_turn

BATCH_SIZE = 8


def fits(steps: int) -> dict[str, Callable[[], None]]:
    """A `fit` of so many steps in each of the three ways."""
    case = pos_bert_case(steps, BATCH_SIZE)
    options = tf.data.Options()
    options.autotune.enabled = False
    data = tf.data.Dataset.from_tensor_slices((case.x, case.y)).batch(BATCH_SIZE).prefetch(2)
    data = data.with_options(options)
    compiled = case.minimax()
    compiled.compile(keras.optimizers.AdamW(1e-4), weighting="minimax", jit_compile=True)

    def of_arrays(model):
        return lambda: model.fit(case.x, case.y, batch_size=BATCH_SIZE, shuffle=False, verbose=0)

    plain = case.minimax()
    return {
        "arrays": of_arrays(plain),
        "jit_compile": of_arrays(compiled),
        "not_tuned": lambda: plain.fit(data, verbose=0),
    }


def main(rounds: int = 7, steps: int = 6, output: Path | None = None):
    """Prints a line a case, and appends it to a csv file.

    Args:
        rounds: rounds of a `fit` of each.
        steps: of a `fit`.
        output: csv file; by default none.
    """
    runs = fits(steps)
    for clock in (time.process_time, time.perf_counter):

        def timed(run, clock=clock):
            start = clock()
            run()
            return (clock() - start) / steps

        seconds = time_in_turn([lambda run=run: timed(run) for run in runs.values()], rounds)
        for name, column in zip(runs, seconds.T, strict=True):
            low, middle, high = np.percentile(column, [25, 50, 75])
            row = {
                "backend": "tensorflow",
                "cores": len(os.sched_getaffinity(0)),
                "case": name,
                "clock": clock.__name__,
                "rounds": rounds,
                "seconds_25": f"{low:.4f}",
                "seconds_50": f"{middle:.4f}",
                "seconds_75": f"{high:.4f}",
            }
            print(", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            if output is not None:
                append_row(output, row)


if __name__ == "__main__":
    tyro.cli(main)
