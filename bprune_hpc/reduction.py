"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .comm import Comm
from .plan import MEAN, Plan
from .predictive import DrawSums, GroupSums
from .tasks import AnyDrawSums, AnySums, Task


def reduce_groups(
    comm: Comm, plan: Plan, sums: Mapping[int, AnySums], task: Task, shape: tuple[int, int]
) -> dict[int, AnySums]:
    """Add up each group over the ranks that have a part of it; every rank calls this.

    Parameters
    ----------
    sums : mapping of group to AnySums
        This rank's.
    shape : tuple
        n_thresholds, n_examples.

    Returns
    -------
    dict of group to AnySums
        On rank 0, every group and ``MEAN``; empty elsewhere.
    """
    out = {}
    for group in (MEAN, *range(len(plan.group_sizes))):
        part = sums.get(group)
        if part is None and not comm.is_root:
            continue
        part = part or task.sums(*shape, len(plan.units[0]))
        if _add_up(comm, part, plan.participants(group)):
            out[group] = part
    return out


def reduce_draws(comm: Comm, draws: AnyDrawSums) -> AnyDrawSums | None:
    """Add up the sums of every draw over all ranks; ``None`` except on rank 0."""
    return draws if _add_up(comm, draws, range(comm.size)) else None


def _add_up(comm: Comm, part: AnySums | AnyDrawSums, participants: Sequence[int]) -> bool:
    """Put the sum of the participants' parts in place of rank 0's; whether this is rank 0."""
    if isinstance(part, GroupSums | DrawSums):
        total = comm.sum_to_root(part.packed, participants)
        if total is not None:
            part.packed = total
        return total is not None
    # Bins of ranks can be added once all of them begin at the same place.
    part.sums.align(comm.max_to_all(part.sums.top, participants))
    total = comm.sum_to_root(part.sums.bins, participants)
    if total is not None:
        part.sums.bins = total
    return total is not None
