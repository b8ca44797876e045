"""Arrays that are used again and again: fresh memory costs more to touch than to compute on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LINE = 16
"""Numbers of a cache line."""


@dataclass
class Workspace:
    """Room for arrays of a kind, of which one is in use at a time."""

    _held: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def array(self, kind: str, *shape: int) -> NDArray[np.float32]:
        """An uninitialized array; it overwrites the one of this kind that was given before."""
        size = math.prod(shape)
        held = self._held.get(kind)
        if held is None or held.size < size:
            held = self._held[kind] = _aligned(size)
        return held[:size].reshape(shape)


def _aligned(size: int) -> NDArray[np.float32]:
    """At an address where a vector does not lie in two cache lines."""
    room = np.empty(size + _LINE, np.float32)
    start = -room.ctypes.data // room.itemsize % _LINE
    return room[start : start + size]
