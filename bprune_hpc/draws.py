"""Standard normals for one draw: a pure function of (seed, tensor name, pair).

No global state and no rank: any process that asks for the same draw gets the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def standard_normal(seed: int, tensor: str, unit: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Standard normal noise for one tensor of one unit.

    The generator is Philox (Salmon et al. 2011), keyed by seed and name, with the unit in the
    high words of its counter: streams of different units cannot meet.

    Parameters
    ----------
    seed : int
        In [0, 2**64).
    tensor : str
        Name of the mean-field tensor.
    unit : int
        Index of the pair (or of the single draw without pairing), not negative.
    shape : sequence of int

    Returns
    -------
    float32 array of that shape
    """
    digest = hashlib.blake2b(f"{seed}/{tensor}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, unit, 0], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal(tuple(shape), dtype=np.float32)
