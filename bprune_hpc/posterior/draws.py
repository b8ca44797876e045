"""Draws, and the standard normals of each: pure functions of seed, tensor, pair, and of examples.

No global state and no rank: any process that asks for the same draw gets the same bits.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._typing import Int32Array
from ..errors import ConfigError
from .normals import Words, key_of, normals_at, normals_of


def check_whole(**numbers: Any) -> None:
    """Refuse what is no whole number: 1.0 would be another seed than 1.

    Raises
    ------
    ConfigError
        With the name that it was given by.
    """
    for name, number in numbers.items():
        try:
            operator.index(number)
        except TypeError:
            raise ConfigError(f"{name}: {number!r} is no whole number") from None


def standard_normal(
    seed: int, tensor: str, replicate: int, shape: Sequence[int]
) -> NDArray[np.float32]:
    """Standard normal noise for one tensor of one replicate.

    The generator is Philox (Salmon et al. 2011), keyed by seed and name, with the replicate in the
    high words of its counter: streams of different replicates cannot meet.

    Parameters
    ----------
    seed : int
        In [0, 2**64).
    tensor : str
        Name of the mean-field tensor.
    replicate : int
        Index of the pair (or of the single draw without pairing), not negative.
    shape : sequence of int

    Returns
    -------
    float32 array of that shape
    """
    digest = hashlib.blake2b(f"{seed}/{tensor}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, replicate, 0], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal(tuple(shape), dtype=np.float32)


def block_normal(
    seed: int, tensor: str, dataset: str, noise: int, block: int, shape: Sequence[int]
) -> NDArray[np.float32]:
    """Standard normal noise for one tensor that a block of examples of a data set has.

    Parameters
    ----------
    noise : int
        Index of the pair (or of the single draw without pairing).
    block : int
        Index of the block.
    """
    key = block_key(seed, dataset, tensor)
    return normals_of(key, noise, block, math.prod(shape)).reshape(tuple(shape))


def block_key(seed: int, dataset: str, tensor: str) -> Words:
    """The key of normals that blocks of a data set's examples have; see :func:`block_normal`."""
    return key_of("per_block", seed, dataset, tensor)


def example_key(seed: int, dataset: str, tensor: str) -> Words:
    """The key of those of single examples; see :class:`ExampleNormals`."""
    return key_of("per_example", seed, dataset, tensor)


@dataclass(frozen=True)
class ExampleNormals:
    """Standard normals of the units of each example; made where and when they are asked for.

    Attributes
    ----------
    seed : int
    dataset : str
        Name of the data set: examples at the same place in two sets share nothing.
    noise : int
        Index of the pair (or of the single draw without pairing).
    """

    seed: int
    dataset: str
    noise: int

    def key(self, tensor: str) -> Words:
        """The key of the units that a tensor of weights leads to."""
        return example_key(self.seed, self.dataset, tensor)

    def of(self, tensor: str, examples: range, units: Int32Array) -> NDArray[np.float32]:
        """Of some units of some examples, by their positions; shape (n_units, n_examples)."""
        return normals_at(self.key(tensor), self.noise, examples, units)


N_GROUPS = 20
"""Units are dealt into this many groups, whatever their number: the jackknife deletes one."""

MEAN = -1
"""The replicate that stands for the network at its posterior mean (no noise), in a group alone."""


@dataclass(frozen=True)
class Draw:
    """One posterior draw: ``loc + sign * scale * standard_normal(..., replicate)``.

    Attributes
    ----------
    index : int
        Position along the draw dimension of the results.
    sign : {1, -1, 0}
        0 is the network at its posterior mean.
    noise : int
        Which standard normals it uses: the index of its pair (or of the draw, without pairing).
    """

    index: int
    sign: int
    noise: int


def replicates_of(
    n_draws: int, pairing: str, noises_per_replicate: int = 1
) -> list[tuple[Draw, ...]]:
    """Draws grouped into their independent replicates: antithetic pairs, or single draws.

    Draw ``k`` of a pairing uses ``(-1)**k`` times the noise of pair ``k // 2``, so that the two
    draws of a pair cancel each other's odd errors (Hammersley and Morton 1956).

    Parameters
    ----------
    n_draws : int
        A multiple of :func:`draws_per_replicate`.
    pairing : {"antithetic", "none"}
    noises_per_replicate : int
        Pairs (or single draws) that make up a replicate; 2 where they are compared with each other.

    Returns
    -------
    list of tuple of Draw
        One entry for each replicate, which is the replicate of every Monte Carlo standard error.
    """
    size = draws_per_replicate(pairing, noises_per_replicate)
    if n_draws % size:
        raise ValueError(f"draws come {size} at a time, but there are {n_draws}")
    if pairing == "none":
        draws = [Draw(k, 1, k) for k in range(n_draws)]
    else:
        draws = [Draw(k, -1 if k % 2 else 1, k // 2) for k in range(n_draws)]
    return [tuple(draws[k : k + size]) for k in range(0, n_draws, size)]


def draws_per_replicate(pairing: str, noises_per_replicate: int = 1) -> int:
    """Draws of one replicate, of which their number is a multiple."""
    return noises_per_replicate * (1 if pairing == "none" else 2)


def in_whole_replicates(n_draws: int, size: int) -> int:
    """At least so many draws, of which none is part of a replicate of this size."""
    return -(-n_draws // size) * size


def group_of(replicate: int) -> int:
    """Group of a replicate: its index modulo 20, so that more draws never regroup earlier ones."""
    return MEAN if replicate == MEAN else replicate % N_GROUPS


def group_sizes(n_replicates: int) -> list[int]:
    """Number of replicates in each group that is not empty, in the order of the groups."""
    return [
        len(range(group, n_replicates, N_GROUPS)) for group in range(min(N_GROUPS, n_replicates))
    ]


@dataclass(frozen=True)
class DrawDesign:
    """Which draws there are, of how many thresholds, and in which steps examples are added up.

    Attributes
    ----------
    replicates : sequence of tuple of Draw
        The independent replicates and their draws.
    n_thresholds : int
    batch_size : int
        Examples that are evaluated, and added up, at once.
    """

    replicates: Sequence[tuple[Draw, ...]]
    n_thresholds: int
    batch_size: int

    @property
    def n_draws(self) -> int:
        """Number of draws, the posterior mean not counted."""
        return sum(len(draws) for draws in self.replicates)

    @property
    def draws_per_replicate(self) -> int:
        """Draws of one replicate."""
        return len(self.replicates[0])

    @property
    def group_sizes(self) -> list[int]:
        """Number of replicates in each group."""
        return group_sizes(len(self.replicates))
