"""Marks of parameters."""

import pytest


def slow(*values):
    """A case for `make test-slow`; another of its kind stays in `make test`."""
    return pytest.param(*values, marks=pytest.mark.slow)
