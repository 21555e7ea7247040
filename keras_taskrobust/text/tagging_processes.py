"""Several processes that tag at once: without Keras, and gone as soon as their parent is."""

import pickle
import queue
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, cast

import nltk

from keras_taskrobust.text import tagging_process
from keras_taskrobust.text.annotator import Annotation, RawShard

_SHARDS_AHEAD = 2  # per process
_MOST_ENDED = 2  # processes at one shard: it would end others too


def annotate_in_processes(
    shards: Iterator[tuple[Path, RawShard]],
    annotation: Annotation,
    workers: int,
    advance: Callable[[], None],
) -> None:
    """Annotates shards in processes, which write them.

    A process that is killed is replaced, with a warning.

    Args:
        shards: iterator of paths and raw documents.
        annotation: the arguments of `Annotator`.
        workers: int >= 1. The number of processes.
        advance: called after every shard.

    Raises:
        ChildProcessError: one process after the other is killed.
    """
    idle: queue.LifoQueue[_TaggingProcess | None] = queue.LifoQueue()
    for _ in range(workers):
        idle.put(None)
    threads = ThreadPoolExecutor(workers)  # each gives one process its shards
    running: set[Future] = set()
    try:
        for path, documents in shards:
            running.add(threads.submit(_annotate, idle, annotation, path, documents))
            if len(running) >= workers * _SHARDS_AHEAD:
                running = _collect(running, advance)
        while running:
            running = _collect(running, advance)
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        while not idle.empty():
            process = idle.get()
            if process is not None:
                process.end()


class _TaggingProcess:
    """A process that annotates one shard after the other.

    It ends when the pipe of its requests is closed, by `end` or by the death of this process.
    """

    def __init__(self, annotation: Annotation):
        self._process = subprocess.Popen(
            [sys.executable, "-P", tagging_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._requests = cast(IO[bytes], self._process.stdin)
        self._replies = cast(IO[bytes], self._process.stdout)
        self._first_requests: list[Any] = [(sys.path, nltk.data.path), annotation]

    def annotate(self, path: Path, documents: RawShard) -> Exception | None:
        """Annotates a shard. Returns what went wrong."""
        for request in (*self._first_requests, (path, documents)):
            pickle.dump(request, self._requests)
        self._first_requests = []
        self._requests.flush()
        return pickle.load(self._replies)

    def end(self) -> int:
        """Ends the process. Returns its status, negative if a signal has ended it before."""
        try:
            self._requests.close()
        except BrokenPipeError:  # a request was on its way
            self._process.kill()
        self._replies.close()
        return self._process.wait()


def _annotate(
    idle: queue.LifoQueue, annotation: Annotation, path: Path, documents: RawShard
) -> None:
    process: _TaggingProcess | None = idle.get()
    try:
        for _ in range(_MOST_ENDED):
            used = process = process or _TaggingProcess(annotation)
            try:
                error = used.annotate(path, documents)
            except (BrokenPipeError, EOFError, pickle.UnpicklingError):
                process, status = None, used.end()
                warnings.warn(
                    f"A process that tags has ended with status {status}; another one takes over",
                    stacklevel=1,
                )
            else:
                if error is not None:
                    raise error
                return
    finally:
        idle.put(process)
    raise ChildProcessError(
        "The processes that tag must not be killed before they are done. Received: "
        f"{_MOST_ENDED} in a row that ended at {path.name}, the last with status {status}. "
        "What is tagged is kept: start again, with fewer `workers` if memory was short"
    )


def _collect(running: set[Future], advance: Callable[[], None]) -> set[Future]:
    done, running = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        advance()
    return running
