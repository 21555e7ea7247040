"""A process that tags parts of a corpus for another one, and ends with it.

It runs this file as a script: the package's own modules are imported without the package around
them, which loads Keras and a backend.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

_NOT_NEEDED = ("scipy", "sklearn")  # NLTK imports them where they are; its taggers do without


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    requests: queue.SimpleQueue = queue.SimpleQueue()
    sys.path[:], nltk_data = pickle.load(sys.stdin.buffer)
    _import_without_keras(nltk_data)
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    _annotate(requests, replies)


def _import_without_keras(nltk_data: list[str]) -> None:
    for name in _NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]
    text = Path(__file__).parent
    for name, folder in (("keras_taskrobust", text.parent), ("keras_taskrobust.text", text)):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(folder)]
    import nltk

    nltk.data.path[:] = nltk_data


def _receive(requests: queue.SimpleQueue) -> None:
    """Passes on what comes. Nothing comes any more when the other process is done, or dead."""
    try:
        while True:
            requests.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _annotate(requests: queue.SimpleQueue, replies: BinaryIO) -> None:
    from keras_taskrobust.text.annotator import Annotator, write_shard

    annotator = Annotator(*requests.get())
    while True:
        path, documents = requests.get()
        error = None
        try:
            write_shard(path, annotator(documents))
        except Exception as raised:  # noqa: BLE001 - it is raised again where the part was asked for
            raised.add_note(traceback.format_exc())
            error = raised
        pickle.dump(error, replies)
        replies.flush()


if __name__ == "__main__":
    _main()
