"""Procedural indoor scenes with exact RGB, metric depth and labels: the embedded data set.

A room is furnished, lit and seen by a camera, all drawn from `(seed, index)`; then every pixel's
ray is intersected analytically with the room and the bodies in it. Depth and labels are exact.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from keras_taskrobust import checks
from keras_taskrobust.map_folders import MAPS
from keras_taskrobust.vision.class_sets import NYU_13
from keras_taskrobust.vision.image_source import ImageSource, Record
from keras_taskrobust.vision.scenes.layout import compose_scene
from keras_taskrobust.vision.scenes.rendering import render


def generate_scenes(
    indices: int | Sequence[int], height: int = 64, width: int = 64, seed: int = 0
) -> dict[str, np.ndarray]:
    """Generates pictures of procedural scenes.

    A picture is a function of `seed`, its index and its size alone: not of the other indices.

    Args:
        indices: sequence of ints >= 0, or an int N for the indices 0 to N - 1.
        height: int, pixels.
        width: int, pixels.
        seed: int. Other seeds give other scenes.

    Returns:
        dict of arrays:

        - `"rgb"`: `(N, height, width, 3)` uint8;
        - `"depth"`: `(N, height, width, 1)` float32, metres along the optical axis;
        - `"semseg"`: `(N, height, width)` uint8, labels into `ProceduralScenes.class_names`.

    Raises:
        ValueError: if a size is not an integer >= 1 or an index is negative.

    Example:

    >>> scenes = generate_scenes([7, 3], height=8, width=12)
    >>> scenes["rgb"].shape, scenes["depth"].shape, scenes["semseg"].shape
    ((2, 8, 12, 3), (2, 8, 12, 1), (2, 8, 12))
    """
    checks.integer("height", height, least=1)
    checks.integer("width", width, least=1)
    numbers = range(indices) if isinstance(indices, int) else [int(index) for index in indices]
    if any(index < 0 for index in numbers):
        raise ValueError(f"`indices` must be integers >= 0. Received: {list(numbers)}")
    scenes = {
        "rgb": np.empty((len(numbers), height, width, 3), "uint8"),
        "depth": np.empty((len(numbers), height, width, 1), "float32"),
        "semseg": np.empty((len(numbers), height, width), "uint8"),
    }
    for row, index in enumerate(numbers):
        for name, array in render(compose_scene(seed, index), height, width).items():
            scenes[name][row] = array
    return scenes


class ProceduralScenes(ImageSource):
    """A data set of procedural scenes, generated when they are read.

    Args:
        number: int, how many scenes there are.
        height: int, pixels.
        width: int, pixels.
        seed: int. Other seeds give other scenes.
        keep: bool. Whether a scene that was read stays in memory.

    Attributes:
        class_names: the 13 classes into which NYU Depth v2 is usually sorted, in the same order.

    Raises:
        ValueError: if a number is not an integer >= 1.

    Example:

    >>> source = ProceduralScenes(number=100, height=8, width=12)
    >>> len(source), source[99]["depth"].shape
    (100, (8, 12, 1))
    """

    def __init__(
        self,
        number: int = 10_000,
        height: int = 64,
        width: int = 64,
        seed: int = 0,
        keep: bool = False,
    ):
        super().__init__(MAPS, class_names=NYU_13)
        self.number = checks.integer("number", number, least=1)
        self.height = checks.integer("height", height, least=1)
        self.width = checks.integer("width", width, least=1)
        self.seed = seed
        self._kept: dict[int, Record] | None = {} if keep else None

    def __len__(self) -> int:
        return self.number

    def read(self, index: int) -> Record:
        if self._kept is not None and index in self._kept:
            return dict(self._kept[index])
        scene = render(compose_scene(self.seed, index), self.height, self.width)
        if self._kept is not None:
            self._kept[index] = scene
        return dict(scene)

    def content(self) -> Iterator[bytes | memoryview]:
        yield f"{self.number} {self.height} {self.width} {self.seed}".encode()
        yield np.ascontiguousarray(self[0]["rgb"]).data
