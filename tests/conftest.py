"""Shared fixtures. The backend is chosen by `KERAS_BACKEND`, one process a backend."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
# The tests compile many small models once: XLA need not optimise them.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
