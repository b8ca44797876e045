"""Sums of all ranks, reduced on rank 0: exact, so that who added what does not matter.

Until then ranks hold the sums of the jackknife groups that they add to, of which rank 0 keeps
account. It keeps what it gets and goes on adding its own part to it; the other ranks send theirs,
and begin again at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..accumulators.binned import BinnedSums
from ..accumulators.classification import DrawSums, GroupSums
from ..metrics.tasks import AnyDrawSums, AnySums
from ..mpi.comm import Comm
from ..mpi.reduction_tree import Part
from ..posterior.draws import MEAN, N_GROUPS
from .work_split import Assignment, assign


class PendingReductions:
    """Jackknife groups that other ranks have a part of, which rank 0 has not got yet.

    Parameters
    ----------
    most : int
        Groups that a rank may hold, or as many as an assignment has it add to if those are more.
    """

    def __init__(self, n_ranks: int, most: int = N_GROUPS + 1) -> None:
        self._groups: list[set[int]] = [set() for _ in range(n_ranks)]
        self._most = most

    def __bool__(self) -> bool:
        """Whether there is anything to reduce."""
        return any(self._groups[1:])

    def has_room(self, assignment: Assignment) -> bool:
        """Whether ranks may take up an assignment before sums are reduced."""
        return all(
            len(groups | partition.groups) <= max(self._most, len(partition.groups))
            for groups, partition in zip(self._groups[1:], assignment.partitions[1:], strict=True)
        )

    def add(self, assignment: Assignment) -> None:
        """Take in the partitions of an assignment."""
        if not self:
            self.clear()  # what rank 0 alone added to is there
        for groups, partition in zip(self._groups, assignment.partitions, strict=True):
            groups |= partition.groups

    def clear(self) -> None:
        """All is on rank 0."""
        self._groups = [set() for _ in self._groups]

    @property
    def participants(self) -> dict[int, tuple[int, ...]]:
        """Ranks, ascending, that have a part of a jackknife group, where others than rank 0 do."""
        members = {
            group: tuple(rank for rank, groups in enumerate(self._groups) if group in groups)
            for group in (MEAN, *range(N_GROUPS))
        }
        return {group: ranks for group, ranks in members.items() if any(ranks)}


def most_groups_held(n_replicates: int, n_thresholds: int, n_ranks: int) -> int:
    """Groups that a rank other than 0 may hold the sums of: somewhat more than of a long superstep.

    From one to the next partitions begin and end elsewhere; the first has the posterior mean.
    Without a bound each rank would in time hold those of all groups, as much as rank 0.
    """
    if n_ranks == 1:
        return 0
    of_all = assign(range(n_replicates), [1] * n_thresholds, n_ranks)
    of_one = max(2, *(len(partition.groups) for partition in of_all.partitions))
    return min(of_one + of_one // 4 + 3, N_GROUPS + 1)


def reduce_groups(
    comm: Comm,
    participants: Mapping[int, Sequence[int]],
    sums: dict[int, AnySums],
    make: Callable[[], AnySums],
) -> None:
    """Add up each jackknife group over the ranks that had a part of it; every rank calls this.

    Parameters
    ----------
    participants : mapping of jackknife group to sequence of int
        Ranks that have a part.
    sums : dict of jackknife group to AnySums
        This rank's; afterwards those of every superstep so far on rank 0, and none elsewhere.
    make : callable
        Gives sums, whatever their numbers, for a group that rank 0 has no part of.
    """
    empty = participants.keys() - sums.keys() if comm.is_root else set()
    for group in sorted(empty):
        sums[group] = make()
    mine = [group for group in participants if comm.is_root or comm.rank in participants[group]]
    parts = {group: _part(sums[group], is_empty=group in empty) for group in mine}
    comm.add_to_root(parts, participants)
    if not comm.is_root:
        sums.clear()


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
