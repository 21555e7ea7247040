"""The command line, `taskrobust`: a thin skin over the recipes."""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

COMMANDS = {
    "demo": "train a small PoS-BERT under three weightings and report the worst task",
    "prepare text": "tag and tokenize a corpus",
    "pretrain text": "pre-train a PoS-BERT: recipes pos-bert-base, pos-bert-tiny",
    "compare text": "pre-train under several weightings and seeds, and report",
}


@dataclasses.dataclass(frozen=True)
class Demo:
    """Trains a small PoS-BERT on the text shipped with Python, with pooled, uniform and minimax
    weighting from the same initial weights and batches, and reports the worst task."""

    output: Path = Path("runs/demo")
    """Folder of the report, plots and presets. Finished runs in it are kept."""
    steps: int = 400
    """Training steps under each weighting."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Which runs a comparison makes."""

    output: Path
    """Folder of the report and the runs. Finished runs in it are kept."""
    weightings: tuple[str, ...] = ("pooled", "uniform", "minimax")
    """Names out of keras_taskrobust.weighting.available()."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each gives a run of every weighting."""
    minimum_targets: int = 1000
    """Held-out targets that a task needs to count for worst and mean."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `taskrobust`; returns on success, else exits with a message on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if command is None:
        _print_commands(words)
        return
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    run: Callable = globals()[f"_{command.replace(' ', '_')}"]
    try:
        run(words[len(command.split()) :], f"taskrobust {command}")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on from the last checkpoint.")
    except (ValueError, LookupError, FloatingPointError, OSError) as error:
        sys.exit(f"taskrobust {command}: {error}")


def _print_commands(words):
    width = max(map(len, COMMANDS))
    lines = [f"  taskrobust {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    text = "\n".join(["Commands (each has --help):", *lines])
    if words and words[0] not in ("-h", "--help"):
        sys.exit(f"taskrobust: unknown command {' '.join(words[:2])!r}\n{text}")
    print(text)


def _demo(words, program):
    import tyro

    demo = tyro.cli(Demo, prog=program, args=words)
    from keras_taskrobust.evaluation import print_report
    from keras_taskrobust.recipes.text_comparison import DEMO, compare_text

    recipe = dataclasses.replace(DEMO, steps=demo.steps, warmup_steps=demo.steps // 10)
    runs = compare_text(recipe, demo.output, minimum_targets=100)
    print_report(runs, minimum_targets=100)
    print(f"Report, plots and presets: {demo.output.resolve()}")


def _prepare_text(words, program):
    from keras_taskrobust.recipes.text_pretraining import prepare_text

    output, recipe = _text_recipe(words, program)
    text = prepare_text(recipe, output)
    print(f"{len(text.train)} training and {len(text.held_out)} held-out sequences in {output}")


def _pretrain_text(words, program):
    from keras_taskrobust.evaluation import print_report, write_report
    from keras_taskrobust.recipes.text_pretraining import pretrain_text

    output, recipe = _text_recipe(words, program)
    run = pretrain_text(recipe, output)
    settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
    title = f"PoS-BERT, {recipe.weighting}"
    write_report([run], output, title, settings, baseline=recipe.weighting)
    print_report([run], baseline=recipe.weighting)
    print(f"Report and preset: {output.resolve()}")


def _compare_text(words, program):
    import tyro

    from keras_taskrobust.evaluation import print_report
    from keras_taskrobust.recipes.text_comparison import compare_text
    from keras_taskrobust.recipes.text_pretraining import RECIPES

    comparison, rest = tyro.cli(Comparison, prog=program, args=words, return_unknown_args=True)
    recipe = tyro.extras.overridable_config_cli(RECIPES, prog=program, args=rest)
    weightings = {name: {"weighting": name} for name in comparison.weightings}
    minimum = comparison.minimum_targets
    runs = compare_text(recipe, comparison.output, weightings, comparison.seeds, minimum)
    print_report(runs, minimum_targets=minimum)


def _text_recipe(words, program):
    import tyro

    from keras_taskrobust.recipes.text_pretraining import RECIPES

    @dataclasses.dataclass(frozen=True)
    class Output:
        output: Path = Path("runs") / program.split()[-2]
        """Folder of the run. A killed run in it goes on."""

    output, rest = tyro.cli(
        Output, prog=program, args=words, return_unknown_args=True, add_help=False
    )
    return output.output, tyro.extras.overridable_config_cli(RECIPES, prog=program, args=rest)


if __name__ == "__main__":
    main()
