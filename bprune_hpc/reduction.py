"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter.

Rank 0 keeps what it gets and adds its own part of the next round to it; the other ranks send
theirs and begin again at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from .comm import Comm
from .plan import MEAN, N_GROUPS, Round
from .predictive import DrawSums, GroupSums
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
        This rank's; afterwards those of every round so far on rank 0, empty elsewhere.
    shape : tuple
        n_thresholds, n_examples.
    """
    for group in (MEAN, *range(N_GROUPS)):
        participants = of_round.participants(group)
        if not participants or not (comm.is_root or group in sums):
            continue
        part = sums.pop(group, None) or task.sums(*shape, draws_per_unit)
        if _add_up(comm, part, participants):
            sums[group] = part


def reduce_draws(comm: Comm, draws: AnyDrawSums) -> None:
    """Add up the sums of every draw over all ranks, on rank 0."""
    _add_up(comm, draws, range(comm.size))


def _add_up(comm: Comm, part: AnySums | AnyDrawSums, participants: Sequence[int]) -> bool:
    """Put the sum of the participants' parts in place of rank 0's; whether this is rank 0."""
    if isinstance(part, GroupSums | DrawSums):
        total = comm.sum_to_root(part.packed, participants)
        if total is not None:
            part.packed[...] = total
        return total is not None
    # Bins of ranks can be added once all of them begin at the same place.
    part.sums.align(comm.max_to_all(part.sums.top, participants))
    total = comm.sum_to_root(part.sums.bins, participants)
    if total is not None:
        part.sums.bins = total
    return total is not None
