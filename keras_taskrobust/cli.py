"""The command line, `taskrobust`: a thin skin over the recipes."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

COMMANDS = {
    "demo": "train a small PoS-BERT under three weightings and report the worst task",
    "prepare text": "tag and tokenize a corpus",
    "pretrain text": "pre-train a PoS-BERT: recipes pos-bert-base, pos-bert-tiny",
    "finetune text": "fine-tune BERT presets on downstream tasks: recipes glue, small",
    "compare text": "pre-train under several weightings and seeds, fine-tune, and report",
    "report": "draw the report of a comparison or fine-tuning again",
}


@dataclasses.dataclass(frozen=True)
class Demo:
    """Trains a small PoS-BERT on the text shipped with Python, with pooled, uniform and minimax
    weighting from the same initial weights and batches, and reports the worst task."""

    output: Path = Path("runs/demo")
    """Folder of the report, plots and presets. Finished runs in it are kept."""
    steps: int = 400
    """Training steps under each weighting."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `taskrobust`; returns on success, else exits with a message on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if command is None:
        _print_commands(words)
        return
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
    with _without_banners():
        from keras_taskrobust.evaluation import print_report
        from keras_taskrobust.recipes.text_comparison import DEMO, compare_text
    recipe = dataclasses.replace(DEMO, steps=demo.steps, warmup_steps=demo.steps // 10)
    runs = compare_text(recipe, demo.output, minimum_targets=100)
    print_report(runs, minimum_targets=100)
    print(f"Report, plots and presets: {demo.output.resolve()}")


def _prepare_text(words, program):
    arguments = _arguments(words, program, Run)
    with _without_banners():
        from keras_taskrobust.recipes.text_pretraining import prepare_text
    text = prepare_text(arguments.recipe, arguments.output)
    print(f"{len(text.train)} training and {len(text.held_out)} held-out sequences")
    print(f"Annotated text: {arguments.output.resolve()}")


def _pretrain_text(words, program):
    arguments = _arguments(words, program, Run)
    with _without_banners():
        from keras_taskrobust.evaluation import print_report, write_report
        from keras_taskrobust.recipes.text_pretraining import pretrain_text
    recipe = arguments.recipe
    run = pretrain_text(recipe, arguments.output)
    settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
    title = f"PoS-BERT, {recipe.weighting}"
    write_report([run], arguments.output, title, settings, baseline=recipe.weighting)
    print_report([run], baseline=recipe.weighting)
    print(f"Report and preset: {arguments.output.resolve()}")


def _compare_text(words, program):
    arguments = _arguments(words, program, Comparison)
    with _without_banners():
        from keras_taskrobust.recipes.reporting import read
        from keras_taskrobust.recipes.text_comparison import compare_text
    weightings = {name: {"weighting": name} for name in arguments.weightings}
    minimum = arguments.minimum_targets
    downstream = _downstream(arguments) if arguments.tasks else None
    compare_text(
        arguments.recipe,
        arguments.output,
        weightings,
        arguments.seeds,
        minimum,
        downstream=downstream,
    )
    _print_drawn(read(arguments.output))
    print(f"Report and runs: {arguments.output.resolve()}")


def _downstream(arguments):
    from keras_taskrobust.recipes.text_comparison import Downstream
    from keras_taskrobust.recipes.text_finetuning import FINETUNING_RECIPES

    _, settings = FINETUNING_RECIPES[arguments.finetuning]
    data_dir = None if arguments.data_dir is None else str(arguments.data_dir)
    return Downstream(arguments.tasks, settings, data_dir, select=arguments.select)


def _finetune_text(words, program):
    with _without_banners():
        from keras_taskrobust.recipes.text_comparison import Downstream, finetune_presets
        from keras_taskrobust.recipes.text_finetuning import FINETUNING_RECIPES
    arguments = _arguments(words, program, FineTune, FINETUNING_RECIPES)
    presets = dict(
        entry.split("=", 1) if "=" in entry else (Path(entry).name, entry)
        for entry in arguments.preset
    )
    data_dir = None if arguments.data_dir is None else str(arguments.data_dir)
    downstream = Downstream(
        arguments.tasks, arguments.recipe, data_dir, arguments.from_scratch, arguments.select
    )
    drawn = finetune_presets(presets, arguments.seeds, downstream, arguments.output)
    _print_drawn(drawn)
    print(f"Report and predictions: {arguments.output.resolve()}")


def _report(words, program):
    import tyro

    parsed = tyro.cli(Redraw, prog=program, args=words, config=(tyro.conf.PositionalRequiredArgs,))
    directory = parsed.directory
    with _without_banners():
        from keras_taskrobust.recipes.reporting import draw
    _print_drawn(draw(directory))
    print(f"Report: {directory.resolve()}")


def _print_drawn(drawn):
    from keras_taskrobust.evaluation import print_downstream, print_report

    if drawn.runs:
        print_report(drawn.runs, minimum_targets=drawn.manifest.minimum_targets)
    if drawn.results:
        print_downstream(drawn.results)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run."""

    recipe: Any
    output: Path = Path("runs/text")
    """Folder of the run. A killed run in it goes on."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs that differ in weighting and seed."""

    recipe: Any
    output: Path = Path("runs/comparison")
    """Folder of the report and the runs. Finished runs in it are kept."""
    weightings: tuple[str, ...] = ("pooled", "uniform", "minimax")
    """Names out of keras_taskrobust.weighting.available()."""
    seeds: tuple[int, ...] = (0,)
    """Each seed gives a run of every weighting."""
    minimum_targets: int = 1000
    """Held-out targets that a task needs to count for worst and mean."""
    tasks: tuple[str, ...] = ()
    """Downstream tasks to fine-tune on, such as SST-2 STS-B ppattach; by default none."""
    finetuning: Literal["glue", "small"] = "small"
    """The recipe of fine-tuning."""
    data_dir: Path | None = None
    """Folder of GLUE's tables; by default GLUE comes from TensorFlow Datasets."""
    select: Literal["last", "best"] = "last"
    """The epoch of fine-tuning whose scores are reported."""


@dataclasses.dataclass(frozen=True)
class FineTune:
    """Fine-tuning of finished presets."""

    recipe: Any
    preset: tuple[str, ...]
    """KerasHub BERT presets: folders, names or URIs (hf://...), each PRESET or NAME=PRESET."""
    tasks: tuple[str, ...] = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
    """Downstream tasks; besides GLUE's sentence_polarity, movie_reviews and ppattach."""
    data_dir: Path | None = None
    """Folder of GLUE's tables; by default GLUE comes from TensorFlow Datasets."""
    output: Path = Path("runs/finetune")
    """Folder of the report and the predictions. Finished cells in it are kept."""
    seeds: tuple[int, ...] = (0,)
    """Each fixes the head's initial weights, the order and dropout."""
    from_scratch: bool = False
    """Add a row of the same network without pre-training."""
    select: Literal["last", "best"] = "last"
    """The epoch whose scores are reported; both are recorded."""


@dataclasses.dataclass(frozen=True)
class Redraw:
    """Draws a report again from what is finished."""

    directory: Path
    """Folder that `compare` or `finetune` wrote."""


def _arguments(words, program, kind, recipes_of_kind=None):
    """Parses a recipe's name, its fields and those of `kind`, in any order after the name."""
    import tyro

    from keras_taskrobust.recipes.text_recipe import RECIPES

    named = recipes_of_kind or RECIPES
    recipes = tyro.extras.subcommand_type_from_defaults(
        {name: recipe for name, (_, recipe) in named.items()},
        descriptions={name: description for name, (description, _) in named.items()},
    )
    fields = [
        (field.name, recipes if field.name == "recipe" else field.type, field)
        for field in dataclasses.fields(kind)
    ]
    parsed = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    parsed.__doc__ = kind.__doc__
    return tyro.cli(
        parsed,
        prog=program,
        args=words,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.CascadeSubcommandArgs,
        ),
    )


@contextlib.contextmanager
def _without_banners() -> Iterator[None]:
    """TensorFlow, which KerasHub imports, prints banners from C++ that no setting silences."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main()
