"""What a command says beside what it is asked for."""

import logging
import os
import subprocess
import sys
import types
import warnings

import pytest

from keras_taskrobust import cli, keras_start
from keras_taskrobust.keras_start import CHATTER

pytestmark = pytest.mark.backend_free


@pytest.fixture
def say(monkeypatch, capfd):
    """Runs a command that warns, prints and starts Keras; what it wrote to both streams."""
    monkeypatch.setitem(sys.modules, "keras", types.ModuleType("keras"))
    monkeypatch.setattr(keras_start, "_open_device", lambda: None)
    monkeypatch.setattr(keras_start, "_hush", lambda: None)

    def run(words, program):
        with keras_start.starting_keras():
            os.write(2, b"cuda: no device\n")
        warnings.warn("2 files\nare skipped", stacklevel=1)
        warnings.warn("old", FutureWarning, stacklevel=1)
        print("figures")

    def say(*flags):
        monkeypatch.setitem(cli.COMMANDS, "report", cli.Command("", run, (None, None)))
        with warnings.catch_warnings():
            warnings.resetwarnings()
            cli.main(["report", *flags])
        return capfd.readouterr()

    return say


def test_a_warning_is_one_line_without_its_source(say, monkeypatch):
    monkeypatch.delenv(CHATTER, raising=False)
    said = say()
    assert said.out == "figures\n"
    assert said.err == "Warning: 2 files are skipped\n"


def test_a_warning_of_a_command_names_its_flags(monkeypatch, capfd):
    def run(words, program):
        warnings.warn("choose `text_field` or `name`", stacklevel=1)

    monkeypatch.setitem(cli.COMMANDS, "pretrain text", cli.Command("", run, (None, None)))
    with warnings.catch_warnings():
        warnings.resetwarnings()
        cli.main(["pretrain", "text"])
    assert capfd.readouterr().err == "Warning: choose `--text-field` or `name`\n"


def test_quiet_leaves_warnings_alone(say, monkeypatch):
    monkeypatch.delenv(CHATTER, raising=False)
    said = say("--quiet")
    assert said.out == ""
    assert said.err == "Warning: 2 files are skipped\n"


def test_verbose_shows_libraries_and_leaves_warnings_as_they_are(say, monkeypatch):
    monkeypatch.setenv(CHATTER, "3")
    with pytest.warns(UserWarning, match="2 files"), pytest.warns(FutureWarning, match="old"):
        said = say("--verbose")
    assert said.out == "figures\n"
    assert said.err == "cuda: no device\n"  # the warnings went to who records them
    assert os.environ[CHATTER] == "3"


def test_only_errors_of_libraries_are_logged(monkeypatch):
    import grain
    from absl import logging as absl_logging

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    logger, level = absl_logging.get_absl_logger(), absl_logging.get_absl_logger().level
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    try:
        logger.setLevel(logging.WARNING)
        grain.ReadOptions(num_threads=10, prefetch_buffer_size=5)
        assert "prefetch_buffer_size=5 is smaller" in messages.pop()
        keras_start._hush()
        grain.ReadOptions(num_threads=10, prefetch_buffer_size=5)
        assert messages == []
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "text", "--help"]])
def test_a_reader_that_has_gone_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "keras_taskrobust.cli", *words]
    found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (found.returncode, found.stderr) == (1, "")
