"""Annotated text made up of random numbers."""

import numpy as np

from keras_taskrobust.text import SPECIAL_TOKENS, WordPieceEncoder

NUM_RECORDS, LENGTH = 10_000, 64
PAD, UNKNOWN, CLS, SEPARATOR, MASK = range(5)
ENCODER = WordPieceEncoder([*SPECIAL_TOKENS, *(f"piece{number}" for number in range(95))])


class SyntheticText:
    """Records of random pieces, tasks, word lengths and lengths."""

    def __init__(self, num_records=NUM_RECORDS):
        random = np.random.default_rng(0)
        shape = (num_records, LENGTH)
        positions = np.arange(LENGTH)
        self.lengths = random.integers(3, LENGTH + 1, num_records).astype(np.int32)
        ends = self.lengths[:, None] - 1
        content = (positions > 0) & (positions < ends)
        ids = random.integers(5, 100, shape)
        ids[random.random(shape) < 0.05] = UNKNOWN
        ids = np.where(content, ids, PAD)
        ids[:, 0] = CLS
        self.token_ids = np.where(positions == ends, SEPARATOR, ids).astype(np.int32)
        words = np.cumsum((random.random(shape) < 0.7) & content, axis=1)
        self.word_ids = np.where(content, words, -1).astype(np.int32)
        tasks = np.take_along_axis(random.integers(-1, 9, shape), words, axis=1)
        self.tasks = np.where(content, tasks, -1).astype(np.int8)
        self.next_sentence = random.integers(0, 2, num_records).astype(np.int32)

    def __len__(self):
        return len(self.lengths)

    def batch(self, indices):
        return {
            "record": indices,
            "token_ids": self.token_ids[indices],
            "tasks": self.tasks[indices],
            "word_ids": self.word_ids[indices],
            "segment_ids": np.zeros((len(indices), LENGTH), np.int32),
            "lengths": self.lengths[indices],
            "next_sentence": self.next_sentence[indices],
        }

    def everything(self):
        return self.batch(np.arange(len(self)))
