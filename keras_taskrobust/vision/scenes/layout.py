"""Furnished rooms: which piece stands where, the camera and the light, from one random stream."""

import math
from collections.abc import Callable

import numpy as np

from keras_taskrobust.vision.scenes.furniture import (
    FLOOR_PIECES,
    HUNG_PIECES,
    WALL_PIECES,
    Part,
    Piece,
    chair,
    label_of,
    rug,
    table,
    trinket,
)
from keras_taskrobust.vision.scenes.geometry import CYLINDER, SURFACE, Parts, Scene
from keras_taskrobust.vision.scenes.materials import Draws, Material, Vector, material, scaled

Placed = tuple[Part, float, float, float, float]  # x, y, z and yaw

_CAMERA_ROOM = 0.45  # metres kept free around the camera
_GAP = 0.06  # metres kept free around a piece


def compose_scene(seed: int, index: int) -> Scene:
    """Furnishes one room.

    Args:
        seed: int.
        index: int.

    Returns:
        `Scene`, a function of `seed` and `index` alone.
    """
    draws = Draws(f"{seed}/{index}")
    room = (draws.number(3.0, 6.5), draws.number(3.0, 6.5), draws.number(2.4, 3.1))
    camera, axes = _place_camera(draws, room)
    lamp = (
        room[0] * draws.number(0.35, 0.65),
        room[1] * draws.number(0.35, 0.65),
        room[2] - 0.15,
    )
    furnisher = _Furnisher(draws, room, camera)
    furnisher.furnish()
    if draws.chance(0.5):
        furnisher.hang_lamp(lamp)
    warmth = draws.number(-0.12, 0.12)
    bright = draws.number(0.9, 1.6)
    cold = draws.number(0.1, 0.45)
    angle = draws.number(0, 2 * math.pi)
    return Scene(
        room=np.array(room),
        parts=_stack(_surfaces(draws), furnisher.parts),
        camera=np.array(camera),
        axes=axes,
        focal=1 / math.tan(math.radians(draws.number(54, 74)) / 2),
        lamp=np.array(lamp),
        lamp_colour=bright * np.array((1 + warmth, 1.0, 1 - warmth)),
        sky=np.array((0.8 * math.cos(angle), 0.8 * math.sin(angle), 0.6)),
        sky_colour=cold * np.array((0.9, 1.0, 1.1)),
        ambient=draws.number(0.3, 0.5),
    )


class _Furnisher:
    """Puts pieces where there is room, clear of the camera.

    Args:
        draws: `Draws`.
        room: sizes of the room, metres.
        camera: position of the camera, metres.

    Attributes:
        parts: list of `(part, x, y, z, yaw)`.
    """

    def __init__(self, draws: Draws, room: Vector, camera: Vector):
        self.draws = draws
        self.room = room
        self.parts: list[Placed] = []
        x, y, _ = camera
        self._taken = [(x - _CAMERA_ROOM, y - _CAMERA_ROOM, x + _CAMERA_ROOM, y + _CAMERA_ROOM)]

    def furnish(self):
        """Fills the room: the middle, the walls, what is left of the floor."""
        self._furnish_middle()
        for wall in range(4):
            self._furnish_wall(wall)
        for _ in range(2 + self.draws.index(4)):
            self._scatter(self.draws.choice(FLOOR_PIECES))

    def hang_lamp(self, lamp):
        """Hangs a lampshade above the light."""
        x, y, z = lamp
        radius, label = self.draws.number(0.12, 0.25), label_of("objects")
        glow = material(self.draws, "plain", (1.0, 0.95, 0.85), (1.0, 0.9, 0.7), emission=2.0)
        self.parts.append(
            (Part(CYLINDER, (0, 0, 0), (radius, radius, 0.05), label, glow), x, y, z + 0.09, 0.0)
        )

    def _furnish_middle(self):
        draws = self.draws
        x, y = (size * draws.number(0.4, 0.6) for size in self.room[:2])
        yaw = draws.choice((0.0, 0.5)) * math.pi + draws.number(-0.15, 0.15)
        if draws.chance(0.5):
            self._add(rug(draws), x, y, 0.0, yaw)
        piece = table(draws)
        if not draws.chance(0.75) or not self._put(piece, x, y, yaw):
            return
        self._decorate(piece, x, y, yaw)
        for side in range(4):
            if piece.top > 0.6 and draws.chance(0.65):
                self._draw_up_chair(piece, x, y, yaw, side)

    def _draw_up_chair(self, piece, x, y, yaw, side):
        away = (piece.depth if side % 2 == 0 else piece.width) / 2 + self.draws.number(0.1, 0.35)
        direction = yaw + side * math.pi / 2
        chair_x, chair_y = x - away * math.sin(direction), y + away * math.cos(direction)
        turn = direction + math.pi + self.draws.number(-0.3, 0.3)
        # A chair may be drawn up under its table, hence only the camera is in its way.
        if self._is_inside(chair_x, chair_y, 0.3) and self._is_free(chair_x, chair_y, 0.2, 0.2, 1):
            self._add(chair(self.draws), chair_x, chair_y, 0.0, turn)

    def _furnish_wall(self, wall):
        draws = self.draws
        length = self.room[wall % 2]
        standing: list[tuple[float, float, float]] = []
        position = draws.number(0.1, 0.8)
        while position < length - 0.6:
            piece = draws.choice(WALL_PIECES)(draws)
            end = position + piece.width
            if end < length - 0.05 and draws.chance(0.75):
                x, y, _, yaw = self._along_wall(wall, (position + end) / 2, piece.depth / 2 + 0.02)
                if self._put(piece, x, y, yaw):
                    standing.append((position, end, piece.span[1]))
                    self._decorate(piece, x, y, yaw)
            position += piece.width + draws.number(0.05, 0.8)
        position = draws.number(0.2, 1.2)
        while position < length - 0.6:
            piece = draws.choice(HUNG_PIECES)(draws)
            end = position + piece.width
            is_hidden = any(
                left < end and right > position and top > piece.span[0]
                for left, right, top in standing
            )
            if end < length - 0.1 and not is_hidden:
                self._add(piece, *self._along_wall(wall, (position + end) / 2, 0.0))
            position += piece.width + draws.number(0.05, 0.6)

    def _along_wall(self, wall, position, away):
        """Where a piece stands whose back is to a wall, `away` metres from it: x, y, z, yaw."""
        width, length, _ = self.room
        return (
            (position, away, 0.0, 0.0),
            (width - away, position, 0.0, math.pi / 2),
            (position, length - away, 0.0, math.pi),
            (away, position, 0.0, -math.pi / 2),
        )[wall]

    def _scatter(self, make: Callable[[Draws], Piece]) -> None:
        piece = make(self.draws)
        x, y = (self.draws.number(0.4, size - 0.4) for size in self.room[:2])
        self._put(piece, x, y, self.draws.number(0, 2 * math.pi))

    def _decorate(self, piece, x, y, yaw):
        """Puts small things on top of a piece."""
        if not piece.top:
            return
        spots = max(1, int(piece.width / 0.4))
        for spot in range(spots):
            if self.draws.chance(0.5):
                across = piece.width * ((spot + 0.5) / spots - 0.5) * 0.7
                along = self.draws.number(-0.25, 0.25) * (piece.depth - 0.3)
                cosine, sine = math.cos(yaw), math.sin(yaw)
                self._add(
                    trinket(self.draws),
                    x + cosine * across - sine * along,
                    y + sine * across + cosine * along,
                    piece.top,
                    yaw + self.draws.number(-0.4, 0.4),
                )

    def _put(self, piece: Piece, x: float, y: float, yaw: float) -> bool:
        """Adds a piece that stands on the floor, if there is room. Returns whether there was."""
        cosine, sine = abs(math.cos(yaw)) / 2, abs(math.sin(yaw)) / 2
        wide = cosine * piece.width + sine * piece.depth
        deep = sine * piece.width + cosine * piece.depth
        inside = wide <= x <= self.room[0] - wide and deep <= y <= self.room[1] - deep
        if not inside or not self._is_free(x, y, wide, deep, len(self._taken)):
            return False
        self._taken.append((x - wide, y - deep, x + wide, y + deep))
        self._add(piece, x, y, 0.0, yaw)
        return True

    def _is_inside(self, x: float, y: float, margin: float) -> bool:
        return all(
            margin < at < size - margin for at, size in zip((x, y), self.room[:2], strict=True)
        )

    def _is_free(self, x: float, y: float, wide: float, deep: float, number: int) -> bool:
        """Whether a rectangle is clear of the first `number` taken ones."""
        return not any(
            x + wide + _GAP > left
            and x - wide - _GAP < right
            and y + deep + _GAP > front
            and y - deep - _GAP < back
            for left, front, right, back in self._taken[:number]
        )

    def _add(self, piece, x, y, z, yaw):
        self.parts.extend((part, x, y, z, yaw) for part in piece.parts)


def _place_camera(draws, room):
    """Stands near a wall or corner and looks across the room."""
    width, length, _ = room
    around = draws.number(0, 2 * math.pi)
    x = width / 2 + (width / 2 - 0.5) * math.cos(around) * draws.number(0.7, 1.0)
    y = length / 2 + (length / 2 - 0.5) * math.sin(around) * draws.number(0.7, 1.0)
    z = draws.number(1.1, 1.7)
    heading = math.atan2(length / 2 - y, width / 2 - x) + draws.number(-0.5, 0.5)
    pitch, roll = draws.number(-0.45, 0.02), draws.number(-0.05, 0.05)
    forward = np.array(
        (
            math.cos(heading) * math.cos(pitch),
            math.sin(heading) * math.cos(pitch),
            math.sin(pitch),
        )
    )
    level = np.array((math.sin(heading), -math.cos(heading), 0.0))
    upright = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * upright
    return (x, y, z), np.stack([right, np.cross(forward, right), forward])


def _surfaces(draws: Draws) -> list[Material]:
    """The looks of the floor, the ceiling and the four walls."""
    paint = draws.colour((0.0, 0.45), (0.6, 0.95))
    trim = draws.colour((0.0, 0.4), (0.5, 0.95))
    dark = scaled(paint, 0.75)
    patterns = ("plain", "plain", "plain", "stripes", "bricks", "tiles", "dots", "marbled")
    wall = material(draws, draws.choice(patterns), paint, dark, scale=draws.number(0.15, 0.4))
    walls = [wall] * 4
    if draws.chance(0.3):
        accent = draws.colour((0.2, 0.7), (0.4, 0.9))
        walls[draws.index(4)] = material(draws, draws.choice(patterns), accent, trim, scale=0.25)
    white = draws.number(0.7, 0.95)
    ceiling = material(draws, "plain", (white, white, white), (white, white, white * 0.97))
    return [_floor(draws), ceiling, *walls]


def _floor(draws):
    pattern = draws.choice(("planks", "planks", "tiles", "checks", "marbled", "plain"))
    if pattern == "planks":
        colour = (draws.number(0.25, 0.6), draws.number(0.15, 0.35), draws.number(0.06, 0.2))
        dark = scaled(colour, 0.4)
        return material(draws, pattern, colour, dark, scale=draws.number(0.1, 0.18), gloss=0.15)
    colour = draws.colour((0.05, 0.45), (0.35, 0.9))
    other = tuple(draws.number(0.3, 0.7) * value for value in colour)
    return material(draws, pattern, colour, other, scale=draws.number(0.3, 0.5), gloss=0.15)


def _stack(surfaces: list[Material], placed: list[Placed]) -> Parts:
    """The arrays of the room's surfaces and of all placed parts, sorted by kind."""
    placed = sorted(placed, key=lambda item: item[0].kind)
    names = ("floor", "ceiling", "wall", "wall", "wall", "wall")
    centres = [(0.0, 0.0, 0.0)] * len(surfaces)
    for part, x, y, z, yaw in placed:
        cosine, sine = math.cos(yaw), math.sin(yaw)
        along, across, up = part.centre
        centres.append(
            (x + cosine * along - sine * across, y + sine * along + cosine * across, z + up)
        )
    looks = surfaces + [item[0].material for item in placed]
    labels = [label_of(name) for name in names] + [item[0].label for item in placed]
    return Parts(
        kinds=np.array([SURFACE] * len(surfaces) + [item[0].kind for item in placed]),
        centres=np.array(centres),
        halves=np.array([(1.0, 1.0, 1.0)] * len(surfaces) + [item[0].half for item in placed]),
        yaws=np.array([0.0] * len(surfaces) + [item[4] for item in placed]),
        labels=np.array(labels, dtype="uint8"),
        patterns=np.array([look.pattern for look in looks]),
        colours=np.array([look.colours for look in looks]),
        scales=np.array([look.scale for look in looks]),
        phases=np.array([look.phase for look in looks]),
        glosses=np.array([look.gloss for look in looks]),
        emissions=np.array([look.emission for look in looks]),
    )
