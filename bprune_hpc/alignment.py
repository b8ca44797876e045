"""Arrays that begin at a cache line: TensorFlow takes them as they lie, and no vector is in two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._typing import Float32Array

LINE = 16
"""Numbers of a cache line of 64 bytes."""


def aligned(size: int) -> Float32Array:
    """Zeros at such an address."""
    wider = np.zeros(size + LINE, np.float32)
    start = -(wider.ctypes.data // wider.itemsize) % LINE
    return wider[start : start + size]


def extent(shapes: Sequence[Sequence[int]]) -> int:
    """Length of an array in which arrays of these shapes begin at a cache line each."""
    return sum(map(_room, shapes))


def views_of(whole: Float32Array, shapes: Sequence[Sequence[int]]) -> list[Float32Array]:
    """Arrays of these shapes, one behind the other in an array of that length."""
    views, start = [], 0
    for shape in shapes:
        views.append(whole[start : start + math.prod(shape)].reshape(shape))
        start += _room(shape)
    return views


def _room(shape: Sequence[int]) -> int:
    return -(-math.prod(shape) // LINE) * LINE
