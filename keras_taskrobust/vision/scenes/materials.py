"""Random numbers, colours and materials of procedural scenes."""

import colorsys
import random
from typing import NamedTuple

from keras_taskrobust.vision.scenes.textures import PATTERNS

Vector = tuple[float, float, float]

_FABRICS = ("plain", "stripes", "checks", "marbled", "dots")


class Draws:
    """A stream of random numbers that is the same on every machine and Python.

    Args:
        key: string. Equal keys give equal streams.
    """

    def __init__(self, key: str):
        self._next = random.Random(key).random

    def number(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return low + (high - low) * self._next()

    def index(self, size: int) -> int:
        """An integer in `range(size)`."""
        return int(self._next() * size)

    def choice(self, values):
        """One of the values."""
        return values[self.index(len(values))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._next() < probability

    def colour(self, saturation: tuple[float, float], value: tuple[float, float]) -> Vector:
        """A colour of any hue: linear RGB."""
        hue = self._next()
        return linear(hue, self.number(*saturation), self.number(*value))


class Material(NamedTuple):
    """How a part looks; the numbers are those of `geometry.Parts`."""

    pattern: int
    colours: tuple[Vector, Vector]
    scale: float = 0.3
    phase: float = 0.0
    gloss: float = 0.0
    emission: float = 0.0


def material(
    draws: Draws, pattern: str, first: Vector, second: Vector, **numbers: float
) -> Material:
    """A material with a random phase."""
    phase = draws.number(0, 6)
    return Material(PATTERNS.index(pattern), (first, second), phase=phase, **numbers)


def painted(draws: Draws, gloss: float = 0.1) -> Material:
    """One colour."""
    colour = draws.colour((0.1, 0.8), (0.25, 0.9))
    return material(draws, "plain", colour, scaled(colour, 0.7), gloss=gloss)


def wooden(draws: Draws) -> Material:
    """Wood, from white to dark brown."""
    colour = linear(draws.number(0.05, 0.11), draws.number(0.15, 0.65), draws.number(0.3, 0.9))
    return material(draws, "wood", colour, scaled(colour, 0.55), scale=0.3, gloss=0.15)


def fabric(draws: Draws) -> Material:
    """Cloth, plain or patterned."""
    colour = draws.colour((0.1, 0.75), (0.25, 0.9))
    other = draws.colour((0.0, 0.6), (0.3, 0.95))
    pattern = draws.choice(_FABRICS)
    second = scaled(colour, 0.6) if pattern in ("plain", "marbled") else other
    return material(draws, pattern, colour, second, scale=draws.number(0.06, 0.2))


def metal(draws: Draws) -> Material:
    """Grey and shiny."""
    grey = draws.number(0.05, 0.5)
    return material(draws, "plain", (grey, grey, grey), (grey, grey, grey), gloss=0.6)


def linear(hue: float, saturation: float, value: float) -> Vector:
    """Linear RGB of a hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return red * red, green * green, blue * blue


def scaled(colour: Vector, factor: float) -> Vector:
    """A brighter or darker colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
