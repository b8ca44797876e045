"""How the sums of all ranks come together on rank 0: who sends what to whom, in which pieces.

Pure. A message to rank 0 costs it time that the others spend elsewhere. So ranks that share a sum
bring it together among themselves first, those of one sum at the same time as those of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 4 * 2**20  # what has come is added while it is in the cache


class Part(Protocol):
    """One rank's part of sums that others have a part of too.

    Attributes
    ----------
    is_empty : bool
        Whether it has nothing yet, and its arrays are there to be filled by what comes first.
    """

    is_empty: bool

    @property
    def arrays(self) -> Sequence[NDArray[np.int64]]:
        """All that the part consists of, contiguous, each of shape (n_sums, ...)."""

    def add(self, at: slice, arrays: Sequence[NDArray[np.int64]]) -> None:
        """Add another rank's part of some of the sums; the order of ranks makes no difference."""


def messages(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield sender and receiver of each message: a binomial tree, the last of them to rank 0.

    A rank receives from others before it sends, and sends once. Where several sums are taken in
    the same order on every rank, none waits for another in a circle.

    Parameters
    ----------
    members : sequence of int
        Ranks that have a part, ascending.
    """
    step = 1
    while step < len(members):
        for place in range(0, len(members) - step, 2 * step):
            yield members[place + step], members[place]
        step *= 2
    if members and members[0] != 0:
        yield members[0], 0


def n_steps(sums: Iterable[Sequence[int]]) -> int:
    """Messages that take place one after the other until all sums are on rank 0.

    Parameters
    ----------
    sums : iterable of sequence of int
        Members of each, in the order in which every rank takes them.
    """
    free: Counter[int] = Counter()
    for members in sums:
        for sender, receiver in messages(members):
            free[sender] = free[receiver] = 1 + max(free[sender], free[receiver])
    return free[0]


def pieces(part: Part) -> Iterator[slice]:
    """Yield which sums are sent at once; the first piece is the largest."""
    n_sums = len(part.arrays[0])
    if not n_sums:
        return
    bytes_per_sum = sum(array[:1].nbytes for array in part.arrays)
    step = max(1, _PIECE_BYTES // bytes_per_sum)
    for start in range(0, n_sums, step):
        yield slice(start, min(start + step, n_sums))
