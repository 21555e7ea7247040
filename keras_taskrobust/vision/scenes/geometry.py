"""A scene as numbers, and the analytic intersection of rays with it."""

from typing import NamedTuple

import numpy as np

BOX, ELLIPSOID, CYLINDER, SURFACE = range(4)

#: The rows of a scene's parts which are the room itself: floor, ceiling, walls at x = 0 and at
#: x = width, walls at y = 0 and at y = length.
NUM_SURFACES = 6


class Parts(NamedTuple):
    """The K surfaces and bodies of a scene, sorted by kind: box, ellipsoid, cylinder.

    The first `NUM_SURFACES` rows are the room's surfaces, which have no centre, half sizes or yaw.

    Attributes:
        kinds: `(K,)` int64: `SURFACE`, `BOX`, `ELLIPSOID` or (upright, elliptic) `CYLINDER`.
        centres: `(K, 3)` float64 metres.
        halves: `(K, 3)` float64 metres, half the sizes along the part's own axes.
        yaws: `(K,)` float64 radians, the part's turn about the vertical axis.
        labels: `(K,)` uint8.
        patterns: `(K,)` int64, indices of `textures.PATTERNS`.
        colours: `(K, 2, 3)` float64 in [0, 1], linear RGB: the two colours that a pattern mixes.
        scales: `(K,)` float64 metres, the size of the pattern.
        phases: `(K,)` float64, the randomness of the pattern.
        glosses: `(K,)` float64, the strength of highlights.
        emissions: `(K,)` float64, light given off, as a multiple of the colour.
    """

    kinds: np.ndarray
    centres: np.ndarray
    halves: np.ndarray
    yaws: np.ndarray
    labels: np.ndarray
    patterns: np.ndarray
    colours: np.ndarray
    scales: np.ndarray
    phases: np.ndarray
    glosses: np.ndarray
    emissions: np.ndarray


class Scene(NamedTuple):
    """A furnished room and a camera in it. The z axis points up; (0, 0, 0) is a corner.

    Attributes:
        room: `(3,)` float64 metres, the sizes along x, y and z.
        parts: `Parts`.
        camera: `(3,)` float64 metres, the position of the pinhole.
        axes: `(3, 3)` float64, the rows are the camera's right, down and forward directions.
        focal: float, the focal length as a multiple of half the longer side of the image.
        lamp: `(3,)` float64 metres, the position of the light that casts shadows.
        lamp_colour: `(3,)` float64.
        sky: `(3,)` float64, the direction from which the shadowless light of windows comes.
        sky_colour: `(3,)` float64.
        ambient: float.
    """

    room: np.ndarray
    parts: Parts
    camera: np.ndarray
    axes: np.ndarray
    focal: float
    lamp: np.ndarray
    lamp_colour: np.ndarray
    sky: np.ndarray
    sky_colour: np.ndarray
    ambient: float


def cast(scene: Scene, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds what the rays from one point inside the room hit first.

    Args:
        scene: `Scene`.
        origin: `(3,)` float64 metres, outside of every body.
        directions: `(3, P)` unit vectors. All arrays float64, or all float32.

    Returns:
        `(P,)` metres along the rays, and `(P,)` int64 rows of `scene.parts`.
    """
    distances, hits = _cast_room(scene.room, origin, directions)
    parts = scene.parts
    numbers, rays = _candidates(parts, origin, directions)
    start, local = _enter_frames(parts, origin, directions, numbers, rays)
    ends = np.cumsum([0, *numbers])
    kind_ends = ends[np.searchsorted(parts.kinds[NUM_SURFACES:], range(3), "right")]
    found = np.empty(len(rays), local.dtype)
    begin = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        for end, meet in zip(kind_ends, (_meet_box, _meet_ellipsoid, _meet_cylinder), strict=True):
            found[begin:end] = meet(start[:, begin:end], local[:, begin:end])
            begin = end
    np.minimum.at(distances, rays, found)
    nearest = np.flatnonzero(found == distances.take(rays))
    hits[rays[nearest]] = np.searchsorted(ends[1:], nearest, "right") + NUM_SURFACES
    return distances, hits


def _enter_frames(parts, origin, directions, numbers, rays):
    """Rays in the frames of bodies, in which a body reaches from -1 to 1 along each axis.

    Args:
        parts: `Parts`.
        origin: `(3,)`, the start of all rays.
        directions: `(3, P)`.
        numbers: `(K - NUM_SURFACES,)` int, how many of the pairs belong to each body.
        rays: `(N,)` int, the ray of each pair.

    Returns:
        The starts and directions in the frames, `(3, N)` each.
    """
    halves = parts.halves[NUM_SURFACES:].T
    cosines, sines = np.cos(parts.yaws[NUM_SURFACES:]), np.sin(parts.yaws[NUM_SURFACES:])
    start = turn((origin - parts.centres[NUM_SURFACES:]).T, cosines, sines) / halves
    frames = np.stack(
        [*start, cosines / halves[0], sines / halves[0], cosines / halves[1], sines / halves[1]]
    )
    frames = np.repeat(frames, numbers, axis=1)
    x, y, z = directions.take(rays, axis=1)
    local = np.empty((3, len(rays)), frames.dtype)
    local[0] = frames[3] * x + frames[4] * y
    local[1] = frames[5] * y - frames[6] * x
    local[2] = z / np.repeat(halves[2], numbers)
    return frames[:3], local


def _cast_room(room, origin, directions):
    """As `cast`, for the room alone, whose walls are seen from inside."""
    reaches = []
    for size, start, direction in zip(room, origin, directions, strict=True):
        with np.errstate(divide="ignore"):
            reach = np.where(direction > 0, size - start, -start) / direction
        reach[direction == 0] = np.inf
        reaches.append(reach)
    along_x, along_y, along_z = reaches
    distances = np.minimum(np.minimum(along_x, along_y), along_z)
    surface = np.where(along_x < along_y, 2 + (directions[0] > 0), 4 + (directions[1] > 0))
    return distances, np.where(distances == along_z, directions[2] > 0, surface)


def _candidates(parts, origin, directions):
    """Pairs of a body and a ray that meets the sphere around it, sorted by body.

    Returns:
        How many there are of each body, and the rays.
    """
    towards = parts.centres[NUM_SURFACES:] - origin
    halves = parts.halves[NUM_SURFACES:]
    radius_squared = dot(halves.T, halves.T) * (1 + 1e-5)
    distance_squared = dot(towards.T, towards.T) * (1 - 1e-5)
    tangent = np.sqrt(np.maximum(distance_squared - radius_squared, 0))
    is_around = distance_squared <= radius_squared
    # The cone of the bodies' spheres against the cone of all rays, then against each ray.
    axis = directions.mean(1)
    axis /= np.sqrt(axis @ axis)
    spread = np.arccos(np.clip((axis @ directions).min() - 1e-5, -1, 1))
    away = np.arccos(np.clip(towards @ axis / np.sqrt(distance_squared), -1, 1))
    reach = np.arctan2(np.sqrt(radius_squared), tangent) + spread + 1e-3
    inside = np.flatnonzero(is_around | (away <= reach))
    threshold = np.where(is_around, -np.inf, tangent * (1 - 1e-5) - 1e-5).astype("float32")
    along = towards[inside].astype("float32") @ directions.astype("float32")
    flat = np.flatnonzero(along >= threshold[inside, None])
    rays = directions.shape[1]
    starts = np.arange(len(inside) + 1) * rays
    counts = np.diff(np.searchsorted(flat, starts))
    numbers = np.zeros(len(towards), "int64")
    numbers[inside] = counts
    return numbers, flat - np.repeat(starts[:-1], counts)


def turn(vectors, cosines, sines):
    """Turns `(3, N)` vectors by minus the yaw: from the room's axes into a part's."""
    x, y, z = vectors
    return np.stack([cosines * x + sines * y, cosines * y - sines * x, z])


def dot(first, second):
    """The scalar products of `(3, N)` vectors."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def length_of(vectors):
    """The lengths of `(3, N)` vectors."""
    return np.sqrt(dot(vectors, vectors))


def _meet_slabs(start, local):
    """Where rays enter and leave -1 <= axis <= 1, for every axis."""
    first = (-1 - start) / local
    second = (1 - start) / local
    return np.minimum(first, second), np.maximum(first, second)


def _meet_box(start, local):
    (x0, y0, z0), (x1, y1, z1) = _meet_slabs(start, local)
    return _enter_convex(np.maximum(np.maximum(x0, y0), z0), np.minimum(np.minimum(x1, y1), z1))


def _meet_ellipsoid(start, local):
    square, middle = dot(local, local), -dot(start, local)
    return _enter_convex(*_meet_unit(square, middle, dot(start, start)))


def _meet_cylinder(start, local):
    (x, y, _), (right, ahead, _) = start, local
    side = _meet_unit(right * right + ahead * ahead, -(x * right + y * ahead), x * x + y * y)
    caps = _meet_slabs(start[2], local[2])
    return _enter_convex(np.maximum(side[0], caps[0]), np.minimum(side[1], caps[1]))


def _meet_unit(square, middle, start):
    """Where rays enter and leave the unit sphere or circle; NaN where they miss.

    Solves square * t^2 - 2 * middle * t + start - 1 = 0.
    """
    root = np.sqrt(middle * middle - square * (start - 1))
    return (middle - root) / square, (middle + root) / square


def _enter_convex(enter, leave):
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)
