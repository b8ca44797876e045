"""Standard normals that are a pure function of a key and of where they stand.

Any of them can be made alone, in any order, with the same bits by NumPy and by the compiled module
with any set of instructions: whole numbers, and float32 operations that are each rounded by
themselves, with no function of a library but the square root, which IEEE 754 defines to the bit.

1. Threefry-4x32 of 13 rounds (Salmon et al. 2011), which passes the tests of BigCrush, turns a key
   of 128 bits and the counter (position, place // 4, replicate, 0) into the four words of the
   places ``4 * (place // 4)`` and the three after it.
2. Two words ``(a, b)`` are two normals (Box and Muller 1958): with ``u = (a // 2 + 1/2) / 2**31``
   and ``v = b / 2**31``, ``b`` taken as a signed number, they are ``±r cos(v pi/2)`` and
   ``±r sin(v pi/2)`` for ``r = sqrt(-2 log u)``. The last bit of ``a`` is the sign.
3. Logarithm, sine and cosine are the polynomials below, right to the last bits of float32.

What the normals of a sweep are for does not belong here (``evaluators.draw_noise``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import compiled
from .._typing import Float32Array, Int32Array

Words = NDArray[np.uint32]

_ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
_PARITY = 0x1BD11BDA
_N_ROUNDS = 13

_LOGARITHM = (
    0.333339095, -0.250013381, 0.199630648, -0.16577585, 0.14914763, -0.142674863, 0.0870044902,
)  # fmt: skip
"""(log(1 + t) - t + t**2 / 2) / t**3, from the constant on, for 1 + t in sqrt(1/2) to sqrt(2)."""
_SINE = (1.57079637, -0.645963728, 0.0796896815, -0.00467376644, 0.000151485132)
"""sin(v pi/2) / v in powers of v**2, for v in -1 to 1."""
_COSINE = (1.0, -1.23370051, 0.253669322, -0.0208626892, 0.000917724857, -2.38249177e-05)
"""cos(v pi/2) in powers of v**2."""

_HALF_ROOT_BITS = 0x3F3504F3
"""Bits of sqrt(1/2)."""
_AT_ONCE = 2**15
"""Counters that NumPy works on together: few calls, and numbers that stay in a cache."""


def key_of(*parts: object) -> Words:
    """The key of a stream of normals, from what names it; shape (5,), the last word its parity."""
    text = "/".join(map(str, parts))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    words = np.frombuffer(digest, "<u4").astype(np.uint32)
    return np.append(words, np.bitwise_xor.reduce(words) ^ np.uint32(_PARITY))


def normals_at(key: Words, replicate: int, positions: range, places: Int32Array) -> Float32Array:
    """Standard normals of some places at each of some positions.

    Parameters
    ----------
    key : uint32 array, shape (5,)
        See :func:`key_of`.
    replicate : int
        In [0, 2**32), as positions.
    positions : range
        With steps of 1.
    places : int32 array, shape (n_places,)
        In ascending order, not negative.

    Returns
    -------
    float32 array, shape (n_places, n_positions)
    """
    if compiled.instructions() == compiled.NONE:
        return plain_normals_at(key, replicate, positions, places)
    out = np.empty((len(places), len(positions)), np.float32)
    compiled.module.normals_at(
        compiled.instructions(), key, replicate, positions.start, len(positions), places, out
    )
    return out


def plain_normals_at(
    key: Words, replicate: int, positions: range, places: Int32Array
) -> Float32Array:
    """The same with NumPy alone."""
    out = np.empty((len(places), len(positions)), np.float32)
    fours, row_of = np.unique(places // 4, return_inverse=True)
    rest = places % 4
    step = max(1, _AT_ONCE // max(1, len(fours)))
    at = np.arange(positions.start, positions.stop, dtype=np.uint32)
    for start in range(0, len(at), step):
        some = at[start : start + step]
        made = _normals(key, replicate, some[None, :], fours.astype(np.uint32)[:, None])
        for row, (four, at_four) in enumerate(zip(row_of, rest, strict=True)):
            out[row, start : start + len(some)] = made[at_four, four]
    return out


def normals_of(key: Words, replicate: int, position: int, n_places: int) -> Float32Array:
    """Standard normals of the first places at one position; shape (n_places,)."""
    if compiled.instructions() == compiled.NONE:
        return plain_normals_of(key, replicate, position, n_places)
    out = np.empty((-(-n_places // 4), 4), np.float32)
    compiled.module.normals_of(compiled.instructions(), key, replicate, position, len(out), out)
    return out.reshape(-1)[:n_places]


def plain_normals_of(key: Words, replicate: int, position: int, n_places: int) -> Float32Array:
    """The same with NumPy alone."""
    out = np.empty((-(-n_places // 4), 4), np.float32)
    for start in range(0, len(out), _AT_ONCE):
        fours = np.arange(start, min(start + _AT_ONCE, len(out)), dtype=np.uint32)
        made = _normals(key, replicate, np.full(1, position, np.uint32), fours)
        out[start : start + len(fours)] = made.T
    return out.reshape(-1)[:n_places]


def threefry(key: Words, counter: Sequence[Words]) -> list[Words]:
    """Four words of each counter, whose four words are arrays that broadcast."""
    shape = np.broadcast_shapes(*(word.shape for word in counter))
    pairs = zip(counter, key[:4], strict=True)
    x = [np.array(np.broadcast_to(word + of_key, shape)) for word, of_key in pairs]
    for number in range(_N_ROUNDS):
        ends = (1, 3) if number % 2 == 0 else (3, 1)
        for left, right, by in zip((0, 2), ends, _ROTATIONS[number % 8], strict=True):
            x[left] += x[right]
            rotated = x[right] << np.uint32(by)
            x[right] >>= np.uint32(32 - by)
            x[right] |= rotated
            x[right] ^= x[left]
        if number % 4 == 3:
            times = (number + 1) // 4
            for at in range(4):
                x[at] += key[(times + at) % 5]
            x[3] += np.uint32(times)
    return x


def _normals(key: Words, replicate: int, positions: Words, fours: Words) -> Float32Array:
    """Of the four places of each counter, shape (4, ...)."""
    with np.errstate(over="ignore"):
        x = threefry(
            key, (positions, fours, np.full(1, replicate, np.uint32), np.zeros(1, np.uint32))
        )
    out = np.empty((4, *x[0].shape), np.float32)
    for at in (0, 2):
        _box_muller(x[at], x[at + 1], out[at], out[at + 1])
    return out


def _box_muller(a: Words, b: Words, cosines: Float32Array, sines: Float32Array) -> None:
    """Two normals of two words, as in _compiled_normals.h, operation by operation."""
    uniform = (a >> np.uint32(1)).view(np.int32).astype(np.float32)
    uniform += np.float32(0.5)
    bits = uniform.view(np.int32)
    power = (bits - np.int32(_HALF_ROOT_BITS)) >> np.int32(23)
    bits -= power << np.int32(23)
    t = uniform  # of the same memory
    t -= np.float32(1)
    logarithm = _polynomial(_LOGARITHM, t)
    square = t * t
    logarithm *= square
    logarithm *= t
    square *= np.float32(-0.5)
    logarithm += square
    logarithm += t
    logarithm *= np.float32(-2)
    twice = (np.int32(31) - power).astype(np.float32)
    twice *= np.float32(1.38629436)
    twice += logarithm
    radius = np.sqrt(twice, out=twice)
    radius.view(np.uint32)[...] |= a << np.uint32(31)
    angle = b.view(np.int32).astype(np.float32)
    angle *= np.float32(2.0**-31)
    np.multiply(angle, angle, out=square)
    np.multiply(_polynomial(_COSINE, square), radius, out=cosines)
    angle *= _polynomial(_SINE, square)
    np.multiply(angle, radius, out=sines)


def _polynomial(coefficients: Sequence[float], x: Float32Array) -> Float32Array:
    """By Horner's rule, each operation rounded to float32."""
    out = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        out *= x
        out += np.float32(coefficient)
    return out
