"""The noise of a training step as a function of seed, rank and step, so that a resume has the same.

What belongs here: the random operations of a graph, and their values. What does not: which step is
next (``train``).

TensorFlow's random operations count their own runs inside a session, and nothing sets that count;
they also take half of the time of a step. So they are not run: NumPy's values are fed in their
place, and the saved graph is not touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alignment import aligned, extent, views_of
from ..models.layers import ancestors

_BLOCK = 2**16  # numbers that stay in the cache
_UNIT = np.float32(2.0**-31 * (1 - 2.0**-23))  # makes numbers below 1 of 32 bits
_TURN = np.float32(np.pi * 2.0**-31)
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
_NORMALS, _INTEGERS = "RandomStandardNormal", "StatelessRandomUniformIntV2"


class Noise:
    """Standard normals and random signs that a tensor depends on, run by run.

    The generator is SFC64 (Doty-Humphrey), seeded anew in each run by seed, rank and run.

    Parameters
    ----------
    output : tf.Tensor
        Of its graph, the random operations that lead to it are those of weights (normals of their
        shape), of units (normals by example) and Flipout's signs (by example).
    seed, rank : int
    n_runs : int
        Runs that there have been.
    is_shared : bool
        Whether all examples of a run are to have the same draw of the weights: Flipout's signs are
        all 1 then.

    Attributes
    ----------
    fed : list of tf.Tensor
        Normals first, then signs; in the order of the graph.
    """

    def __init__(
        self, output: Any, seed: int, rank: int = 0, n_runs: int = 0, is_shared: bool = False
    ) -> None:
        self.n_runs = n_runs
        self._is_shared = is_shared
        self._key = seed, rank
        operations = ancestors(output)
        normals = [op.outputs[0] for op in operations if op.type == _NORMALS]
        signs = [_cast(op) for op in operations if op.type == _INTEGERS]
        self._n_normals = len(normals)
        self.fed = [*normals, *signs]
        self._shapes = [tensor.shape.as_list() for tensor in self.fed]
        self._n_examples = -1

    def next(self, n_examples: int) -> list[NDArray[np.float32]]:
        """What to feed in the next run, in the order of :attr:`fed`; valid until the next call."""
        if n_examples != self._n_examples:
            self._lay_out(n_examples)
        seed, rank = self._key
        key = np.random.SeedSequence(seed, spawn_key=(rank, self.n_runs))
        bits = np.random.SFC64(key)
        standard_normal(bits, self._normals)
        if not self._is_shared:
            eights = self._signs.reshape(-1, 8)
            drawn = bits.random_raw(-(-len(eights) // 8)).view(np.uint8)
            np.take(_SIGNS, drawn[: len(eights)], axis=0, out=eights, mode="clip")
        self.n_runs += 1
        return self._views

    def _lay_out(self, n_examples: int) -> None:
        shapes = [[n_examples if n is None else n for n in shape] for shape in self._shapes]
        parts = shapes[: self._n_normals], shapes[self._n_normals :]
        self._normals, self._signs = (aligned(extent(part)) for part in parts)
        self._signs[:] = 1
        self._views = [*views_of(self._normals, parts[0]), *views_of(self._signs, parts[1])]
        self._n_examples = n_examples


def standard_normal(bits: np.random.SFC64, out: NDArray[np.float32]) -> None:
    """Fill an array of even length with standard normals, of magnitudes up to 6.8.

    Four times as fast as NumPy's generator, which looks at each number: whole blocks go through
    logarithm, root, sine and cosine. The last bits depend on NumPy and on the type of CPU.

    References
    ----------
    G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
    """
    radius, angle = np.empty((2, _BLOCK // 2), np.float32)
    for start in range(0, len(out), _BLOCK):
        block = out[start : start + _BLOCK]
        half = len(block) // 2
        r, phi = radius[:half], angle[:half]
        drawn = bits.random_raw(half).view(np.int32)
        np.multiply(drawn[:half], _UNIT, out=r, dtype=np.float32, casting="unsafe")
        np.abs(r, out=r)
        r += np.float32(2.0**-33)  # above 0, which has no logarithm
        np.log(r, out=r)
        r *= np.float32(-2)
        np.sqrt(r, out=r)
        np.multiply(drawn[half:], _TURN, out=phi, dtype=np.float32, casting="unsafe")
        np.multiply(np.cos(phi, out=block[:half]), r, out=block[:half])
        np.multiply(np.sin(phi, out=block[half:]), r, out=block[half:])


def _cast(op: Any) -> Any:
    """The signs as numbers that an operation's bits are made into."""
    while op.type != "Cast":
        (op,) = op.outputs[0].consumers()
    return op.outputs[0]
