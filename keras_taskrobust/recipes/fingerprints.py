"""What a run was computed from and with: nothing else may go on with it."""

import json
from collections.abc import Mapping
from pathlib import Path

from keras_taskrobust.files import READING_ERRORS, write_atomically
from keras_taskrobust.recipes.environment import versions

_NAME = "fingerprints.json"
_SHOWN = 12


def record_fingerprints(directory: Path, data: Mapping[str, str]) -> None:
    """Writes down what a run that begins is computed from and with.

    Args:
        directory: the folder of the run.
        data: names of what it reads, such as "corpus", to digests.
    """
    content = json.dumps({**data, **versions()}, indent=1)
    write_atomically(directory / _NAME, content.encode())


def check_fingerprints(directory: Path, data: Mapping[str, str], is_finished: bool = False) -> None:
    """Refuses a run that was computed from or with something else.

    Args:
        directory: the folder of the run.
        data: as in `record_fingerprints`.
        is_finished: bool. Whether the run has ended: then only the data are compared.

    Raises:
        ValueError: it was computed from other data, or with another backend or version; or nothing
            says with which.
    """
    path = directory / _NAME
    if is_finished and not path.exists():  # from before there were fingerprints
        return
    try:
        former = dict(json.loads(path.read_text()))
    except READING_ERRORS as error:
        raise ValueError(
            f"{path} must be JSON, as its run wrote it. "
            "Received: a damaged file or none; remove the run's folder to train it again"
        ) from error
    expected = data if is_finished else {**data, **versions()}
    changed = {name: former.get(name) for name in expected if former.get(name) != expected[name]}
    if changed:
        received = (
            f"{name} {expected[name][:_SHOWN]} in place of {str(was)[:_SHOWN]}"
            for name, was in changed.items()
        )
        raise ValueError(
            f"{directory} holds a run with another {', '.join(changed)}: go on with the former, or "
            f"choose another folder. Received: {', '.join(received)}"
        )
