"""Types that signatures of all rooms share."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend at hand, or what Keras takes for one: an array, a variable, a number.

Keras has no type for it: TensorFlow, JAX and PyTorch each have their own.
"""
