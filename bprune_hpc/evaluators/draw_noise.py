"""Which examples share the noise of a draw: all of them, a block, or none with another.

What belongs here: who gets which standard normals. What does not: making them
(``posterior.draws``), which way fits a network (``evaluators.selection``), running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..errors import ConfigError
from ..posterior.draws import MEAN, Draw, ExampleNormals, block_normal, standard_normal
from ..posterior.mean_field import Posterior
from .interface import Noise

DRAW_NOISES = {
    "shared": "one network a draw, the same for all examples",
    "per_block": "a network of its own for each block of examples",
    "per_example": "noise of its own for each example",
}
"""What a draw is."""

_NOISE_BYTES = 64 * 2**20
_MOST_REPLICATES = 25
"""How much noise is held, to be used at every threshold: as many replicates as fit, but not more. A
sweep of 50 draws holds as much: more draws take no more memory."""

_NORMAL_PRODUCTS = 300
"""Multiplications of which the time of a weight's normal is a tenth; measured."""
_CALL_PRODUCTS = 60_000_000
"""Multiplications of which the time of calling a network is a tenth."""
_LEAST_BLOCK, _MOST_BLOCK = 64, 1024
"""The least is as many as compiled convolutions take at once: for fewer, weights take longer."""


def default_block(n_weights: int, n_multiplications: int) -> int:
    """Examples of a block: as few as keep normals to a tenth of the time of products.

    Parameters
    ----------
    n_weights : int
        Weights that are drawn.
    n_multiplications : int
        Of one draw for one example; a pair of draws has the same normals.

    Returns
    -------
    int
        A power of 2.
    """
    wanted = (_NORMAL_PRODUCTS * n_weights / 2 + _CALL_PRODUCTS / 2) / max(1, n_multiplications)
    size = 2 ** math.ceil(math.log2(max(1, wanted)))
    return min(max(size, _LEAST_BLOCK), _MOST_BLOCK)


def blocks_of(examples: range, block: int) -> Iterator[range]:
    """Parts of examples, by their positions in the data set, of which each is of one block."""
    start = examples.start
    while start < examples.stop:
        stop = min((start // block + 1) * block, examples.stop)
        yield range(start, stop)
        start = stop


@dataclass(frozen=True)
class DrawNoise:
    """The noise of a sweep.

    Attributes
    ----------
    kind : str
        A key of :data:`DRAW_NOISES`.
    block : int
        Examples that share their noise, where it is by block.
    seed : int
    """

    kind: str
    block: int
    seed: int

    def runs(self, examples: range) -> Iterator[range]:
        """Examples, by their positions in the data set, in parts that a draw takes alike."""
        yield from blocks_of(examples, self.block) if self.kind == "per_block" else [examples]

    def batch_size(self, most: int) -> int:
        """Examples to evaluate at once: a block is whole batches, or one.

        Raises
        ------
        ConfigError
            If so many at most make no parts of a block that are nearly as large.
        """
        if self.kind != "per_block":
            return most
        size = next(size for size in range(min(most, self.block), 0, -1) if not self.block % size)
        if 2 * size < min(most, self.block):
            raise ConfigError(
                f"--noise_block: {self.block} examples are no whole number of batches of "
                f"--batch_size={most} at most; give a multiple of it, or less"
            )
        return size

    def of_replicate(
        self,
        posterior: Posterior,
        replicate: int,
        replicates: Sequence[tuple[Draw, ...]],
        dataset: str,
        example: int,
    ) -> list[Noise]:
        """Standard normals of a replicate, once for the draws that share them; none for the mean.

        Parameters
        ----------
        dataset : str
            Name of the set of examples.
        example : int
            Position of the first example of a run; see :meth:`runs`.
        """
        if replicate == MEAN:
            return [Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)]
        return [
            self._noise(posterior, replicate, tuple(draws), index, dataset, example)
            for index, draws in groupby(replicates[replicate], key=lambda draw: draw.noise)
        ]

    def _noise(
        self,
        posterior: Posterior,
        replicate: int,
        draws: tuple[Draw, ...],
        index: int,
        dataset: str,
        example: int,
    ) -> Noise:
        if self.kind == "per_example":
            return Noise(replicate, draws, None, ExampleNormals(self.seed, dataset, index))
        shapes = {name: scale.shape for name, scale in posterior.scale.items()}
        if self.kind == "shared":
            of_weights = {
                name: standard_normal(self.seed, name, index, shape)
                for name, shape in shapes.items()
            }
        else:
            at = example // self.block
            of_weights = {
                name: block_normal(self.seed, name, dataset, index, at, shape)
                for name, shape in shapes.items()
            }
        return Noise(replicate, draws, of_weights)

    def replicates_at_once(self, n_weights: int) -> int:
        """Replicates whose noise is held at a time, of a network with so many weights."""
        if self.kind == "per_example":  # made where it is needed
            return _MOST_REPLICATES
        return min(_MOST_REPLICATES, max(1, _NOISE_BYTES // (4 * n_weights)))
