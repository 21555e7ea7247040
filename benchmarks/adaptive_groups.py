"""A small PosBert on Brown with Penn Treebank tags as tasks: who should group them, and when?

    NLTK_DATA=... KERAS_BACKEND=jax python benchmarks/adaptive_groups.py --output runs/groups

Every row trains on the same 31 tags and is scored on each of them; only the grouping that minimax
sees differs. Needs NLTK's Brown corpus and tagger. Finished runs are kept: several processes may
share the output folder with different seeds, and a last call with all seeds writes the report.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from keras_taskrobust.evaluation import print_report
from keras_taskrobust.recipes.text import compare_text
from keras_taskrobust.recipes.text_settings import TINY, TextPretraining
from keras_taskrobust.text import PENN_TASKS, POS_TASKS, penn_tag_to_task
from keras_taskrobust.weighting import AdaptiveGroups, SoftmaxWeightedLoss, TaskWeighting

NINE = [penn_tag_to_task(tag) for tag in PENN_TASKS]
WINDOWS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedPretraining(TextPretraining):
    grouping: Literal["adaptive", "nine"] = "adaptive"
    """The groups of `adaptive_groups`: re-made by their losses, or the nine tasks to the end."""

    def make_weighting(self) -> TaskWeighting:
        if self.weighting != "adaptive_groups":
            return super().make_weighting()
        minimax = SoftmaxWeightedLoss(1.0 if self.alpha is None else self.alpha)
        window = None if self.grouping == "nine" else max(1, self.steps // WINDOWS)
        return AdaptiveGroups(len(POS_TASKS), window, NINE, minimax)


RECIPE = GroupedPretraining(
    **{
        **dataclasses.asdict(TINY),
        "corpus": "nltk:brown",
        "tagger": "nltk",
        "tag_set": "penn",
        "held_out": 0.2,
        "hidden_dim": 64,
        "intermediate_dim": 256,
        "peak_learning_rate": 2e-3,
        "reports_per_checkpoint": 40,
        "dropout": 0.0,
    }
)
ROWS = {
    "uniform": {"weighting": "uniform"},
    "minimax over nine groups": {"weighting": "adaptive_groups", "grouping": "nine"},
    "minimax over tags": {"weighting": "minimax"},
    "minimax over adaptive groups": {"weighting": "adaptive_groups"},
}


def main(
    output: Path = Path("runs/groups"),
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int = 400,
    alpha: float = 1.0,
):
    """Trains every row with every seed and writes the report.

    Args:
        output: folder of the report and the runs.
        seeds: the seeds.
        steps: the steps of a run, a multiple of 10; a tenth of them is the warm-up.
        alpha: sharpness of the softmax, over tags or groups.
    """
    recipe = dataclasses.replace(RECIPE, steps=steps, warmup_steps=steps // 10)
    sharpness = {"alpha": alpha}
    rows = {k: v if k == "uniform" else {**v, **sharpness} for k, v in ROWS.items()}
    title = "PosBert on Brown, by Penn Treebank tags"
    drawn = compare_text(recipe, output, rows, seeds, title=title)
    print_report(drawn.runs)


if __name__ == "__main__":
    tyro.cli(main)
