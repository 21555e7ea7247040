"""How several devices and processes are asked for, and what is refused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import pytest

from keras_taskrobust import cli, distribution
from keras_taskrobust.distribution import Devices

BACKEND = keras.backend.backend()
ADDRESS = "10.0.0.1:29500"
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
WORKERS = ["10.0.0.1:1", "10.0.0.2:1"]
TF_CONFIG = {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 1}}
WITH_CHIEF = {
    "cluster": {"chief": WORKERS[:1], "worker": WORKERS[1:]},
    "task": {"type": "worker", "index": 0},
}
OF_KERAS = {
    "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    "KERAS_DISTRIBUTION_PROCESS_ID": "1",
    "KERAS_DISTRIBUTION_JOB_ADDRESSES": ADDRESS,
}


@pytest.mark.parametrize(
    ("engine", "environment", "address"),
    [
        ("torch", TORCHRUN, ADDRESS),
        ("tensorflow", {"TF_CONFIG": json.dumps(TF_CONFIG)}, ",".join(WORKERS)),
        ("tensorflow", {"TF_CONFIG": json.dumps(WITH_CHIEF)}, ",".join(WORKERS)),
        *((engine, OF_KERAS, ADDRESS) for engine in ("torch", "tensorflow", "jax")),
    ],
)
def test_processes_come_from_the_environment(engine, environment, address):
    found = Devices(devices=4).with_environment(engine, environment)
    assert found == Devices(4, 1, 2, 1, address)
    given = Devices(None, 1, 3, 0, "host:1")
    assert given.with_environment(engine, environment) == given


def test_the_environment_of_another_engine_is_not_read():
    environment = {**TORCHRUN, "TF_CONFIG": json.dumps(TF_CONFIG)}
    assert Devices().with_environment("jax", environment) == Devices()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Devices(devices=0), "`devices` must be"),
        (lambda: Devices(model_parallel=0), "`model_parallel` must be"),
        (lambda: Devices(processes=2), "given together. Received: processes=2, process_id=None"),
        (lambda: Devices(None, 1, 2, 2, ADDRESS), "less than `processes`. Received: process_id=2"),
        (lambda: Devices(None, 1, 2, 0, "host"), "HOST:PORT.*Received: coordinator='host'"),
        (
            lambda: Devices().with_environment("torch", TORCHRUN | {"RANK": "one"}),
            "RANK must be an integer. Received: RANK=one",
        ),
        (
            lambda: Devices().with_environment("tensorflow", {"TF_CONFIG": "{}"}),
            "TF_CONFIG must be JSON with.*Received: TF_CONFIG={}",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_address_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is in use: choose another port"):
            distribution.start(processes=2, process_id=0, coordinator=f"127.0.0.1:{port}")


def test_devices_that_are_not_there_are_refused():
    """The test computes already: there is what there is."""
    keras.ops.zeros(())
    message = {
        "torch": "start 99 of them by torchrun --nproc-per-node 99",
        "jax": "`devices` must be at most 1: so many CPUs are there. Received: devices=99",
        "tensorflow": "`devices` must be at most 1: so many CPUs are there. Received: devices=99",
    }[BACKEND]
    with pytest.raises(ValueError, match=message):
        distribution.start(devices=99)


@pytest.mark.parametrize(
    ("words", "environment", "received"),
    [
        (["inherit", "text", "small", "--preset", "p", "--processes=2"], {}, "--processes"),
        (["inherit", "images", "small"], TORCHRUN, "a start by torchrun"),
    ],
)
def test_a_command_on_one_device_says_the_way_out(words, environment, received, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"Start it once a device.*Received: {received}"):
        cli.main(words)


def test_a_process_by_itself_waits_for_nobody():
    assert distribution.is_main()
    assert distribution.gather("a") == ["a"]
    distribution.barrier()
    distribution.check_alike("settings", {"seed": 0})
    with distribution.main_first(), distribution.scope(), distribution.alone():
        assert distribution.part() == (0, 1)


WORDS = [
    *("pretrain", "text", "pos-bert-tiny", "--tagger", "textblob", "--vocabulary-size", "120"),
    *("--held-out", "0.25", "--sequence-length", "24", "--max-predictions", "4"),
    *("--num-layers", "1", "--num-heads", "2", "--hidden-dim", "8", "--intermediate-dim", "16"),
    *("--batch-size", "4", "--steps", "300", "--warmup-steps", "2", "--steps-per-report", "10"),
]
SENTENCE = "The old dog quickly ran to the red house, and she saw a small boat in the harbour. "
RUN = [sys.executable, "-m", "keras_taskrobust.cli", *WORDS]
BY_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def start(command, folder):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    texts, output = str(folder / "texts"), str(folder / "run")
    return subprocess.Popen([*command, "--corpus", texts, "--output", output], **pipes)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(12):
        (tmp_path / "texts" / f"{number}.txt").write_text(SENTENCE * (4 + number))
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="has one process a device on PyTorch alone")
def test_the_command_line_on_two_devices_survives_a_signal(folder):
    """SIGTERM saves; then torchrun goes on with the same run."""
    history = folder / "run" / "history.csv"
    with start([*RUN, "--devices", "2"], folder) as first:
        deadline = time.monotonic() + 300
        while not (history.exists() and history.read_text().count("\n") > 1):
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        said, _ = first.communicate(timeout=100)
    assert first.returncode == 75, said
    assert said.count("interrupted, go on with the same command") == 1
    assert not (folder / "run" / "finished.json").exists()
    command = [*BY_TORCHRUN, "--nproc-per-node", "2", "-m", *RUN[2:]]
    with start(command, folder) as second:
        said, _ = second.communicate(timeout=500)
    assert second.returncode == 0, said
    assert said.count("Written to") == 1
    steps = [line.split(",")[0] for line in history.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(10, 301, 10)]


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="has one process a device on PyTorch alone")
def test_what_the_command_line_refuses_is_said_once(folder):
    with start([*RUN, "--devices", "3"], folder) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said.count("`--batch-size` must be a multiple of 3") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_comparison_by_the_command_line_on_two_devices(folder):
    table = folder / "reviews.csv"
    rows = [f"{SENTENCE.strip()[index:]},{index % 2}" for index in range(40)]
    table.write_text("\n".join(["text,label", *(row.replace(", and", " and") for row in rows)]))
    words = [*RUN[:3], "compare", *WORDS[1:], "--devices", "2", "--weightings", "uniform"]
    words += ["--steps", "4", "--steps-per-report", "2", "--tasks", str(table)]
    with start(words, folder) as process:
        said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    assert said.count("Report and runs") == 1
    report = (folder / "run" / "report.md").read_text()
    assert "| scratch |" in report


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="has its devices in one process")
def test_the_command_line_on_virtual_devices(folder):
    words = [*RUN, "--devices", "2", "--steps", "4", "--steps-per-report", "2"]
    with start(words, folder) as process:
        said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    assert (folder / "run" / "finished.json").exists()
    assert os.listdir(folder / "run" / "preset")


@pytest.mark.backend_free
def test_free_addresses_are_different_and_free():
    addresses = distribution.free_addresses(20)
    assert len(set(addresses)) == 20
    for address in addresses:
        host, port = address.split(":")
        with socket.socket() as one:
            one.bind((host, int(port)))


@pytest.mark.backend_free
def test_an_address_that_is_taken_is_not_free(monkeypatch):
    (address,) = distribution.free_addresses(1)
    port = int(address.split(":")[1])
    monkeypatch.setattr(distribution, "_PORTS", [port])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        assert distribution.free_addresses(1) == []
    assert distribution.free_addresses(1) == [address]
