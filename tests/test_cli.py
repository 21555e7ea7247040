"""The command line: help, choices, and errors a person can act on."""

import dataclasses
import re
import shutil
import subprocess

import pytest

from keras_taskrobust import cli
from keras_taskrobust.cli_help import sections_of
from keras_taskrobust.cli_modalities import IMAGES, TEXT
from keras_taskrobust.cli_options import Redraw
from keras_taskrobust.cli_parsing import parse_with_recipe
from keras_taskrobust.recipes import text, text_preparation
from keras_taskrobust.weighting_names import WEIGHTINGS

pytestmark = pytest.mark.backend_free


def test_help_lists_the_commands(capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert all(f"taskrobust {name}" in out for name in cli.COMMANDS)


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*command.split(), "--help"])
    assert exit_info.value.code in (0, None)
    assert "usage: taskrobust " + command in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_shell_completes_commands_recipes_and_flags(tmp_path):
    script = tmp_path / "completion.sh"
    with pytest.raises(SystemExit) as error:
        cli.main(["--tyro-write-completion", "bash", str(script)])
    assert not error.value.code

    def completed(*words):
        line = f'COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}; _tyro_taskrobust'
        command = f'source {script}; {line}; echo "${{COMPREPLY[@]}}"'
        found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        return set(found.stdout.split())

    assert completed("taskrobust") >= {name.split()[0] for name in cli.COMMANDS}
    assert "text" in completed("taskrobust", "prepare")
    assert {"mm-mae-base", "mm-mae-tiny"} <= completed("taskrobust", "pretrain", "images")
    assert "--weighting" in completed("taskrobust", "pretrain", "text", "pos-bert-tiny")


def test_a_group_of_commands_has_help(capsys):
    cli.main(["pretrain", "--help"])
    out = capsys.readouterr().out
    assert "taskrobust pretrain text " in out
    assert "taskrobust compare text " not in out
    with pytest.raises(SystemExit, match="choose one of pretrain text, pretrain images"):
        cli.main(["pretrain"])


def test_an_unknown_command_lists_the_known():
    with pytest.raises(SystemExit, match=r"unknown command 'pretrain sound'(.|\n)*pretrain text"):
        cli.main(["pretrain", "sound"])


@pytest.mark.parametrize(("kind", "known"), [("text", "pos-bert-base"), ("images", "mm-mae-base")])
def test_an_unknown_recipe_lists_the_known(kind, known, capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", kind, "huge"])
    captured = capsys.readouterr()
    assert known in captured.out + captured.err


def test_help_says_where_the_settings_are_and_which_weightings(capsys):
    def help_of(*words):
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
        return "".join(
            character for character in capsys.readouterr().out if character not in "│\n "
        )

    said = "arelistedby`taskrobustpretraintextpos-bert-tiny--help`"
    assert said in help_of("pretrain", "text")
    for words in (("pretrain", "text", "pos-bert-tiny"), ("compare", "images", "mm-mae-tiny")):
        assert ",".join(WEIGHTINGS) in help_of(*words)


@pytest.mark.parametrize(
    ("command", "sections"),
    [
        (
            "pretrain text pos-bert-tiny",
            ["devices", "weighting", "training", "run", "text", "masking", "model"],
        ),
        (
            "pretrain images mm-mae-tiny",
            ["devices", "weighting", "training", "run", "images", "masking", "model"],
        ),
        ("finetune text glue", ["devices", "training", "robustness", "model"]),
        (
            "finetune images small",
            ["images", "devices", "training", "robustness", "model", "augmentation"],
        ),
    ],
)
def test_help_has_a_box_for_each_section(command, sections, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    boxes = re.findall(r"^[╭─ ]*(\w* ?)options[╮─ ]*$", capsys.readouterr().out, re.MULTILINE)
    assert [box.strip() for box in boxes] == ["", *sections]


def test_the_help_on_a_flag_is_a_paragraph(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for words in (["demo"], ["pretrain", "text", "pos-bert-tiny"]):
        with pytest.raises(SystemExit):
            cli.main([*words, "--help"])
    said = capsys.readouterr().out
    assert "until it has learnt more than how frequent words are. (default: images)" in said
    assert "(auto), one or more, the end of the line" in said


def test_every_setting_of_a_recipe_has_a_section():
    for modality in (TEXT, IMAGES):
        for _, recipe in [*modality.pretraining.values(), *modality.finetuning.values()]:
            sections = sections_of(type(recipe))
            assert all(sections), sections
            names = [name for section in sections.values() for name in section]
            assert sorted(names) == sorted(field.name for field in dataclasses.fields(recipe))


def test_help_on_commands_names_all_recipes():
    for name, modality in (("text", TEXT), ("images", IMAGES)):
        for command, recipes in (
            ("pretrain", modality.pretraining),
            ("compare", modality.pretraining),
            ("finetune", modality.finetuning),
            ("inherit", modality.inheritance),
        ):
            assert f"recipes {', '.join(recipes)}" in cli.COMMANDS[f"{command} {name}"].summary


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pretrain text pos-bert-tiny --corpus nowhere", "`--corpus` must be 'bundled'"),
        ("pretrain images mm-mae-tiny --data nowhere", "`--data` must be 'scenes'"),
        ("compare images mm-mae-tiny --data nowhere", "`--data` must be 'scenes'"),
        ("finetune text small --tasks RTE --preset nowhere", "`--preset` must be the folder"),
    ],
)
def test_errors_of_the_library_name_the_flag(command, said, tmp_path):
    with pytest.raises(SystemExit, match=rf"^taskrobust [a-z ]+: {said}.*Received: .*nowhere"):
        cli.main([*command.split(), "--output", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--part", "images", "--steps", "30"], {"images": 30}),
        (["--part", "text"], {"text": 1200}),
        (["--part", "all"], {"text": 1200, "images": 240}),
        ([], {"images": 240}),
    ],
)
def test_the_demo_runs_its_parts(flags, parts, tmp_path, monkeypatch):
    steps = {}
    monkeypatch.setattr(
        cli,
        "_show_demo",
        lambda demo, part, family: steps.update({part: demo.steps or family.demo.steps}) or 0,
    )
    cli.main(["demo", "--output", str(tmp_path), *flags])
    assert steps == parts


def test_bad_input_is_one_sentence(tmp_path):
    arguments = ["pos-bert-tiny", "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"taskrobust pretrain text: .*nowhere"):
        cli.main(["pretrain", "text", *arguments, "--corpus", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="^taskrobust pretrain text: `--weighting` must be one of"):
        cli.main(["pretrain", "text", *arguments, "--weighting", "x"])


def test_a_missing_package_is_one_sentence(monkeypatch):
    def need_a_package(words, program):
        raise ModuleNotFoundError("No module named 'missing'")

    monkeypatch.setitem(cli.COMMANDS, "report", cli.Command("", need_a_package, (Redraw, None)))
    with pytest.raises(SystemExit, match=r"^taskrobust report: No module named 'missing'$"):
        cli.main(["report", "nowhere"])


def test_what_is_prepared_is_what_is_trained_on(tmp_path, monkeypatch):
    folders = []

    def prepare(recipe, directory):
        folders.append(directory)
        raise ValueError("far enough")

    monkeypatch.setattr(text, "prepare_text", prepare)
    monkeypatch.setattr(text_preparation, "prepare_text", prepare)
    for command in ("prepare", "pretrain", "compare"):
        with pytest.raises(SystemExit, match="far enough"):
            cli.main([command, "text", "pos-bert-tiny", "--output", str(tmp_path)])
    assert folders == [tmp_path] * 3


@pytest.mark.parametrize(
    ("flags", "warmup"),
    [
        ([], 60),
        (["--steps", "50"], 5),
        (["--steps=10"], 1),
        (["--steps", "61"], 60),
        (["--steps", "50", "--warmup-steps", "7"], 7),
    ],
)
def test_fewer_steps_than_the_warm_up_have_the_share_of_it(flags, warmup, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(text, "prepare_text", lambda recipe, _: found.append(recipe.warmup_steps))
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "text", "pos-bert-tiny", "--output", str(tmp_path), *flags])
    assert found == [warmup]


@pytest.mark.parametrize(
    ("flags", "warmup"),
    [
        ("", 2),
        ("--epochs 2", 0),
        ("--epochs=3", 2),
        ("--epochs 1 --warmup-epochs 0", 0),
    ],
)
def test_fewer_epochs_than_the_warm_up_have_the_share_of_it(flags, warmup):
    words = ["small", "--preset", "preset", *flags.split()]
    parsed = parse_with_recipe(words, "taskrobust", IMAGES.finetune, IMAGES.finetuning)
    assert parsed.recipe.warmup_epochs == warmup


@pytest.mark.parametrize(
    "words", [["text", "pos-bert-tiny", "--corpus"], ["images", "mm-mae-tiny", "--data"]]
)
def test_an_unknown_weighting_is_refused_before_data_are_read(words):
    with pytest.raises(SystemExit, match="`--weightings` must be one of .*Received: weighting=x"):
        cli.main(["compare", *words, "nowhere", "--weightings", "uniform", "x"])


@pytest.mark.parametrize(
    ("flags", "received"),
    [
        (["--weightings", "uniform", "uniform"], "`--weightings` .* uniform, uniform"),
        (["--weightings"], "`--weightings` .* none"),
        (["--seeds", "0", "1", "0"], "`--seeds` .* 0, 1, 0"),
        (["--seeds"], "`--seeds` .* none"),
    ],
)
@pytest.mark.parametrize(
    "words", [["text", "pos-bert-tiny", "--corpus"], ["images", "mm-mae-tiny", "--data"]]
)
def test_doubles_are_refused_before_data_are_read(words, flags, received):
    with pytest.raises(SystemExit, match=received):
        cli.main(["compare", *words, "nowhere", *flags])


@pytest.mark.parametrize("flag", ["--seed", "--weighting=uniform"])
def test_a_comparison_refuses_the_flags_of_a_single_run(flag):
    with pytest.raises(SystemExit, match=r"A comparison takes `--(seeds|weightings)`"):
        cli.main(["compare", "text", "pos-bert-tiny", flag, "1"])
