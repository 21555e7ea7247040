"""Batches prepared while the model trains: enough of them, and no more than memory has room for."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grain

_MOST_THREADS = 8


def read_ahead(dataset: "grain.MapDataset", num_workers: int = 0) -> "grain.IterDataset":
    """Prepares the next batches in threads or processes while the last one is used.

    `grain` alone prepares 500 elements ahead, in every process. Of 256 images with depth and
    labels these are 100 GB.

    Args:
        dataset: `grain.MapDataset` of batches.
        num_workers: int, the processes; each has one batch or two ready. By default none, but as
            many threads as there are cores, up to 8, and two batches a thread.

    Returns:
        `grain.IterDataset` of the same batches, whose iterator can save and restore its position.
    """
    import grain  # here, because it imports JAX wherever JAX is installed

    if num_workers == 0:
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        return dataset.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
    _mark_flags_as_parsed()
    each = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    processes = grain.MultiprocessingOptions(num_workers=num_workers)
    return dataset.to_iter_dataset(each).mp_prefetch(processes)


def batches_for_fit(dataset: "grain.MapDataset", num_workers: int = 0) -> Iterator[Any]:
    """Generates the batches of a data set for one `fit`, as `read_ahead` prepares them.

    Keras opens a data set of `grain` twice, once only to see the shapes of two batches. Of a
    generator it takes these two and goes on with the same one.

    Args:
        dataset: `grain.MapDataset` of batches.
        num_workers: int, see `read_ahead`.

    Yields:
        The batches.
    """
    iterator = iter(read_ahead(dataset, num_workers))
    try:
        yield from iterator
    finally:
        iterator.close()


def _mark_flags_as_parsed() -> None:
    """The workers of `grain` read absl's flags, which only absl's own programs parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
