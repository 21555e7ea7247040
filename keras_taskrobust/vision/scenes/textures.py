"""Procedural patterns: how two colours mix at a point of a surface."""

from collections.abc import Callable

import numpy as np


def mixing(
    patterns: np.ndarray, coordinates: np.ndarray, scales: np.ndarray, phases: np.ndarray
) -> np.ndarray:
    """Evaluates the patterns of points.

    Args:
        patterns: `(P,)` int64, indices of `PATTERNS`.
        coordinates: `(2, P)` float64 metres: along the surface, and up.
        scales: `(P,)` float64 metres, the size of the pattern.
        phases: `(P,)` float64, which shift the pattern and choose its random tones.

    Returns:
        `(P,)` float64: the share of the second colour, in [0, 1].
    """
    mix = np.empty_like(phases)
    across, up = coordinates / scales
    for pattern in np.flatnonzero(np.bincount(patterns)):
        at = np.flatnonzero(patterns == pattern)
        mix[at] = _FUNCTIONS[pattern](across[at], up[at], phases[at])
    return np.clip(mix, 0, 1)


def _random(cell, phase):
    """A number in [0, 1) for each pair of cell and phase."""
    bits = np.sin(cell * 12.9898 + phase * 78.233) * 43758.5453
    return bits - np.floor(bits)


def _plain(across, up, phase):
    return 0.15 + 0.08 * np.sin(across * 2.3 + phase) * np.sin(up * 1.7 + phase)


def _marbled(across, up, phase):
    swirl = np.sin(across * 1.3 + 2 * np.sin(up * 0.9 + phase)) + np.sin(up * 2.1 - across + phase)
    return 0.5 + 0.25 * swirl


def _stripes(across, up, phase):
    del up
    return (np.floor(across + phase) % 2) * 0.9


def _checks(across, up, phase):
    return (np.floor(across + phase) + np.floor(up + phase)) % 2


def _tiles(across, up, phase):
    across, up = across + phase, up + phase
    row, column = np.floor(up), np.floor(across)
    edge = np.minimum(across - column, up - row) < 0.06
    return np.where(edge, 1.0, 0.35 * _random(row * 57 + column, phase))


def _bricks(across, up, phase):
    row = np.floor(up * 3)
    shifted = across + phase + 0.5 * (row % 2)
    column = np.floor(shifted)
    edge = (shifted - column < 0.06) | (up * 3 - row < 0.16)
    return np.where(edge, 1.0, 0.5 * _random(row * 57 + column, phase))


def _planks(across, up, phase):
    column = np.floor(across)
    row = np.floor(up / 6 + _random(column, phase))
    seam = across - column < 0.04
    grain = 0.1 * np.sin(across * 25 + 2 * np.sin(up * 0.8 + column + phase))
    return np.where(seam, 1.0, 0.45 * _random(column + 31 * row, phase) + 0.15 + grain)


def _wood(across, up, phase):
    ring = np.sin(across * 6 + 1.5 * np.sin(up * 1.1 + phase) + phase)
    return 0.4 + 0.3 * ring + 0.15 * np.sin(across * 17 + phase)


def _dots(across, up, phase):
    across, up = across + phase, up + phase
    squared = (across - np.floor(across) - 0.5) ** 2 + (up - np.floor(up) - 0.5) ** 2
    return (squared < 0.08).astype("float64")


def _spines(across, up, phase):
    del up
    return _random(np.floor(across), phase)


def _painting(across, up, phase):
    wave = np.sin(across * 2.1 + phase) + np.sin(up * 2.7 + 2 * phase + np.sin(across + phase))
    return np.floor((wave + 2) * 1.25) / 4


def _view(across, up, phase):
    """Hills under a sky; the height 0 is the middle of the pane."""
    hills = 0.25 * np.sin(across * 1.7 + phase) + 0.12 * np.sin(across * 4.1 + 2 * phase) - 0.2
    return np.where(up < hills, 0.95, np.clip(0.35 - 0.3 * up, 0, 0.5))


_FUNCTIONS: tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], ...] = (
    _plain,
    _marbled,
    _stripes,
    _checks,
    _tiles,
    _bricks,
    _planks,
    _wood,
    _dots,
    _spines,
    _painting,
    _view,
)

#: The names of the patterns; a scene's parts hold indices into it.
PATTERNS = tuple(function.__name__.removeprefix("_") for function in _FUNCTIONS)
