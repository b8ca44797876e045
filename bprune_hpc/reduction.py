"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter.

Rank 0 keeps what it gets and adds its own part of the next round to it; the other ranks send
theirs, and begin again at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .binned_sums import BinnedSums
from .comm import Comm
from .plan import MEAN, N_GROUPS, Round
from .predictive import DrawSums, GroupSums
from .sum_tree import Part
from .tasks import AnyDrawSums, AnySums, Task


def reduce_groups(
    comm: Comm,
    of_round: Round,
    sums: dict[int, AnySums],
    task: Task,
    shape: tuple[int, int],
    draws_per_unit: int,
) -> None:
    """Add up each group over the ranks that had a part of it; every rank calls this.

    Parameters
    ----------
    sums : dict of group to AnySums
        This rank's; afterwards those of every round so far on rank 0, and spent elsewhere.
    shape : tuple
        n_thresholds, n_examples.
    """
    participants = {group: of_round.participants(group) for group in (MEAN, *range(N_GROUPS))}
    participants = {group: ranks for group, ranks in participants.items() if ranks}
    if comm.is_root:
        for group in sorted(participants.keys() - sums.keys()):
            sums[group] = task.sums(*shape, draws_per_unit)
    mine = [group for group in participants if comm.is_root or comm.rank in participants[group]]
    comm.add_to_root({group: _part(sums[group]) for group in mine}, participants)


def reduce_draws(comm: Comm, draws: AnyDrawSums) -> None:
    """Add up the sums of every draw over all ranks, on rank 0."""
    comm.add_to_root({0: _part(draws)}, {0: range(comm.size)})


class _Integers:
    """Sums that are integers."""

    def __init__(self, sums: NDArray[np.int64]) -> None:
        if not sums.flags.c_contiguous:
            raise ValueError("sums that are not contiguous cannot be added to in place")
        self.arrays = (sums.reshape(-1),)

    def add(self, at: slice, arrays: Sequence[NDArray[np.int64]]) -> None:
        self.arrays[0][at] += arrays[0]


class _Binned:
    """Sums that are integers in bins, of which each rank's begin at a place of their own."""

    def __init__(self, sums: BinnedSums) -> None:
        self._sums = sums
        self.arrays = sums.arrays

    def add(self, at: slice, arrays: Sequence[NDArray[np.int64]]) -> None:
        top, bins = arrays
        self._sums.add_sums(at, top, bins)


def _part(sums: AnySums | AnyDrawSums) -> Part:
    if isinstance(sums, GroupSums):
        return _Integers(sums.buffer)
    if isinstance(sums, DrawSums):
        return _Integers(sums.packed)
    return _Binned(sums.sums)
