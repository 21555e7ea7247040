"""How often each word piece is a target of each task, and the distributions that follow from it."""

import dataclasses
import functools

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.text.masking import PosMasking, RecordSource, check_fit

_RECORDS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class TargetCounts:
    """How often each word piece is a token that the masking may choose, by task.

    With `q_k(w) = P(task k | word piece w)`, what a masked language model predicts of a word and
    what it predicts of its task come apart:

        P(k | context) = sum_v p(v | context) q_k(v)
        p(w | context, k) = p(w | context) q_k(w) / P(k | context)
        -log p(w | context) = -log p(w | context, k) - log P(k | context) + log q_k(w)

    the loss within the task, that of the task's prior, and a term that no prediction enters.

    Args:
        counts: `(K, V)` integers.

    Example:

    >>> nouns_and_verbs = TargetCounts(np.array([[3, 0, 1], [0, 3, 1]]))
    >>> np.exp(nouns_and_verbs.log_task_shares)
    array([[0.875, 0.125, 0.5  ],
           [0.125, 0.875, 0.5  ]], dtype=float32)
    """

    counts: np.ndarray

    @functools.cached_property
    def log_task_shares(self) -> np.ndarray:
        """`(K, V)` float32, `log q_k(w)`.

        Each piece counts once more than it was seen, spread over the tasks as all targets are: no
        task is impossible, and a piece never seen has the tasks of all others.
        """
        of_tasks = self.counts.sum(1, keepdims=True) + 1
        shares = (self.counts + of_tasks / of_tasks.sum()) / (self.counts.sum(0) + 1)
        return np.log(shares).astype("float32")

    @functools.cached_property
    def log_frequencies(self) -> np.ndarray:
        """`(K, V)` float64, `log P(w | k)`: the best constant prediction within each task.

        Each task counts one target more than was seen, spread evenly over the pieces.
        """
        smoothed = self.counts + 1 / self.counts.shape[1]
        return np.log(smoothed / (self.counts.sum(1, keepdims=True) + 1))

    @functools.cached_property
    def log_mixture(self) -> np.ndarray:
        """`(V,)` float64: `log_frequencies`, mixed evenly over the tasks that have targets.

        The best constant prediction of a network that is not told the task.
        """
        seen = self.counts.any(1)
        return np.log(np.exp(self.log_frequencies[seen]).mean(0))

    @functools.cached_property
    def log_task_priors(self) -> np.ndarray:
        """`(K,)` float64: what `log_mixture` says of the tasks, `log sum_v mix(v) q_k(v)`."""
        return np.log(np.exp(self.log_mixture + self.log_task_shares).sum(1))

    def trivial_losses(self, task_loss: str = "full") -> np.ndarray:
        """The mean loss of the counted targets under the best constant prediction.

        Args:
            task_loss: `"full"` for `log_mixture`, or `"within"` for `log_frequencies`.

        Returns:
            `(K,)` float64; for a task without targets that of pieces drawn evenly.
        """
        checks.choice("task_loss", task_loss, ("full", "within"))
        log_p = self.log_mixture if task_loss == "full" else self.log_frequencies
        targets = np.where(self.counts.any(1, keepdims=True), self.counts, 1)
        return -(targets * log_p).sum(1) / targets.sum(1)


def count_targets(text: RecordSource, masking: PosMasking) -> TargetCounts:
    """Counts the tokens that may be masked, each as often as it stands in a record.

    Args:
        text: an `AnnotatedText` (or another source with `len` and `batch`).
        masking: a `PosMasking`, whose groups are the tasks.

    Returns:
        `TargetCounts`, with a row for each of `masking.group_names`.

    Raises:
        ValueError: the text has other tasks or another vocabulary than the masking.

    Example:

    ```python
    counts = count_targets(text, masking)
    model = PosBert(backbone, task_loss="within", log_task_shares=counts.log_task_shares)
    ```
    """
    check_fit(text, masking)
    shape = len(masking.group_names), masking.vocabulary_size
    counts = np.zeros(shape[0] * shape[1], np.int64)
    for start in range(0, len(text), _RECORDS_AT_ONCE):
        records = text.batch(np.arange(start, min(start + _RECORDS_AT_ONCE, len(text))))
        groups = masking.groups_of_tokens(records)
        is_target = groups >= 0
        entries = groups[is_target].astype(np.int64) * shape[1] + records["token_ids"][is_target]
        counts += np.bincount(entries, minlength=counts.size)
    return TargetCounts(counts.reshape(shape))
