"""Shared fixtures. The backend is chosen by `KERAS_BACKEND`, one process a backend."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
