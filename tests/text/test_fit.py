"""Keras trains on the batches of masked text."""

import keras
import numpy as np
from synthetic_text import ENCODER, LENGTH, SyntheticText

from keras_taskrobust.text import PosMasking, masked_batches


def test_fit_takes_the_batches():
    token_ids = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    outputs = keras.layers.Dense(1, name="next_sentence")(
        keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(100, 4)(token_ids))
    )
    model = keras.Model({"token_ids": token_ids}, {"next_sentence": outputs})
    model.compile("sgd", loss={"next_sentence": "mse"})
    dataset = masked_batches(SyntheticText(103), PosMasking(ENCODER), 10).map(
        lambda batch: (
            {"token_ids": batch[0]["token_ids"]},
            {"next_sentence": batch[1]["next_sentence"]},
        )
    )
    history = model.fit(dataset, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
