"""The parts of a corpus tagged by Apache Beam, on whatever it runs on. Needs the extra `beam`."""

import functools
import os
from typing import Any

import apache_beam

from keras_taskrobust import checks
from keras_taskrobust.parts import Part
from keras_taskrobust.text.tagged_parts import annotate_part


class AnnotateParts(apache_beam.PTransform):
    """Tags a corpus in parts, each by a worker, as `annotate_part` does.

    Afterwards `annotate` with the same source and settings joins them: the result is, to the byte,
    that of `annotate` alone. Workers must see corpus and folder under the same paths, and have the
    same versions of this package, NLTK and TextBlob.

    Args:
        source: string, path or sequence of documents, as in `annotate_part`.
        directory: path of the folder.
        parts: int, how many. More than workers, so that none waits long for the last.
        **settings: further arguments of `annotate_part`. One process a part (`workers=1`) and no
            progress bar are the defaults.

    Returns:
        `PCollection` of tuples: a part, such as `"2/8"`, and the number of its documents.

    Example:

    ```python
    with apache_beam.Pipeline(options=options) as pipeline:
        pipeline | AnnotateParts("wiki.jsonl", "text", parts=64)
    text = annotate("wiki.jsonl", "text", 30522)
    ```
    """

    def __init__(self, source: Any, directory: str | os.PathLike, parts: int, **settings: Any):
        super().__init__()
        self._parts = checks.integer("parts", parts, least=1)
        settings = {"workers": 1, "progress": False, **settings}
        self._annotate = functools.partial(_annotate, source, os.fspath(directory), settings)

    def expand(self, pipeline):
        parts = [str(Part(number, self._parts)) for number in range(1, self._parts + 1)]
        return pipeline | apache_beam.Create(parts) | apache_beam.Map(self._annotate)


def _annotate(source, directory, settings, part):
    return part, annotate_part(source, directory, part, **settings)
