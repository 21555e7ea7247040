"""The command line, `taskrobust`: a thin skin over the recipes.

It exits with the status 0 when all is done, 1 on an error, 2 on wrong usage, and 3 if some runs or
cells failed and the rest is done.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_taskrobust import __version__
from keras_taskrobust.cli_errors import HELP, exit_if_failed, said_in_a_sentence
from keras_taskrobust.cli_options import (
    OF_A_ROW,
    Demo,
    FineTune,
    FineTuneImages,
    ImageComparison,
    InheritImages,
    InheritText,
    Recipe,
    Redraw,
    Run,
    TextComparison,
)
from keras_taskrobust.cli_parsing import flag, flags_of, parse, parse_with_recipe, refuse_unused
from keras_taskrobust.keras_start import starting_keras
from keras_taskrobust.plain_text import one_line
from keras_taskrobust.recipes import (
    image_finetuning_recipe,
    image_settings,
    inheritance_recipes,
    text_finetuning_recipe,
    text_settings,
)
from keras_taskrobust.recipes.image_finetuning_recipe import TaskImages
from keras_taskrobust.recipes.settings import Pretraining


class Command(NamedTuple):
    """A command.

    Attributes:
        summary: string. What it does, in a line.
        run: runs it, given its words and how errors call it.
    """

    summary: str
    run: Callable[[list[str], str], None]


class Modality(NamedTuple):
    """What the commands on texts, or those on images, have of their own.

    Attributes:
        recipes: names of the recipes of pre-training to a description and the settings.
        family: loads Keras and returns the `PretrainingFamily`.
    """

    recipes: Mapping[str, tuple[str, Pretraining]]
    family: Callable[[], Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `taskrobust`; returns on success, else exits with a message on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    command = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if words == ["--version"]:
        print(f"taskrobust {__version__}")
        return
    if command is None:
        _print_commands(words)
        return
    program = f"taskrobust {command}"
    with said_in_a_sentence(program, debug):
        COMMANDS[command].run(words[len(command.split()) :], program)


def _print_commands(words):
    """Help on all commands, or on those of a group such as `pretrain`."""
    group = {name: one for name, one in COMMANDS.items() if name.split()[0] in words[:1]}
    commands = group or COMMANDS
    width = max(map(len, commands))
    lines = [f"  taskrobust {name:<{width}}  {one.summary}" for name, one in commands.items()]
    text = "\n".join(["Commands (each has --help):", *lines, HELP])
    rest = words[1:] if group else words
    if rest and rest[0] not in ("-h", "--help"):
        sys.exit(f"taskrobust: unknown command {' '.join(words[:2])!r}\n{text}")
    if group and not rest:
        sys.exit(f"taskrobust: choose one of {', '.join(group)}\n{text}")
    print(text)


def _demo(words, program):
    demo = parse(Demo, words, program)
    failed = 0
    if demo.part in ("text", "all"):
        with starting_keras():
            from keras_taskrobust.recipes import text_comparison as text
        failed += _show_demo(demo, "text", text.DEMO, text.compare_text, text.DEMO_MINIMUM)
    if demo.part in ("images", "all"):
        with starting_keras():
            from keras_taskrobust.recipes import image_comparison as images
        failed += _show_demo(
            demo, "images", images.DEMO, images.compare_images, images.DEMO_MINIMUM
        )
    exit_if_failed(failed, program)


def _show_demo(demo, part, recipe, compare, minimum):
    if demo.steps is not None:
        recipe = dataclasses.replace(recipe, steps=demo.steps, warmup_steps=demo.steps // 10)
    output = demo.output / part
    failed = _print_drawn(compare(recipe, output, minimum_targets=minimum))
    print(f"Report, plots and presets: {output.resolve()}")
    return failed


def _prepare_text(words, program):
    arguments = parse_with_recipe(words, program, Run, text_settings.RECIPES)
    refuse_unused(words, arguments.recipe.unused_to_prepare())
    with starting_keras():
        from keras_taskrobust.recipes.text import prepare_text
    text = prepare_text(arguments.recipe, arguments.output)
    print(f"{len(text.train)} training and {len(text.held_out)} held-out sequences")
    print(f"Annotated text, for commands with the same --output: {arguments.output.resolve()}")


def _pretrain(modality, words, program):
    """One run, its report, and a list of what was written."""
    arguments = parse_with_recipe(words, program, Run, modality.recipes)
    recipe, output = arguments.recipe, arguments.output
    refuse_unused(words, recipe.unused())
    with starting_keras():
        from keras_taskrobust.evaluation import print_report, write_report
        from keras_taskrobust.recipes.pretraining import pretrain
        from keras_taskrobust.recipes.training_run import pictures_of, results_of

        family = modality.family()
    run = pretrain(family, recipe, output)
    settings = {name: str(value) for name, value in dataclasses.asdict(recipe).items()}
    written = write_report(
        [run],
        output,
        f"{family.model}, {recipe.weighting}",
        settings,
        baseline=recipe.weighting,
        pictures=pictures_of(output),
    )
    print_report([run], baseline=recipe.weighting)
    print(f"Written to {output.resolve()}:")
    results = {**results_of(output), ", ".join(path.name for path in written): "report and plots"}
    for name, text in results.items():
        print(f"  {name}: {text}")


def _compare_text(words, program):
    _refuse_single_runs(words)
    arguments = parse_with_recipe(words, program, TextComparison, text_settings.RECIPES)
    refuse_unused(words, arguments.recipe.unused() | arguments.unused())
    _refuse_rows(arguments)
    with starting_keras():
        from keras_taskrobust.recipes.text_comparison import compare_text
    _compare(arguments, compare_text, _text_tasks, program)


def _compare_images(words, program):
    _refuse_single_runs(words)
    arguments = parse_with_recipe(words, program, ImageComparison, image_settings.RECIPES)
    refuse_unused(words, arguments.recipe.unused() | arguments.unused())
    _refuse_rows(arguments)
    with starting_keras():
        from keras_taskrobust.recipes.image_comparison import compare_images
    _compare(arguments, compare_images, _image_tasks, program)


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


def _compare(arguments, compare, family_of, program):
    drawn = compare(
        arguments.recipe,
        arguments.output,
        arguments.rows(),
        arguments.seeds,
        arguments.minimum_targets,
        downstream=family_of(arguments) if arguments.tasks else None,
        select=arguments.select,
    )
    failed = _print_drawn(drawn)
    print(f"Report and runs: {arguments.output.resolve()}")
    exit_if_failed(failed, program)


def _text_tasks(arguments):
    from keras_taskrobust.downstream.text import TextTasks

    _, settings = text_finetuning_recipe.FINETUNING_RECIPES[arguments.finetuning]
    return TextTasks(arguments.tasks, settings, _data_dir(arguments))


def _image_tasks(arguments):
    from keras_taskrobust.downstream.images import ImageTasks

    _, settings = image_finetuning_recipe.FINETUNING_RECIPES[arguments.finetuning]
    return ImageTasks(arguments.tasks, settings, arguments.recipe.images)


def _finetune_text(words, program):
    recipes = text_finetuning_recipe.FINETUNING_RECIPES
    arguments = parse_with_recipe(words, program, FineTune, recipes)
    refuse_unused(words, arguments.recipe.unused())
    presets = _presets(arguments)
    with starting_keras():
        from keras_taskrobust.downstream.text import TextTasks
    family = TextTasks(arguments.tasks, arguments.recipe, _data_dir(arguments))
    _finetune(arguments, presets, family, "predictions", program)


def _finetune_images(words, program):
    kind = FineTuneImages[Recipe, TaskImages]
    recipes = image_finetuning_recipe.FINETUNING_RECIPES
    arguments = parse_with_recipe(words, program, kind, recipes)
    refuse_unused(words, arguments.recipe.unused(arguments.tasks) | arguments.images.unused())
    with starting_keras():
        from keras_taskrobust.downstream.images import ImageTasks
    family = ImageTasks(arguments.tasks, arguments.recipe, arguments.images)
    _finetune(arguments, _presets(arguments), family, "cells", program)


def _finetune(arguments, presets, family, left, program):
    with starting_keras():
        from keras_taskrobust.recipes.finetuning import finetune
    output, from_scratch = arguments.output, arguments.from_scratch
    drawn = finetune(presets, arguments.seeds, family, output, from_scratch, arguments.select)
    failed = _print_drawn(drawn)
    print(f"Report and {left}: {output.resolve()}")
    exit_if_failed(failed, program)


def _inherit_text(words, program):
    arguments = parse_with_recipe(words, program, InheritText, inheritance_recipes.TEXT_RECIPES)
    refuse_unused(words, inheritance_recipes.unused_of_settings(arguments.recipe))
    with starting_keras():
        from keras_taskrobust.downstream.text import RelatedTexts
    family = RelatedTexts(
        arguments.tasks,
        arguments.recipe,
        _data_dir(arguments),
        head_task=arguments.head_task or "",
    )
    _inherit(arguments, family, program)


def _inherit_images(words, program):
    kind = InheritImages[Recipe, TaskImages]
    arguments = parse_with_recipe(words, program, kind, inheritance_recipes.IMAGE_RECIPES)
    with starting_keras():
        from keras_taskrobust.downstream.images import RelatedImages, all_tasks
    recipe, images = arguments.recipe, arguments.images
    refuse_unused(words, inheritance_recipes.unused_of_images(recipe, arguments.tasks, images))
    sets = inheritance_recipes.named_sets(arguments.sets)
    family = RelatedImages(
        arguments.tasks or all_tasks(sets),
        recipe,
        images,
        {name: inheritance_recipes.related_images(images, one) for name, one in sets.items()},
        arguments.severity,
        head_task=arguments.head_task,
    )
    _inherit(arguments, family, program)


def _inherit(arguments, family, program):
    with starting_keras():
        from keras_taskrobust.evaluation.inheritance_report import print_inheritance
        from keras_taskrobust.recipes.inheritance import inherit
    output = arguments.output
    found = inherit(_presets(arguments), arguments.seeds, family, output, arguments.select)
    print_inheritance(found.results, found.failures)
    print(f"Report and cells: {output.resolve()}")
    exit_if_failed(len(found.failures), program)


def _data_dir(arguments):
    return None if arguments.data_dir is None else str(arguments.data_dir)


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


def _print_drawn(drawn) -> int:
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


def _texts():
    from keras_taskrobust.recipes.text import TEXTS

    return TEXTS


def _images():
    from keras_taskrobust.recipes.images import IMAGES

    return IMAGES


_TEXT = Modality(text_settings.RECIPES, _texts)
_IMAGES = Modality(image_settings.RECIPES, _images)

COMMANDS = {
    "demo": Command(
        "train a small PoS-BERT and a small MM-MAE under several weightings, and report", _demo
    ),
    "prepare text": Command("tag and tokenize a corpus", _prepare_text),
    "pretrain text": Command(
        "pre-train a PoS-BERT: recipes pos-bert-base, pos-bert-tiny",
        functools.partial(_pretrain, _TEXT),
    ),
    "pretrain images": Command(
        "pre-train an MM-MAE: recipes mm-mae-base, mm-mae-tiny",
        functools.partial(_pretrain, _IMAGES),
    ),
    "finetune text": Command(
        "fine-tune BERT presets on downstream tasks: recipes glue, small", _finetune_text
    ),
    "finetune images": Command(
        "fine-tune MM-MAEs and ViTs on image tasks: the paper's recipes, small", _finetune_images
    ),
    "inherit text": Command(
        "fine-tune BERT presets on related tasks, and test each on the others", _inherit_text
    ),
    "inherit images": Command(
        "fine-tune MM-MAEs and ViTs on related images, and test on the others", _inherit_images
    ),
    "compare text": Command(
        "pre-train PoS-BERT under several weightings and seeds, fine-tune, and report",
        _compare_text,
    ),
    "compare images": Command(
        "pre-train MM-MAE under several weightings and seeds, fine-tune, and report",
        _compare_images,
    ),
    "report": Command("draw the report of a comparison or fine-tuning again", _report),
}


if __name__ == "__main__":
    main()
