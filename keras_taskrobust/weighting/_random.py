"""Random numbers from a counter: stateless, resumable, and the same on every backend.

Each task owns a stream, so that an absent task does not change what the others draw, and a task
keeps its numbers wherever it stands in the list.
"""

from keras import ops

from keras_taskrobust.types import Tensor

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))
_STRIDES = (0x632BE5AB, 0x9E3779B9 - (1 << 32))

#: The counter starts over where float32 stops counting whole numbers.
PERIOD = float(2**24)


def advanced(step: Tensor) -> Tensor:
    """The counter `step` (a float32 variable) after one call."""
    following = step + 1.0
    return ops.where(following < PERIOD, following, 0.0)


def uniform(seed: int, step: Tensor, *streams: Tensor) -> Tensor:
    """Numbers uniform in (0, 1), one for each entry of the broadcast `streams`.

    A 32-bit integer hash of the arguments (two rounds of "lowbias32" a counter).

    Args:
        seed: int.
        step: float32 scalar, a whole number below `PERIOD`.
        streams: float32 tensors of whole numbers, of one rank.

    Returns:
        float32 of the streams' broadcast shape.
    """
    bits = _mix(ops.cast(step, "int32") + _signed(seed))
    for stream, stride in zip(streams, _STRIDES, strict=False):
        bits = _mix(bits + ops.cast(stream, "int32") * stride)
    upper = ops.right_shift(bits, 9) & 0x7FFFFF
    return (ops.cast(upper, "float32") + 0.5) * 2.0**-23


def normal(seed: int, step: Tensor, stream: Tensor) -> Tensor:
    """Standard normal numbers, one for each entry of `stream`."""
    radius = ops.sqrt(-2.0 * ops.log(uniform(seed, step, stream, ops.zeros_like(stream))))
    angle = 6.2831853 * uniform(seed, step, stream, ops.ones_like(stream))
    return radius * ops.cos(angle)


def _mix(bits):
    """The "lowbias32" hash of 32-bit integers, in wrapping signed arithmetic."""
    bits = (bits ^ (ops.right_shift(bits, 16) & 0xFFFF)) * _MULTIPLIERS[0]
    bits = (bits ^ (ops.right_shift(bits, 15) & 0x1FFFF)) * _MULTIPLIERS[1]
    return bits ^ (ops.right_shift(bits, 16) & 0xFFFF)


def _signed(seed: int) -> int:
    """`seed` spread over 32 bits, as a signed integer."""
    bits = (seed * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF
    return bits - (1 << 32) if bits >= 1 << 31 else bits
