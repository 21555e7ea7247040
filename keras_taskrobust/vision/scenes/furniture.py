"""Furniture: pieces made of boxes, ellipsoids and cylinders."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras_taskrobust.vision.class_sets import NYU_13
from keras_taskrobust.vision.scenes.geometry import BOX, CYLINDER, ELLIPSOID
from keras_taskrobust.vision.scenes.materials import (
    Draws,
    Material,
    Vector,
    fabric,
    linear,
    material,
    metal,
    painted,
    scaled,
    wooden,
)


class Part(NamedTuple):
    """One body of a piece of furniture, in the piece's own axes (front: +y; floor: z = 0)."""

    kind: int
    centre: Vector
    half: Vector
    label: int
    material: Material


class Piece(NamedTuple):
    """A piece of furniture.

    Attributes:
        parts: list of `Part`.
        width: float metres, along x.
        depth: float metres, along y.
        top: float metres, the height of the surface on which objects may stand; 0: none.
    """

    parts: list[Part]
    width: float
    depth: float
    top: float = 0.0

    @property
    def span(self) -> tuple[float, float]:
        """Its lowest and highest point, metres."""
        heights = [(part.centre[2], part.half[2]) for part in self.parts]
        return min(z - half for z, half in heights), max(z + half for z, half in heights)


def label_of(name: str) -> int:
    """The label of a class of a scene."""
    return NYU_13.index(name)


def bed(draws: Draws) -> Piece:
    """A bed, its head at the back."""
    label = label_of("bed")
    width, depth, top = draws.number(0.95, 1.9), draws.number(1.9, 2.15), draws.number(0.42, 0.6)
    frame, sheet, cover = wooden(draws), painted(draws, 0.0), fabric(draws)
    head = draws.number(0.25, 0.55)
    parts = [
        _box(width, depth, top - 0.2, 0, 0, 0.08, label, frame),
        _box(width - 0.06, depth - 0.06, 0.18, 0, 0, top - 0.14, label, sheet),
        _box(width + 0.02, depth * 0.66, 0.2, 0, depth * 0.17, top - 0.13, label, cover),
        _box(width + 0.06, 0.06, top + head, 0, 0.03 - depth / 2, 0, label, frame),
    ]
    pillow = painted(draws, 0.0)
    for side in (-1, 1) if width > 1.35 else (0,):
        centre = (side * width * 0.24, 0.34 - depth / 2, top + 0.09)
        half = (0.3, 0.2, 0.09)
        parts.append(Part(ELLIPSOID, centre, half, label_of("objects"), pillow))
    return Piece(parts, width, depth)


def sofa(draws: Draws) -> Piece:
    """A sofa or an armchair."""
    label = label_of("sofa")
    width, depth = draws.choice((0.9, 1.5, 1.9, 2.2)), draws.number(0.8, 0.95)
    cloth, back, arm = fabric(draws), draws.number(0.7, 0.9), draws.number(0.12, 0.2)
    parts = [
        _box(width, depth, 0.34, 0, 0, 0.06, label, cloth),
        _box(width, 0.2, back, 0, 0.1 - depth / 2, 0.06, label, cloth),
        _box(arm, depth, 0.58, (arm - width) / 2, 0, 0.06, label, cloth),
        _box(arm, depth, 0.58, (width - arm) / 2, 0, 0.06, label, cloth),
    ]
    inner = width - 2 * arm
    seats = max(1, round(inner / 0.65))
    for seat in range(seats):
        x = inner * ((seat + 0.5) / seats - 0.5)
        parts.append(_box(inner / seats - 0.02, depth - 0.24, 0.1, x, 0.1, 0.4, label, cloth))
    if draws.chance(0.6):
        x = draws.number(-0.35, 0.35) * inner
        cushion = (x, 0.3 - depth / 2, 0.66)
        parts.append(Part(ELLIPSOID, cushion, (0.2, 0.1, 0.19), label_of("objects"), fabric(draws)))
    return Piece(parts, width, depth)


def cabinet(draws: Draws) -> Piece:
    """A cupboard, a chest of drawers or a wardrobe."""
    label = label_of("furniture")
    width, depth = draws.number(0.6, 1.4), draws.number(0.4, 0.6)
    height = draws.choice((0.75, 0.9, 1.2, 1.9, 2.1))
    body, handle = wooden(draws), metal(draws)
    parts = [_box(width, depth, height, 0, 0, 0, label, body)]
    rows, columns = max(1, round(height / 0.5)), 2 if width > 0.9 else 1
    for row in range(rows):
        for column in range(columns):
            wide, high = width / columns - 0.03, height / rows - 0.03
            x, z = width * ((column + 0.5) / columns - 0.5), height * row / rows + 0.015
            parts.append(_box(wide, 0.03, high, x, depth / 2 + 0.01, z, label, body))
            parts.append(
                _box(0.12, 0.03, 0.025, x, depth / 2 + 0.035, z + high * 0.7, label, handle)
            )
    return Piece(parts, width, depth + 0.06, height if height < 1.3 else 0.0)


def bookcase(draws: Draws) -> Piece:
    """Shelves with books."""
    label, books = label_of("furniture"), label_of("books")
    width, depth, shelves = draws.number(0.7, 1.3), draws.number(0.28, 0.38), 3 + draws.index(3)
    step = draws.number(0.32, 0.4)
    height = shelves * step + 0.03
    board = wooden(draws)
    parts = [
        _box(width, 0.03, height, 0, 0.015 - depth / 2, 0, label, board),
        _box(0.03, depth, height, 0.015 - width / 2, 0, 0, label, board),
        _box(0.03, depth, height, width / 2 - 0.015, 0, 0, label, board),
    ]
    for shelf in range(shelves + 1):
        parts.append(_box(width, depth, 0.03, 0, 0, shelf * step, label, board))
    for shelf in range(shelves):
        left, inner = 0.04 - width / 2, width - 0.08
        while inner > 0.12 and draws.chance(0.85):
            length = min(inner, draws.number(0.12, 0.5))
            spines = material(
                draws,
                "spines",
                draws.colour((0.4, 0.9), (0.2, 0.9)),
                draws.colour((0.2, 0.9), (0.4, 1.0)),
                scale=0.035,
            )
            tall = draws.number(0.18, step - 0.06)
            z = shelf * step + 0.03
            parts.append(_box(length, 0.2, tall, left + length / 2, -0.02, z, books, spines))
            gap = draws.number(0.02, 0.15)
            left, inner = left + length + gap, inner - length - gap
    return Piece(parts, width, depth)


def table(draws: Draws) -> Piece:
    """A dining table, a desk or a low table, square or round."""
    label = label_of("table")
    height = draws.choice((0.42, 0.74, 0.74))
    width, depth = draws.number(0.8, 1.6), draws.number(0.6, 0.9)
    top, leg = wooden(draws), draws.choice((wooden, metal))(draws)
    if draws.chance(0.3):
        radius = depth * 0.7
        parts = [
            _cylinder(radius, 0.04, 0, 0, height - 0.04, label, top),
            _cylinder(0.05, height - 0.06, 0, 0, 0.03, label, leg),
            _cylinder(radius * 0.5, 0.03, 0, 0, 0, label, leg),
        ]
        return Piece(parts, 2 * radius, 2 * radius, height)
    parts = [_box(width, depth, 0.04, 0, 0, height - 0.04, label, top)]
    parts += _legs(width - 0.1, depth - 0.1, height - 0.04, label, leg)
    return Piece(parts, width, depth, height)


def chair(draws: Draws) -> Piece:
    """A chair with four legs, or a stool."""
    label = label_of("chair")
    wood, seat = (
        draws.choice((wooden, painted, metal))(draws),
        draws.choice((wooden, fabric))(draws),
    )
    width, height = draws.number(0.4, 0.5), draws.number(0.43, 0.48)
    if draws.chance(0.15):
        parts = [_cylinder(0.18, 0.05, 0, 0, height, label, seat)]
        return Piece(parts + _legs(0.24, 0.24, height, label, wood), 0.4, 0.4)
    back = draws.number(0.38, 0.5)
    parts = [
        _box(width, width, 0.05, 0, 0, height - 0.05, label, seat),
        _box(0.04, 0.04, back, 0.02 - width / 2, 0.02 - width / 2, height, label, wood),
        _box(0.04, 0.04, back, width / 2 - 0.02, 0.02 - width / 2, height, label, wood),
        _box(width, 0.03, back * 0.5, 0, 0.02 - width / 2, height + back * 0.5, label, seat),
    ]
    return Piece(
        parts + _legs(width - 0.05, width - 0.05, height - 0.05, label, wood), width, width
    )


def television(draws: Draws) -> Piece:
    """A television set on a low board."""
    label = label_of("tv")
    width, depth, top = draws.number(1.2, 1.8), 0.42, draws.number(0.4, 0.55)
    screen_width = width * draws.number(0.6, 0.85)
    screen_height = screen_width * 0.58
    black = (0.01, 0.01, 0.012)
    case = material(draws, "plain", black, black, gloss=0.8)
    picture = case
    if draws.chance(0.5):
        colours = draws.colour((0.4, 0.9), (0.4, 1.0)), draws.colour((0.4, 0.9), (0.1, 0.6))
        picture = material(draws, "painting", *colours, scale=0.15, emission=0.5, gloss=0.3)
    z = top + 0.06
    parts = [
        _box(width, depth, top, 0, 0, 0, label_of("furniture"), wooden(draws)),
        _box(0.3, 0.2, 0.03, 0, -0.05, top, label, case),
        _box(0.08, 0.04, 0.1, 0, -0.07, top, label, case),
        _box(screen_width, 0.05, screen_height, 0, -0.05, z, label, case),
        _box(screen_width - 0.04, 0.02, screen_height - 0.04, 0, -0.02, z + 0.02, label, picture),
    ]
    return Piece(parts, width, depth)


def standing_lamp(draws: Draws) -> Piece:
    """A lamp on a pole."""
    label, height = label_of("objects"), draws.number(1.35, 1.7)
    pole = metal(draws)
    warm = (0.95, 0.8, 0.55)
    shade = material(draws, "plain", warm, (0.9, 0.7, 0.4), emission=draws.choice((0.2, 1.2)))
    parts = [
        _cylinder(0.14, 0.03, 0, 0, 0, label, pole),
        _cylinder(0.015, height, 0, 0, 0, label, pole),
        _cylinder(draws.number(0.14, 0.22), 0.28, 0, 0, height - 0.14, label, shade),
    ]
    return Piece(parts, 0.4, 0.4)


def plant(draws: Draws) -> Piece:
    """A pot plant."""
    label = label_of("objects")
    green = linear(draws.number(0.22, 0.4), draws.number(0.5, 0.9), draws.number(0.2, 0.55))
    leaf = material(draws, "marbled", green, scaled(green, 0.35), scale=0.05)
    size, pot = draws.number(0.5, 1.0), draws.number(0.12, 0.2)
    parts = [
        _cylinder(pot, 0.3, 0, 0, 0, label, painted(draws, 0.3)),
        _cylinder(0.02, size * 0.5, 0, 0, 0.3, label, wooden(draws)),
    ]
    for _ in range(3 + draws.index(4)):
        angle, away = draws.number(0, 2 * math.pi), draws.number(0, 0.2) * size
        centre = (
            away * math.cos(angle),
            away * math.sin(angle),
            0.3 + size * draws.number(0.35, 0.9),
        )
        wide, deep, high = (size * draws.number(0.1, 0.26) for _ in range(3))
        parts.append(Part(ELLIPSOID, centre, (wide, deep, high), label, leaf))
    return Piece(parts, 0.5, 0.5)


def toy(draws: Draws) -> Piece:
    """A ball, a carton, a bin or a basket on the floor."""
    label, size = label_of("objects"), draws.number(0.12, 0.28)
    look = draws.choice((fabric, painted, wooden))(draws)
    parts = draws.choice(
        (
            [Part(ELLIPSOID, (0, 0, size), (size, size, size), label, look)],
            [_box(2 * size, 1.6 * size, 1.5 * size, 0, 0, 0, label, look)],
            [_cylinder(size * 0.7, 2 * size, 0, 0, 0, label, look)],
        )
    )
    return Piece(parts, 2 * size, 2 * size)


def trinket(draws: Draws) -> Piece:
    """Something small to put on a table."""
    label = label_of("objects")
    size = draws.number(0.05, 0.11)
    kind = draws.index(5)
    if kind == 0:
        parts = [Part(ELLIPSOID, (0, 0, size), (size, size, size), label, painted(draws, 0.5))]
    elif kind == 1:
        parts = [_cylinder(size * 0.7, size * 3, 0, 0, 0, label, painted(draws, 0.5))]
    elif kind == 2:
        books = label_of("books")
        parts = [_box(0.3, 0.2, 0.03, 0, 0, 0.03 * i, books, painted(draws)) for i in range(4)]
    elif kind == 3:
        parts = [_box(3 * size, 2 * size, 1.5 * size, 0, 0, 0, label, fabric(draws))]
    else:
        warm = material(draws, "plain", (0.95, 0.85, 0.6), (0.9, 0.7, 0.4), emission=0.8)
        parts = [
            _cylinder(0.05, 0.3, 0, 0, 0, label, metal(draws)),
            _cylinder(0.13, 0.18, 0, 0, 0.28, label, warm),
        ]
    return Piece(parts, 0.3, 0.3)


def rug(draws: Draws) -> Piece:
    """A rug, square or oval."""
    width, depth, label = draws.number(1.4, 2.6), draws.number(1.0, 1.8), label_of("floor")
    if draws.chance(0.3):
        half = (width / 2, depth / 2, 0.006)
        return Piece([Part(CYLINDER, (0, 0, 0.006), half, label, fabric(draws))], width, depth)
    return Piece([_box(width, depth, 0.012, 0, 0, 0, label, fabric(draws))], width, depth)


def framed_picture(draws: Draws) -> Piece:
    """A picture on a wall."""
    width, height = draws.number(0.4, 1.1), draws.number(0.4, 0.8)
    z, label = 1.55 - height / 2, label_of("picture")
    colours = draws.colour((0.2, 0.9), (0.3, 1.0)), draws.colour((0.2, 0.9), (0.1, 0.9))
    canvas = material(draws, "painting", *colours, scale=draws.number(0.08, 0.25))
    parts = [
        _box(width, 0.04, height, 0, 0.02, z, label, wooden(draws)),
        _box(width - 0.1, 0.02, height - 0.1, 0, 0.04, z + 0.05, label, canvas),
    ]
    return Piece(parts, width, 0.05)


def window(draws: Draws) -> Piece:
    """A window with a view, with or without curtains."""
    width, height, z = draws.number(0.8, 1.8), draws.number(0.9, 1.3), draws.number(0.8, 1.0)
    label, frame = label_of("window"), painted(draws)
    blue = linear(draws.number(0.53, 0.62), draws.number(0.1, 0.6), 1.0)
    land = linear(draws.number(0.1, 0.4), draws.number(0.2, 0.6), draws.number(0.2, 0.6))
    pane = material(draws, "view", blue, land, scale=0.7, emission=draws.number(1.0, 2.0))
    parts = [_box(width, 0.02, height, 0, 0.01, z, label, pane)]
    for x in (-width / 2, 0, width / 2):
        parts.append(_box(0.06, 0.06, height + 0.06, x, 0.03, z - 0.03, label, frame))
    for bar in (z - 0.06, z + height):
        parts.append(_box(width + 0.06, 0.08, 0.06, 0, 0.04, bar, label, frame))
    if draws.chance(0.5):
        cloth = fabric(draws)
        for side in (-1, 1):
            x = side * (width / 2 + 0.1)
            parts.append(_box(0.32, 0.08, height + 0.5, x, 0.1, z - 0.35, label, cloth))
    return Piece(parts, width + 0.4, 0.16)


def door(draws: Draws) -> Piece:
    """A closed door; its class is "wall"."""
    label, leaf, frame = label_of("wall"), wooden(draws), painted(draws)
    parts = [
        _box(0.98, 0.04, 2.06, 0, 0.02, 0, label, frame),
        _box(0.86, 0.03, 2.0, 0, 0.035, 0, label, leaf),
        Part(ELLIPSOID, (0.36, 0.08, 1.0), (0.03, 0.03, 0.03), label, metal(draws)),
    ]
    return Piece(parts, 1.0, 0.1)


#: What stands against a wall, on the floor somewhere, and what hangs on a wall.
WALL_PIECES: tuple[Callable[[Draws], Piece], ...] = (
    bed,
    sofa,
    sofa,
    cabinet,
    cabinet,
    bookcase,
    bookcase,
    television,
    table,
)
FLOOR_PIECES: tuple[Callable[[Draws], Piece], ...] = (chair, chair, standing_lamp, plant, toy, toy)
HUNG_PIECES: tuple[Callable[[Draws], Piece], ...] = (framed_picture, framed_picture, window, door)


def _box(
    width: float,
    depth: float,
    height: float,
    x: float,
    y: float,
    bottom: float,
    label: int,
    look: Material,
) -> Part:
    centre = (x, y, bottom + height / 2)
    return Part(BOX, centre, (width / 2, depth / 2, height / 2), label, look)


def _cylinder(
    radius: float, height: float, x: float, y: float, bottom: float, label: int, look: Material
) -> Part:
    return Part(CYLINDER, (x, y, bottom + height / 2), (radius, radius, height / 2), label, look)


def _legs(width: float, depth: float, height: float, label: int, look: Material) -> list[Part]:
    corners = [(x, y) for x in (-width / 2, width / 2) for y in (-depth / 2, depth / 2)]
    return [_box(0.05, 0.05, height, x, y, 0, label, look) for x, y in corners]
