"""Fixtures of the weighting tests."""

import keras
import pytest
from keras.src.saving import object_registration

from keras_taskrobust.weighting import registry as weighting_registry


@pytest.fixture(autouse=True, scope="module")
def _no_rank_promotion():
    """With JAX, `(K,)` against `(K, K)` is an error unless it is asked for."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    before = jax.config.jax_numpy_rank_promotion
    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_numpy_rank_promotion", before)


@pytest.fixture
def registry():
    """The registry of weightings; it and Keras's registry of classes are restored afterwards."""
    mappings = (
        weighting_registry._REGISTRY,
        object_registration.GLOBAL_CUSTOM_OBJECTS,
        object_registration.GLOBAL_CUSTOM_NAMES,
    )
    before = [dict(mapping) for mapping in mappings]
    yield weighting_registry._REGISTRY
    for mapping, content in zip(mappings, before, strict=True):
        mapping.clear()
        mapping.update(content)
