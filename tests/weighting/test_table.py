"""The documentation lists the methods as they describe themselves."""

from pathlib import Path

import pytest
from weighting_cases import NAMES

from keras_taskrobust.weighting._table import methods_table

pytestmark = pytest.mark.backend_free

PAGE = Path(__file__).parents[2] / "docs" / "weightings.md"


def test_the_page_holds_the_table():
    """`python -m keras_taskrobust.weighting` prints it."""
    assert methods_table() in PAGE.read_text()


def test_every_method_of_the_library_has_a_row():
    table = methods_table()
    for name in NAMES:
        assert f'| `"{name}"` |' in table
