"""The command line, `taskrobust`: a thin skin over the recipes.

It exits with the status 0 when all is done, 1 on an error, 2 on wrong usage, 3 if some runs or
cells failed and the rest is done, and 75 if it was interrupted and goes on by the same command.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_taskrobust import __version__, cli_completion, distribution
from keras_taskrobust.cli_errors import HELP, exit_if_failed, said_in_a_sentence
from keras_taskrobust.cli_modalities import IMAGES, TEXT
from keras_taskrobust.cli_options import OF_A_ROW, Demo, Export, PrepareText, Redraw, TrainedRun
from keras_taskrobust.cli_output import HELP as OUTPUT
from keras_taskrobust.cli_output import ending_with_reader, saying
from keras_taskrobust.cli_parsing import (
    flag,
    flags_of,
    parse,
    parse_with_recipe,
    refuse_unused,
    with_flags,
)
from keras_taskrobust.cli_processes import (
    quiet_beside_main,
    refuse_devices,
    run_by_processes,
    start_devices,
)
from keras_taskrobust.interruption import stopping_at_signals
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.plain_text import one_line

#: The flags of all commands.
_OF_ALL = ("--debug", "--quiet", "--verbose")
#: Held-out targets that a task of the demo needs to count for worst and mean.
_DEMO_MINIMUM = 100


class Command(NamedTuple):
    """A command.

    Attributes:
        summary: string. What it does, in a line.
        run: runs it, given its words and how errors call it; returns how many processes are to run
            it in place of this one, if any are.
        options: a dataclass of its options, and the recipes that it takes or `None`; what a shell
            completes.
    """

    summary: str
    run: Callable[[list[str], str], int | None]
    options: tuple[Any, Any]


@ending_with_reader()
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `taskrobust`; returns on success, else exits with a message on standard error."""
    words = given = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet, verbose = (name in words for name in _OF_ALL)
    words = [word for word in words if word not in _OF_ALL]
    if words[:1] and words[0] in cli_completion.FLAGS:
        options = {name: one.options for name, one in COMMANDS.items()}
        cli_completion.complete(options, words)
    command = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if words == ["--version"]:
        print(f"taskrobust {__version__}")
        return
    if command is None:
        _print_commands(words)
        return
    program = f"taskrobust {command}"
    in_flags = functools.partial(_in_flags, command)
    with (
        said_in_a_sentence(program, debug, in_flags),
        saying(quiet, verbose, in_flags),
        stopping_at_signals(),
    ):
        number = COMMANDS[command].run(words[len(command.split()) :], program)
    if number:
        sys.exit(run_by_processes(main, number, given))


def _in_flags(command, text):
    """A text with the flags of a command in place of fields and arguments of Python."""
    modality = {"text": TEXT, "images": IMAGES}.get(command.split()[-1])
    if modality is None:
        return text
    of_rows = {"weighting": "weightings", "seed": "seeds"} if "compare" in command else {}
    return with_flags(text, modality.names(), {**modality.arguments, **of_rows})


def _print_commands(words):
    """Help on all commands, or on those of a group such as `pretrain`."""
    group = {name: one for name, one in COMMANDS.items() if name.split()[0] in words[:1]}
    commands = group or COMMANDS
    width = max(map(len, commands))
    lines = [f"  taskrobust {name:<{width}}  {one.summary}" for name, one in commands.items()]
    text = "\n".join(["Commands (each has --help):", *lines, OUTPUT, HELP])
    rest = words[1:] if group else words
    if rest and rest[0] not in ("-h", "--help"):
        sys.exit(f"taskrobust: unknown command {' '.join(words[:2])!r}\n{text}")
    if group and not rest:
        sys.exit(f"taskrobust: choose one of {', '.join(group)}\n{text}")
    print(text)


def _demo(words, program):
    demo = parse(Demo, words, program)
    failed = 0
    for part, modality in (("text", TEXT), ("images", IMAGES)):
        if demo.part in (part, "all"):
            with starting_keras():
                family = modality.family()
            failed += _show_demo(demo, part, family)
    exit_if_failed(failed, program)


def _show_demo(demo, part, family):
    from keras_taskrobust.recipes.comparison import compare

    recipe, output = family.demo, demo.output / part
    if demo.steps is not None:
        recipe = dataclasses.replace(recipe, steps=demo.steps, warmup_steps=demo.steps // 10)
    failed = _print_drawn(compare(family, recipe, output, minimum_targets=_DEMO_MINIMUM))
    print(f"Report, plots and presets: {output.resolve()}")
    return failed


def _prepare_text(words, program):
    arguments = parse_with_recipe(words, program, PrepareText, TEXT.pretraining)
    refuse_unused(words, arguments.recipe.unused_to_prepare())
    from keras_taskrobust.recipes.text_preparation import prepare_text, prepare_text_part

    if arguments.part is not None:
        documents = prepare_text_part(arguments.recipe, arguments.output, arguments.part)
        print(f"Part {arguments.part}: {documents} documents")
        print("Once all parts are there, the same command without --part joins them.")
        return
    text = prepare_text(arguments.recipe, arguments.output)
    print(f"{len(text.train)} training and {len(text.held_out)} held-out sequences")
    print(f"Annotated text, for commands with the same --output: {arguments.output.resolve()}")


def _pretrain(modality, words, program):
    """One run, its report, and a list of what was written."""
    arguments = parse_with_recipe(words, program, TrainedRun, modality.pretraining)
    recipe, output = arguments.recipe, arguments.output
    refuse_unused(words, recipe.unused())
    with starting_keras():
        number = start_devices(arguments.devices)
        if number:
            return number
        from keras_taskrobust.evaluation import print_report, write_report
        from keras_taskrobust.recipes.guide import write_guide
        from keras_taskrobust.recipes.pretraining import pretrain
        from keras_taskrobust.recipes.training_run import pictures_of, results_of

        family = modality.family()
    with quiet_beside_main():
        run = pretrain(family, recipe, output)
    if not distribution.is_main():
        return None
    settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
    written = write_report(
        [run],
        output,
        f"{family.model}, {recipe.weighting}",
        settings,
        baseline=recipe.weighting,
        pictures=pictures_of(output),
    )
    write_guide(output)
    print_report([run], baseline=recipe.weighting)
    print(f"Written to {output.resolve()}:")
    results = {**results_of(output), ", ".join(path.name for path in written): "report and plots"}
    for name, text in results.items():
        print(f"  {name}: {text}")
    return None


def _compare(modality, words, program):
    _refuse_single_runs(words)
    arguments = parse_with_recipe(words, program, modality.comparison, modality.pretraining)
    refuse_unused(words, arguments.unused())
    _refuse_rows(arguments)
    with starting_keras():
        number = start_devices(arguments.devices)
        if number:
            return number
        from keras_taskrobust.recipes.comparison import compare

        family = modality.family()
    downstream = None
    if arguments.tasks:
        _, settings = modality.finetuning[arguments.finetuning]
        downstream = modality.tasks(arguments, settings)
    with quiet_beside_main():
        drawn = compare(
            family,
            arguments.recipe,
            arguments.output,
            arguments.rows(),
            arguments.seeds,
            arguments.minimum_targets,
            downstream=downstream,
            select=arguments.select,
        )
    _show(drawn, "runs", arguments, program)
    return None


def _refuse_single_runs(words):
    """The recipes' own `--seed` and `--weighting` would be overridden."""
    flags = flags_of(words)
    for name in ("seed", "weighting"):
        if f"--{name}" in flags:
            raise ValueError(f"A comparison takes `--{name}s`, one or more. Received: --{name}")
    for name in OF_A_ROW:
        if flag(name) in flags:
            raise ValueError(
                "A comparison takes the options of a weighting with its name, "
                f"`--weightings uniform minimax:alpha=3`. Received: {flag(name)}"
            )


def _refuse_rows(arguments):
    """Refuses unknown weightings, and options that they do not have."""
    for fields in arguments.rows().values():
        dataclasses.replace(arguments.recipe, **fields)


def _finetune(modality, words, program):
    arguments = parse_with_recipe(words, program, modality.finetune, modality.finetuning)
    refuse_unused(words, arguments.unused())
    presets = _presets(arguments)
    with starting_keras():
        number = start_devices(arguments.devices)
        if number:
            return number
        from keras_taskrobust.recipes.finetuning import finetune

        family = modality.tasks(arguments, arguments.recipe)
    output, from_scratch = arguments.output, arguments.from_scratch
    with quiet_beside_main():
        drawn = finetune(presets, arguments.seeds, family, output, from_scratch, arguments.select)
    _show(drawn, modality.left, arguments, program)
    return None


def _inherit(modality, words, program):
    refuse_devices(words, program)
    arguments = parse_with_recipe(words, program, modality.inherit, modality.inheritance)
    refuse_unused(words, arguments.unused())
    with starting_keras():
        from keras_taskrobust.evaluation.inheritance_report import print_inheritance
        from keras_taskrobust.recipes.inheritance import inherit

        family = modality.related(arguments)
    output = arguments.output
    found = inherit(_presets(arguments), arguments.seeds, family, output, arguments.select)
    print_inheritance(found.results, found.failures)
    print(f"Report and cells: {output.resolve()}")
    exit_if_failed(len(found.failures), program)


def _presets(arguments):
    """Rows of the report to presets."""
    presets: dict[str, str] = {}
    for entry in arguments.preset:
        row, preset = entry.split("=", 1) if "=" in entry else (Path(entry).name, entry)
        if row in presets:
            raise ValueError(
                "`preset` must give each model a row of its own, with NAME=PRESET if need be. "
                f"Received: {presets[row]} and {preset}, both in the row {row!r}"
            )
        presets[row] = preset
    return presets


def _report(words, program):
    import tyro

    directory = parse(Redraw, words, program, (tyro.conf.PositionalRequiredArgs,)).directory
    with starting_keras():
        from keras_taskrobust.recipes.reporting import draw
    _print_drawn(draw(directory))
    print(f"Report: {directory.resolve()}")


def _export(words, program):
    import tyro

    arguments = parse(Export, words, program, (tyro.conf.PositionalRequiredArgs,))
    with starting_keras():
        from keras_taskrobust.recipes.export import export_run
    exported = export_run(arguments.run, arguments.to, arguments.output)
    print(f"{exported.what} and its model card: {exported.folder.resolve()}")
    for words in exported.left_out:
        print(f"Not in it: {words}")


def _show(drawn, left, arguments, program):
    """Prints the figures of a report, and where it lies with what, in the main process."""
    if not distribution.is_main():
        return
    failed = _print_drawn(drawn)
    print(f"Report and {left}: {arguments.output.resolve()}")
    exit_if_failed(failed, program)


def _print_drawn(drawn: Any) -> int:
    """Prints the figures of a report; returns the number of runs and cells that failed."""
    from keras_taskrobust.evaluation import print_downstream, print_report

    if drawn.runs:
        print_report(drawn.runs, minimum_targets=drawn.manifest.minimum_targets)
    if drawn.results:
        print_downstream(drawn.results)
    failures = drawn.manifest.failures
    for name, reason in failures.items():
        print(one_line(f"Failed: {name}: {reason}"), file=sys.stderr)
    return len(failures) + sum(bool(one.failure) for one in drawn.results)


def _recipes(recipes):
    return f"recipes {', '.join(recipes)}"


COMMANDS = {
    "demo": Command(
        "train a small MM-MAE, or PoS-BERT, under several weightings, and report",
        _demo,
        (Demo, None),
    ),
    "prepare text": Command(
        f"tag and tokenize a corpus: {_recipes(TEXT.pretraining)}",
        _prepare_text,
        (PrepareText, TEXT.pretraining),
    ),
    "pretrain text": Command(
        f"pre-train a PoS-BERT: {_recipes(TEXT.pretraining)}",
        functools.partial(_pretrain, TEXT),
        (TrainedRun, TEXT.pretraining),
    ),
    "pretrain images": Command(
        f"pre-train an MM-MAE: {_recipes(IMAGES.pretraining)}",
        functools.partial(_pretrain, IMAGES),
        (TrainedRun, IMAGES.pretraining),
    ),
    "finetune text": Command(
        f"fine-tune BERT presets on downstream tasks: {_recipes(TEXT.finetuning)}",
        functools.partial(_finetune, TEXT),
        (TEXT.finetune, TEXT.finetuning),
    ),
    "finetune images": Command(
        f"fine-tune MM-MAEs and ViTs on image tasks: {_recipes(IMAGES.finetuning)}",
        functools.partial(_finetune, IMAGES),
        (IMAGES.finetune, IMAGES.finetuning),
    ),
    "inherit text": Command(
        f"fine-tune BERT presets on related tasks, and test each on the others: "
        f"{_recipes(TEXT.inheritance)}",
        functools.partial(_inherit, TEXT),
        (TEXT.inherit, TEXT.inheritance),
    ),
    "inherit images": Command(
        f"fine-tune MM-MAEs and ViTs on related images, and test on the others: "
        f"{_recipes(IMAGES.inheritance)}",
        functools.partial(_inherit, IMAGES),
        (IMAGES.inherit, IMAGES.inheritance),
    ),
    "compare text": Command(
        "pre-train PoS-BERT under several weightings and seeds, fine-tune, and report: "
        f"{_recipes(TEXT.pretraining)}",
        functools.partial(_compare, TEXT),
        (TEXT.comparison, TEXT.pretraining),
    ),
    "compare images": Command(
        "pre-train MM-MAE under several weightings and seeds, fine-tune, and report: "
        f"{_recipes(IMAGES.pretraining)}",
        functools.partial(_compare, IMAGES),
        (IMAGES.comparison, IMAGES.pretraining),
    ),
    "report": Command(
        "draw the report of a comparison or fine-tuning again", _report, (Redraw, None)
    ),
    "export": Command(
        "hand a run on to Hugging Face, KerasHub or MultiMAE", _export, (Export, None)
    ),
}


if __name__ == "__main__":
    main()
