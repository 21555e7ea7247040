"""Procedural scenes: depth and labels recomputed one ray at a time, determinism, access."""

import math
import pickle

import numpy as np
import pytest

from keras_taskrobust.vision.class_sets import NYU_13
from keras_taskrobust.vision.scenes import ProceduralScenes, generate_scenes
from keras_taskrobust.vision.scenes.geometry import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    NUM_SURFACES,
    SURFACE,
)
from keras_taskrobust.vision.scenes.layout import compose_scene
from keras_taskrobust.vision.scenes.textures import PATTERNS

pytestmark = pytest.mark.backend_free

HEIGHT, WIDTH = 24, 40


def pixel_direction(scene, row, column):
    """The ray through the centre of a pixel, 1 along the optical axis."""
    right, down, forward = scene.axes
    half = max(HEIGHT, WIDTH) / 2
    across = (column + 0.5 - WIDTH / 2) / (half * scene.focal)
    along = (row + 0.5 - HEIGHT / 2) / (half * scene.focal)
    return across * right + along * down + forward


def meet_bodies(scene, origin, direction):
    """The distance to every body, by its definition: the least of a convex function, bisected."""
    parts = type(scene.parts)(*(values[NUM_SURFACES:] for values in scene.parts))
    cosines, sines = np.cos(parts.yaws), np.sin(parts.yaws)

    def to_frames(vectors):
        x, y, z = np.broadcast_to(vectors, parts.centres.shape).T
        turned = np.stack([cosines * x + sines * y, cosines * y - sines * x, z])
        return turned / parts.halves.T

    start, step = to_frames(origin - parts.centres), to_frames(direction)

    def outside(distances):
        """Below 0 inside of a body."""
        x, y, z = np.abs(start + step * distances)
        flat = np.hypot(x, y)
        of_kind = {
            BOX: np.maximum(np.maximum(x, y), z),
            CYLINDER: np.maximum(flat, z),
            ELLIPSOID: np.hypot(flat, z),
        }
        return np.choose(parts.kinds, [of_kind[kind] for kind in range(3)]) - 1

    low, high = np.zeros(len(parts.kinds)), np.full(len(parts.kinds), 20.0)
    for _ in range(100):
        first, second = low + (high - low) * 0.382, low + (high - low) * 0.618
        falling = outside(first) > outside(second)
        low, high = np.where(falling, first, low), np.where(falling, high, second)
    inside = (low + high) / 2
    is_met = outside(inside) <= 0
    low, high = np.zeros(len(parts.kinds)), inside
    for _ in range(80):
        middle = (low + high) / 2
        reached = outside(middle) <= 0
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(is_met, high, math.inf)


def first_hit(scene, origin, direction):
    """Distance and part, by trying the six surfaces and every body."""
    candidates = []
    for axis in range(3):
        if direction[axis]:
            target = scene.room[axis] if direction[axis] > 0 else 0.0
            distance = (target - origin[axis]) / direction[axis]
            surface = {0: 2, 1: 4, 2: 0}[axis] + int(direction[axis] > 0)
            candidates.append((distance, surface))
    distances = meet_bodies(scene, origin, direction)
    candidates.append((distances.min(), NUM_SURFACES + int(distances.argmin())))
    return min(candidates)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_depth_and_labels_are_those_of_independent_rays(index):
    scene = compose_scene(4, index)
    picture = ProceduralScenes(20, HEIGHT, WIDTH, seed=4)[index]
    random = np.random.default_rng(index)
    pixels = random.permutation(HEIGHT * WIDTH)[:40]
    for row, column in zip(*np.divmod(pixels, WIDTH), strict=True):
        direction = pixel_direction(scene, row, column)
        depth, part = first_hit(scene, scene.camera, direction)
        assert picture["depth"][row, column, 0] == pytest.approx(depth, rel=1e-6)
        assert picture["semseg"][row, column] == scene.parts.labels[part]


def test_every_kind_of_body_is_met_somewhere():
    kinds = set()
    for index in range(6):
        scene = compose_scene(4, index)
        kinds |= set(scene.parts.kinds.tolist())
        numbers = scene.parts.kinds[NUM_SURFACES:]
        assert (np.diff(numbers) >= 0).all()
    assert kinds == {SURFACE, BOX, ELLIPSOID, CYLINDER}


def test_points_of_the_room_lie_on_its_surfaces():
    """Floor pixels are at height 0, ceiling ones at the top, all of them inside."""
    for index in range(4):
        scene = compose_scene(9, index)
        picture = ProceduralScenes(4, HEIGHT, WIDTH, seed=9)[index]
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        directions = np.stack(
            [pixel_direction(scene, *at) for at in zip(rows.ravel(), columns.ravel(), strict=True)]
        )
        points = scene.camera + directions * picture["depth"].reshape(-1, 1)
        assert (points > -1e-4).all()
        assert (points < scene.room + 1e-4).all()
        labels = picture["semseg"].ravel()
        ceiling = labels == NYU_13.index("ceiling")
        np.testing.assert_allclose(points[ceiling, 2], scene.room[2], atol=1e-5)
        floor = labels == NYU_13.index("floor")  # rugs, which are floor too, are 12 mm high
        assert np.abs(points[floor, 2]).max(initial=0) < 0.0121


def test_a_scene_is_a_function_of_seed_and_index_alone():
    together = generate_scenes([3, 1, 8, 3], 16, 24, seed=2)
    for row, index in enumerate([3, 1, 8, 3]):
        alone = generate_scenes([index], 16, 24, seed=2)
        for name in together:
            np.testing.assert_array_equal(together[name][row], alone[name][0])
    source = ProceduralScenes(9, 16, 24, seed=2)
    np.testing.assert_array_equal(source[8]["rgb"], together["rgb"][2])
    np.testing.assert_array_equal(source[-1]["depth"], together["depth"][2])
    assert (generate_scenes([3], 16, 24, seed=3)["rgb"] != together["rgb"][:1]).any()
    assert (together["rgb"][0] != together["rgb"][1]).any()


def test_pinned_scene():
    """The stream of random numbers must not change: trained models were trained on it."""
    scene = compose_scene(0, 0)
    np.testing.assert_allclose(
        scene.room, (4.199394901730541, 5.423547270625221, 2.981539505327836), rtol=1e-12
    )
    assert len(scene.parts.kinds) == 98


def test_shapes_dtypes_and_ranges():
    scenes = generate_scenes(3, 20, 30)
    assert scenes["rgb"].shape == (3, 20, 30, 3)
    assert scenes["rgb"].dtype == np.uint8
    assert scenes["depth"].shape == (3, 20, 30, 1)
    assert scenes["depth"].dtype == np.float32
    assert scenes["semseg"].shape == (3, 20, 30)
    assert scenes["semseg"].dtype == np.uint8
    assert np.isfinite(scenes["depth"]).all()
    assert (scenes["depth"] > 0.1).all()
    assert (scenes["depth"] < 12).all()
    assert scenes["semseg"].max() < len(NYU_13)


def test_scenes_are_varied_and_well_exposed():
    scenes = generate_scenes(60, 24, 24)
    shares = np.bincount(scenes["semseg"].ravel(), minlength=13) / scenes["semseg"].size
    assert (shares > 0.001).all(), dict(zip(NYU_13, shares, strict=True))
    assert shares.max() < 0.5
    brightness = scenes["rgb"].mean(axis=(1, 2, 3))
    assert brightness.min() > 70
    assert brightness.max() < 225
    contrast = scenes["rgb"].std(axis=(1, 2)).mean(-1)
    assert np.median(contrast) > 30
    assert len({tuple(np.unique(labels)) for labels in scenes["semseg"]}) > 30


def test_the_centre_of_a_picture_does_not_depend_on_its_size():
    """A picture of an odd size has the same central ray as another of an odd size."""
    small, large = generate_scenes(5, 9, 9), generate_scenes(5, 27, 27)
    np.testing.assert_allclose(small["depth"][:, 4, 4], large["depth"][:, 13, 13], rtol=1e-6)
    np.testing.assert_array_equal(small["semseg"][:, 4, 4], large["semseg"][:, 13, 13])


def test_all_patterns_occur():
    found = {pattern for index in range(40) for pattern in compose_scene(1, index).parts.patterns}
    assert found == set(range(len(PATTERNS)))


def test_source_travels_to_another_process():
    source = ProceduralScenes(5, 8, 8, seed=1)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(source[4]["rgb"], again[4]["rgb"])
    assert source.class_names == NYU_13
    assert source.stem(3) == "00000003"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"number": 0}, "`number` must be an integer >= 1"),
        ({"height": -4}, "`height` must be an integer >= 1"),
        ({"width": 8.0}, "`width` must be an integer >= 1"),
        ({"number": True}, "`number` must be an integer >= 1"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        ProceduralScenes(**arguments)


def test_bad_indices():
    with pytest.raises(ValueError, match="`indices` must be integers >= 0"):
        generate_scenes([0, -1])
    with pytest.raises(IndexError, match="below 5"):
        ProceduralScenes(5)[5]


def test_kept_scenes_are_those_rendered():
    kept, rendered = (ProceduralScenes(3, 8, 12, seed=5, keep=keep) for keep in (True, False))
    kept[1]["rgb"] = np.zeros(1)
    for name, array in rendered[1].items():
        np.testing.assert_array_equal(kept[1][name], array)
    assert kept[1]["depth"] is kept[1]["depth"]
    assert rendered[1]["depth"] is not rendered[1]["depth"]
