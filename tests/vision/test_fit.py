"""Keras trains on the batches of images."""

import keras
import numpy as np

from keras_taskrobust.vision.batches import image_batches
from keras_taskrobust.vision.scenes import ProceduralScenes


def test_fit_takes_the_batches():
    inputs = {
        "rgb": keras.Input((8, 8, 3), name="rgb"),
        "depth": keras.Input((8, 8, 1), name="depth"),
    }
    mean = keras.layers.GlobalAveragePooling2D()(inputs["rgb"])

    class Halving(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y_pred - keras.ops.mean(x["depth"])))

    model = Halving(inputs, keras.layers.Dense(1)(mean))
    model.compile("sgd")
    batches = image_batches(ProceduralScenes(8, 8, 8), 4, 8, modalities=("rgb", "depth"))
    history = model.fit(batches, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
