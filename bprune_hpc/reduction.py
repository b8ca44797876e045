"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter.

Rank 0 keeps what it gets and goes on adding its own part to it; the other ranks send theirs, and
begin again at zero. When that is done does not belong here (``outstanding``, ``gathering``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .binned_sums import BinnedSums
from .comm import Comm
from .predictive import DrawSums, GroupSums
from .sum_tree import Part
from .tasks import AnyDrawSums, AnySums


def reduce_groups(
    comm: Comm,
    participants: Mapping[int, Sequence[int]],
    sums: dict[int, AnySums],
    make: Callable[[], AnySums],
) -> None:
    """Add up each group over the ranks that had a part of it; every rank calls this.

    Parameters
    ----------
    participants : mapping of group to sequence of int
        Ranks that have a part.
    sums : dict of group to AnySums
        This rank's; afterwards those of every round so far on rank 0, and spent elsewhere.
    make : callable
        Gives sums, whatever their numbers, for a group that rank 0 has no part of.
    """
    empty = participants.keys() - sums.keys() if comm.is_root else set()
    for group in sorted(empty):
        sums[group] = make()
    mine = [group for group in participants if comm.is_root or comm.rank in participants[group]]
    parts = {group: _part(sums[group], is_empty=group in empty) for group in mine}
    comm.add_to_root(parts, participants)


def reduce_draws(comm: Comm, draws: AnyDrawSums) -> None:
    """Add up the sums of every draw over all ranks, on rank 0."""
    comm.add_to_root({0: _part(draws)}, {0: range(comm.size)})


class _Integers:
    """Sums that are integers."""

    def __init__(self, sums: NDArray[np.int64], is_empty: bool) -> None:
        self.is_empty = is_empty
        if not sums.flags.c_contiguous:
            raise ValueError("sums that are not contiguous cannot be added to in place")
        self.arrays = (sums.reshape(-1),)

    def add(self, at: slice, arrays: Sequence[NDArray[np.int64]]) -> None:
        self.arrays[0][at] += arrays[0]


class _Binned:
    """Sums that are integers in bins, of which each rank's begin at a place of their own."""

    def __init__(self, sums: BinnedSums, is_empty: bool) -> None:
        self.is_empty = is_empty
        self._sums = sums
        self.arrays = sums.arrays

    def add(self, at: slice, arrays: Sequence[NDArray[np.int64]]) -> None:
        top, bins = arrays
        self._sums.add_sums(at, top, bins)


def _part(sums: AnySums | AnyDrawSums, is_empty: bool = False) -> Part:
    if isinstance(sums, GroupSums):
        return _Integers(sums.buffer, is_empty)
    if isinstance(sums, DrawSums):
        return _Integers(sums.packed, is_empty)
    return _Binned(sums.sums, is_empty)
