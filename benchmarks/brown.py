"""A small PosBert on the Brown corpus: what the weighting does to the worst part of speech.

    NLTK_DATA=... KERAS_BACKEND=jax python benchmarks/brown.py --output runs/brown

Needs NLTK's Brown corpus and tagger. Finished runs are kept: several processes may share the
output folder with different seeds, and a last call with all seeds writes the report.
"""

import dataclasses
from pathlib import Path

import tyro

from keras_taskrobust.evaluation import print_report
from keras_taskrobust.recipes.text import compare_text
from keras_taskrobust.recipes.text_settings import TINY

RECIPE = dataclasses.replace(
    TINY,
    corpus="nltk:brown",
    tagger="nltk",
    held_out=0.2,
    hidden_dim=64,
    intermediate_dim=256,
    peak_learning_rate=2e-3,
    steps=400,
    warmup_steps=40,
    reports_per_checkpoint=40,
    dropout=0.0,
)
MOMENTUM = 0.9
WEIGHTINGS = {
    "pooled": {"weighting": "pooled"},
    "uniform": {"weighting": "uniform"},
    **{
        f"minimax {alpha:g}{', momentum' if momentum else ''}": {
            "weighting": "minimax",
            "alpha": alpha,
            "loss_momentum": momentum,
        }
        for momentum in (0.0, MOMENTUM)
        for alpha in (0.3, 1.0, 3.0)
    },
}


def main(output: Path = Path("runs/brown"), seeds: tuple[int, ...] = (0, 1, 2)):
    """Trains every weighting with every seed and writes the report.

    Args:
        output: folder of the report and the runs.
        seeds: the seeds.
    """
    drawn = compare_text(RECIPE, output, WEIGHTINGS, seeds, title="PosBert on Brown")
    print_report(drawn.runs)


if __name__ == "__main__":
    tyro.cli(main)
