"""What `test_processes` runs: pre-training by one of several processes, or on several devices.

A process of this file, `python process_cases.py SETTINGS`, writes what each case found to a file.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from keras_taskrobust import distribution
from keras_taskrobust.downstream.settings import FineTuning

SETTINGS = FineTuning(learning_rate=1e-2, batch_size=4, epochs=2, dropout=0.0)


def cut(folder, target):
    """A copy of a finished run as it was when it was killed after five of ten steps."""
    shutil.copytree(folder, target)
    for name in ("checkpoint-step-00000010.*", "finished.json", "scores.npz", "model.keras"):
        for path in target.glob(name):
            path.unlink()


def message_of(call):
    try:
        call()
    except (ValueError, RuntimeError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def finetuned(folder, name):
    """How far fine-tuning of the preset in `folder` moved the encoder, and its scores."""
    from keras_taskrobust.downstream.text import TextTasks
    from keras_taskrobust.recipes.finetuning import finetune

    moves = []

    class Noted(TextTasks):
        def finetune(self, opened, *arguments):
            before = opened[0].get_weights()
            found = super().finetune(opened, *arguments)
            after = opened[0].get_weights()
            moves.extend((b - a).ravel() for a, b in zip(before, after, strict=True))
            return found

    family = Noted(("RTE",), SETTINGS, str(folder / "glue"))
    drawn = finetune(
        {"mine": str(folder / "tiny")}, (0,), family, folder / name, from_scratch=False
    )
    return {
        "scores": scores_of(drawn),
        "moves": np.concatenate(moves).tolist(),
        "history": json.loads(
            (folder / name / f"cells/{drawn.manifest.cells[0]}.json").read_text()
        )["history"],
    }


def compared(recipe, folder, name):
    """The held-out losses and downstream scores of two weightings."""
    from keras_taskrobust.downstream.text import TextTasks
    from keras_taskrobust.recipes.text import compare_text

    recipe = dataclasses.replace(recipe, steps=4, warmup_steps=1, steps_per_report=2)
    weightings = {one: {"weighting": one} for one in ("uniform", "upgrad")}
    family = TextTasks(("RTE",), SETTINGS, str(folder / "glue"))
    drawn = compare_text(recipe, folder / name, weightings, (0,), 1, downstream=family)
    losses = {run.row: run.history["loss"] for run in drawn.runs}
    return {"scores": scores_of(drawn), "losses": losses, "failures": drawn.manifest.failures}


def scores_of(drawn):
    return {one.row: one.scores or one.failure for one in drawn.results}


class Cases:
    """Each case by its name."""

    def __init__(self, recipe, folder):
        from keras_taskrobust.recipes.text import pretrain_text

        self.recipe, self.folder = recipe, folder
        self.pretrain = pretrain_text

    def whole(self):
        """The first batches of each process are noted by the records that it reads."""
        from keras_taskrobust.text import AnnotatedText

        read = []
        batch = AnnotatedText.batch

        def noted(text, indices):
            read.append(indices.tolist())
            return batch(text, indices)

        AnnotatedText.batch = noted
        try:
            run = self.pretrain(self.recipe, self.folder / "whole")
        finally:
            AnnotatedText.batch = batch
        return {"steps": run.history["step"], "read": [one for one in read if len(one) < 4][:10]}

    def again(self):
        with distribution.main_first():
            if distribution.is_main():
                cut(self.folder / "whole", self.folder / "again")
        self.pretrain(self.recipe, self.folder / "again")

    def after_one(self):
        self.pretrain(self.recipe, self.folder / "after_one")

    def cut_models(self):
        self.pretrain(self.recipe, self.folder / "cut_models")

    def cut_over_processes(self):
        """A model on two devices of each process, or on one of each."""
        name = f"cut in {distribution.replicas()}"
        self.pretrain(self.recipe, self.folder / name)
        with distribution.main_first():
            if distribution.is_main():
                cut(self.folder / name, self.folder / f"{name}, again")
        self.pretrain(self.recipe, self.folder / f"{name}, again")

    def finetuned(self):
        return finetuned(self.folder, "finetuned")

    def compared(self):
        return compared(self.recipe, self.folder, "compared")

    def refused_method(self):
        """Not in all cells, but before the first one."""
        from keras_taskrobust.downstream.text import TextTasks
        from keras_taskrobust.recipes.finetuning import finetune

        settings = FineTuning(batch_size=4, method="lwf")
        family = TextTasks(("RTE",), settings, str(self.folder / "glue"))
        presets, output = {"mine": str(self.folder / "tiny")}, self.folder / "lwf"
        return message_of(lambda: finetune(presets, (0,), family, output))

    def odd_heads(self):
        recipe = dataclasses.replace(self.recipe, num_heads=1)
        return message_of(lambda: self.pretrain(recipe, self.folder / "odd heads"))

    def other_settings(self):
        recipe = dataclasses.replace(self.recipe, seed=distribution.process_id())
        return message_of(lambda: self.pretrain(recipe, self.folder / "refused"))

    def other_data(self):
        from keras_taskrobust.recipes.text import PreparedText

        fingerprints = PreparedText.fingerprints
        PreparedText.fingerprints = lambda data: (
            fingerprints(data) | {"corpus": f"that of {distribution.process_id()}"}
        )
        try:
            return message_of(lambda: self.pretrain(self.recipe, self.folder / "refused"))
        finally:
            PreparedText.fingerprints = fingerprints

    def odd_batch(self):
        recipe = dataclasses.replace(self.recipe, batch_size=3)
        return message_of(lambda: self.pretrain(recipe, self.folder / "odd"))

    def no_corpus(self):
        recipe = dataclasses.replace(self.recipe, corpus=str(self.folder / "nowhere"))
        return message_of(lambda: self.pretrain(recipe, self.folder / "nothing"))


def main(settings):
    distribution.start(**settings["start"])
    from keras_taskrobust.recipes.text_settings import TINY

    cases = Cases(dataclasses.replace(TINY, **settings["recipe"]), Path(settings["folder"]))
    found = {name: getattr(cases, name)() for name in settings["cases"]}
    distribution.barrier()
    path = Path(settings["folder"]) / f"found-{distribution.process_id()}.json"
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
