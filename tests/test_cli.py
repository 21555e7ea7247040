"""The command line: help, choices, and errors a person can act on."""

import pytest

from keras_taskrobust import cli


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


def test_an_unknown_command_lists_the_known():
    with pytest.raises(SystemExit, match=r"unknown command 'pretrain sound'(.|\n)*pretrain text"):
        cli.main(["pretrain", "sound"])


def test_an_unknown_recipe_lists_the_known(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "text", "pos-bert-huge"])
    captured = capsys.readouterr()
    assert "pos-bert-base" in captured.out + captured.err


def test_bad_input_is_one_sentence(tmp_path, capsys):
    arguments = ["pos-bert-tiny", "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"taskrobust pretrain text: .*nowhere"):
        cli.main(["pretrain", "text", *arguments, "--corpus", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "text", *arguments, "--weighting", "x"])
    captured = capsys.readouterr()
    assert "`weighting` must be one of" in captured.out + captured.err
