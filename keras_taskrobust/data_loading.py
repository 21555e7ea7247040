"""Batches prepared while the model trains: enough of them, and no more than memory has room for.

`grain` alone prepares 500 elements ahead, in every process: of batches of 256 images of 224 pixels,
with depth and labels, 100 GB.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grain

#: The part of a batch that is all of it, see `rows_of_part`.
WHOLE = (0, 1)
_MOST_THREADS = 8


def rows_of_part(batch_size: int, part: tuple[int, int]) -> range:
    """The rows of a batch that are one of its equal parts.

    Args:
        batch_size: int, the rows of all parts.
        part: `(i, n)`, the i-th of n parts, from 0.

    Raises:
        ValueError: there is no such part, or the batch has no equal parts.

    Example:

    >>> rows_of_part(6, (1, 3))
    range(2, 4)
    """
    index, number = part
    if not 0 <= index < number:
        raise ValueError(f"`part` must be (i, n) with 0 <= i < n. Received: part={part}")
    if batch_size % number:
        raise ValueError(
            f"`batch_size` must be a multiple of {number}, the number of parts. "
            f"Received: batch_size={batch_size}"
        )
    rows = batch_size // number
    return range(index * rows, (index + 1) * rows)


def part_of_batches(dataset: "grain.MapDataset", part: tuple[int, int]) -> "grain.MapDataset":
    """Makes of each batch one of its equal parts, see `rows_of_part`.

    Args:
        dataset: `grain.MapDataset` of batches `(x, y)`, which are prepared whole.
        part: `(i, n)`, the i-th of n parts, from 0.
    """

    def cut(batch):
        inputs, targets = batch
        rows = rows_of_part(len(targets), part)
        some = slice(rows.start, rows.stop)
        return {name: array[some] for name, array in inputs.items()}, targets[some]

    return dataset if part == WHOLE else dataset.map(cut)


def read_ahead(dataset: "grain.MapDataset") -> "grain.IterDataset":
    """Prepares the next batches in threads while the last one is used.

    Args:
        dataset: `grain.MapDataset` of batches.

    Returns:
        `grain.IterDataset` of the same batches. There are as many threads as cores, up to 8, and
        two batches a thread are ready.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    return dataset.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))


def with_workers(
    dataset: "grain.MapDataset", num_workers: int
) -> "grain.MapDataset | grain.IterDataset":
    """Lets processes make the batches. They end with the one that reads them.

    Args:
        dataset: `grain.MapDataset` of batches.
        num_workers: int, the processes; 0 for none.

    Returns:
        `dataset`, or a `grain.IterDataset` of the same batches, two or three of which are ready in
        each process.
    """
    if num_workers == 0:
        return dataset
    import grain  # here, because it imports JAX wherever JAX is installed
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain's workers read absl's flags, which only apps parse
        flags.FLAGS.mark_as_parsed()
    each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    processes = grain.MultiprocessingOptions(num_workers=num_workers)
    return dataset.to_iter_dataset(each).mp_prefetch(processes, worker_init_fn=end_with_parent)


def batches_for_fit(dataset: "grain.MapDataset | grain.IterDataset") -> Iterator[tuple]:
    """Generates the batches of a data set for one `fit`, and closes it in the end.

    Keras opens a data set of `grain` twice, once only to see the shapes of two batches. Of a
    generator it takes these two and goes on with the same one.

    Args:
        dataset: `grain.MapDataset`, which is read ahead, or `grain.IterDataset`.

    Yields:
        The batches, each a tuple, as `fit` wants them of a generator.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    iterator = iter(read_ahead(dataset) if isinstance(dataset, grain.MapDataset) else dataset)
    try:
        for batch in iterator:
            yield batch if isinstance(batch, tuple) else (batch,)
    finally:
        iterator.close()


def end_with_parent(*ignored: int) -> None:
    """Ends a process once its parent was killed: it would wait for it for ever."""

    def watch(parent):
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent saves first
    parent = multiprocessing.parent_process()
    threading.Thread(target=watch, args=(parent,), daemon=True).start()
