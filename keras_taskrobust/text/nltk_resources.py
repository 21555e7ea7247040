"""NLTK's data packages: used where they are, downloaded where they are not."""

import functools
import io
from collections.abc import Callable
from typing import TypeVar

import nltk
from nltk import downloader

Loaded = TypeVar("Loaded")

_SECONDS_TO_WAIT = 15


def load_nltk_resource(package: str, load: Callable[[], Loaded]) -> Loaded:
    """Calls `load`; if it misses its NLTK data, downloads the package and calls it again.

    Args:
        package: string. Identifier of the data package, for example `"brown"`.
        load: callable without arguments, which raises `LookupError` when data are missing.

    Returns:
        What `load` returns.

    Raises:
        LookupError: the package is neither installed nor can it be downloaded. The text says
            how to get it.
    """
    try:
        return load()
    except LookupError:
        problem = _download(package)
    try:
        return load()
    except LookupError as error:
        raise LookupError(
            f"The NLTK data package {package!r} must be installed. Received: no such package in "
            f"any of {nltk.data.path}, and no download ({problem or 'it did not help'}). With a "
            f"network run `python -m nltk.downloader {package}`; without one set the environment "
            "variable NLTK_DATA to a folder which holds it."
        ) from error


@functools.cache
def _download(package: str) -> str:
    """Tries once to download a package. Returns what went wrong, "" if nothing did."""
    printed = io.StringIO()
    patience = downloader.NETWORK_TIMEOUT
    # NLTK waits for two minutes, too long where the network drops what it does not allow.
    downloader.NETWORK_TIMEOUT = _SECONDS_TO_WAIT
    try:
        downloader.Downloader().download(package, quiet=True, print_error_to=printed)
    finally:
        downloader.NETWORK_TIMEOUT = patience
    return " ".join(printed.getvalue().replace("[nltk_data]", "").split())
