"""Pictures of scenes: every pixel's depth and label are exact."""

import numpy as np

from keras_taskrobust.vision.scenes.geometry import (
    BOX,
    ELLIPSOID,
    NUM_SURFACES,
    Scene,
    cast,
    dot,
    length_of,
    turn,
)
from keras_taskrobust.vision.scenes.textures import mixing

_SURFACE_NORMALS = np.array(
    [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype="float32"
)
_SHADOW_BIAS = 1e-3  # metres
_OCCLUSION_REACH = 0.3  # metres
_EXPOSURE = -1.6
_OCCLUSION_STRENGTH = 0.4


def render(scene: Scene, height: int, width: int) -> dict[str, np.ndarray]:
    """Renders a scene.

    Depth and labels are those of the ray through a pixel's centre. A pixel's colour is the mean
    of that ray's (one half) and those of its four corners. A corner has a ray of its own if the
    pixels around it show different parts, otherwise the mean colour of these pixels.

    Args:
        scene: `Scene`.
        height: int, pixels.
        width: int, pixels.

    Returns:
        `{"rgb": (height, width, 3) uint8, "depth": (height, width, 1) float32 metres along the
        optical axis, "semseg": (height, width) uint8}`
    """
    single = _single(scene)
    rays = pixel_rays(scene, np.arange(height) + 0.5, np.arange(width) + 0.5, height, width)
    lengths = length_of(rays)
    directions = rays / lengths
    distances, hits = cast(scene, scene.camera, directions)
    tones = _shade(single, _single(directions), _single(distances), hits)
    shown = hits.reshape(height, width)
    corners = _corner_tones(scene, single, tones.reshape(3, height, width), shown)
    image = tones.reshape(3, height, width) / 2 + _sum_of_four(corners) / 8
    return {
        "rgb": np.rint(image.transpose(1, 2, 0) * 255).astype("uint8"),
        "depth": (distances / lengths).astype("float32").reshape(height, width, 1),
        "semseg": scene.parts.labels[shown],
    }


def pixel_rays(
    scene: Scene, rows: np.ndarray, columns: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The directions of the rays through a grid of points of the image.

    Args:
        scene: `Scene`.
        rows: `(R,)` distances from the upper edge of the image, pixels.
        columns: `(C,)` distances from its left edge, pixels.
        height: int, pixels.
        width: int, pixels.

    Returns:
        `(3, R * C)` float64, each 1 along the optical axis.
    """
    unit = 2.0 / (max(height, width) * scene.focal)
    right, down, forward = scene.axes[..., None]
    across = (columns - width / 2) * unit * right + forward
    along = (rows - height / 2) * unit * down
    return (along[:, :, None] + across[:, None]).reshape(3, -1)


def _corner_tones(scene, single, tones, shown):
    """`(3, height + 1, width + 1)` tones of the corners of pixels."""
    _, height, width = tones.shape
    corners = _sum_of_four(np.pad(tones, ((0, 0), (1, 1), (1, 1)), "edge")) / 4
    shown = np.pad(shown, 1, "edge")
    first = shown[:-1, :-1]
    differs = (first != shown[1:, :-1]) | (first != shown[:-1, 1:]) | (first != shown[1:, 1:])
    edges = np.flatnonzero(differs)
    if len(edges):
        rays = pixel_rays(scene, np.arange(height + 1.0), np.arange(width + 1.0), height, width)
        rays = _single(rays.take(edges, axis=1))
        directions = rays / length_of(rays)
        distances, hits = cast(single, single.camera, directions)
        corners.reshape(3, -1)[:, edges] = _shade(single, directions, distances, hits)
    return corners


def _sum_of_four(maps):
    """Adds neighbours 2 x 2: `(3, H, W)` gives `(3, H - 1, W - 1)`."""
    rows = maps[:, 1:] + maps[:, :-1]
    return rows[:, :, 1:] + rows[:, :, :-1]


def _single(value):
    """A copy in float32: colours have 8 bits. Depth and labels are computed in float64."""
    if isinstance(value, tuple):
        return type(value)(*(_single(item) for item in value))
    is_double = isinstance(value, np.ndarray) and value.dtype == np.float64
    return value.astype("float32") if is_double else value


def _geometry(scene, points, hits):
    """Normals `(3, P)`, and texture coordinates `(2, P)` in metres, of points on parts."""
    parts = scene.parts
    normals = _SURFACE_NORMALS.T.take(np.minimum(hits, NUM_SURFACES - 1), axis=1)
    planar = points.copy()
    bodies = np.flatnonzero(hits >= NUM_SURFACES)
    index = hits[bodies]
    cosines, sines = np.cos(parts.yaws)[index], np.sin(parts.yaws)[index]
    centres = parts.centres.T.take(index, axis=1)
    metres = turn(points.take(bodies, axis=1) - centres, cosines, sines)
    halves = parts.halves.T.take(index, axis=1)
    unit = metres / halves
    kinds = parts.kinds[index]
    own = np.where(
        kinds == BOX,
        _face_normals(unit),
        np.where(kinds == ELLIPSOID, unit / halves, _cylinder_normals(unit, halves)),
    )
    own /= length_of(own)
    around = np.arctan2(unit[1], unit[0]) * halves[0]
    is_curved = (kinds != BOX) & (np.abs(own[2]) < 0.999)
    coordinates = _flatten(planar, normals)
    coordinates[:, bodies] = np.where(is_curved, (around, metres[2]), _flatten(metres, own))
    normals[:, bodies] = turn(own, cosines, -sines)
    return normals, coordinates


def _face_normals(unit):
    axis = np.abs(unit).argmax(0)
    return np.where(np.arange(3)[:, None] == axis, np.sign(unit), 0.0)


def _cylinder_normals(unit, halves):
    on_cap = np.abs(unit[2]) >= np.sqrt(unit[0] ** 2 + unit[1] ** 2)
    side = unit / halves
    zero = np.zeros_like(unit[0])
    return np.where(on_cap, (zero, zero, np.sign(unit[2])), (side[0], side[1], zero))


def _flatten(metres, normals):
    """The two coordinates along the axes to which the normal is most square."""
    steep = np.abs(normals)
    first = np.where(steep[0] > np.maximum(steep[1], steep[2]), metres[1], metres[0])
    second = np.where(steep[2] > 0.7, metres[1], metres[2])
    return np.stack([first, second])


def _shade(scene, directions, distances, hits):
    """`(3, P)` tones in [0, 1]: diffuse light, highlights, shadows, dark corners, emission."""
    parts = scene.parts
    points = scene.camera[:, None] + directions * distances
    normals, coordinates = _geometry(scene, points, hits)
    mix = mixing(parts.patterns[hits], coordinates, parts.scales[hits], parts.phases[hits])
    first, second = parts.colours[:, 0].T, parts.colours[:, 1].T
    albedo = first.take(hits, axis=1) + (second - first).take(hits, axis=1) * mix

    to_lamp = scene.lamp[:, None] - points
    reach = length_of(to_lamp)
    to_lamp /= reach
    facing = np.maximum(dot(normals, to_lamp), 0)
    lit = _visibility(scene, points, normals, facing) / (1 + 0.08 * reach * reach)
    skylight = np.maximum(scene.sky @ normals, 0)
    halfway = to_lamp - directions
    halfway /= length_of(halfway)
    highlight = np.maximum(dot(normals, halfway), 0)
    for _ in range(5):
        highlight *= highlight
    highlight *= parts.glosses[hits]

    closeness = _occlusion(scene, points, normals)
    light = scene.ambient * (0.8 + 0.2 * normals[2]) * closeness
    light = light + scene.lamp_colour[:, None] * (lit * facing)
    light += scene.sky_colour[:, None] * (skylight * closeness)
    shine = scene.lamp_colour[:, None] * (lit * highlight)
    colours = albedo * (light + parts.emissions[hits]) + shine
    return np.sqrt(1 - np.exp(_EXPOSURE * np.maximum(colours, 0)))


def _visibility(scene, points, normals, facing):
    """1 where the lamp is seen, 0 in its shadow and on what is turned away from it."""
    turned = np.flatnonzero(facing)
    biased = points + normals * _SHADOW_BIAS
    from_lamp = biased.take(turned, axis=1) - scene.lamp[:, None]
    length = length_of(from_lamp)
    blocked, _ = cast(scene, scene.lamp, from_lamp / length)
    visible = np.zeros_like(facing)
    visible[turned] = blocked >= length - _SHADOW_BIAS
    return visible


def _occlusion(scene, points, normals):
    """Darkens what is near the edges of the room."""
    room = scene.room[:, None]
    gap = np.minimum(points, room - points)
    gap[2] = points[2]
    dark = _OCCLUSION_STRENGTH * np.exp(gap / -_OCCLUSION_REACH) * (np.abs(normals) < 0.7)
    return (1 - dark[0]) * (1 - dark[1]) * (1 - dark[2])
