"""Shared fixtures. The backend is chosen by `KERAS_BACKEND`, one process a backend."""

import gc
import itertools
import os
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
# The tests compile many small models once: XLA need not optimise them.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# What one test has compiled with JAX, no other test compiles again.
_compiled = tempfile.TemporaryDirectory(prefix="taskrobust-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# XLA keeps some memory maps for every function it has compiled, and Linux allows a process 65,530.
_MOST_MAPS = 30_000
_TESTS_BETWEEN_LOOKS = 20
_MAPS = Path("/proc/self/maps")
_tests = itertools.count()


@pytest.fixture(autouse=_MAPS.exists())
def few_memory_maps():
    """Lets JAX forget what it compiled before the process runs out of maps and crashes."""
    yield
    if "jax" not in sys.modules or next(_tests) % _TESTS_BETWEEN_LOOKS:
        return
    if _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()
