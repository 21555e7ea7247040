"""Shared fixtures. `KERAS_BACKEND` chooses the backend of the process."""

import ctypes
import gc
import itertools
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
# The tests compile many small models once: XLA need not optimise them.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# Threads that wait for each other burn four times the time of such small computations.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# What one test has compiled with JAX, no other test compiles again.
_compiled = tempfile.TemporaryDirectory(prefix="taskrobust-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# XLA keeps some memory maps for every function it has compiled, and Linux allows a process 65,530.
_MOST_MAPS = 30_000
_TESTS_BETWEEN_LOOKS = 20
_MAPS = Path("/proc/self/maps")
_tests = itertools.count()
# glibc keeps what is freed between what is not, up to three gigabytes of it, unless it is asked.
_LIBC = ctypes.CDLL(None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Initial weights without a seed come from Python's generator: a test does the same again."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=_MAPS.exists())
def few_memory_maps():
    """Lets JAX forget what it compiled before the process runs out of maps and crashes."""
    yield
    if "jax" not in sys.modules or next(_tests) % _TESTS_BETWEEN_LOOKS:
        return
    if _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """Gives back what a file of tests has freed: two backends must fit beside each other."""
    yield
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


# Where the time goes. CPU-seconds, children included: they mean the same on a busy machine.

_seconds: Counter[str] = Counter()


def _cpu_seconds():
    return sum(os.times()[:4])


def pytest_addoption(parser):
    parser.addoption(
        "--cpu-seconds", action="store_true", help="print the CPU-seconds of every test file"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    before = _cpu_seconds()
    result = yield
    _seconds[item.nodeid.split("::")[0]] += _cpu_seconds() - before
    return result


def pytest_collection_finish():
    _seconds["imports and collection"] = _cpu_seconds()
    # What is imported stays: the collector need not walk through it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--cpu-seconds"):
        terminalreporter.section("CPU-seconds")
        for name, seconds in [*_seconds.most_common(), ("in all", _seconds.total())]:
            terminalreporter.write_line(f"{seconds:8.1f} {name}")
