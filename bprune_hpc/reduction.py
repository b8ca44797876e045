"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter.

Rank 0 keeps what it gets and adds its own part of the next stage to it; the other ranks send
theirs and begin again at zero.
"""

from __future__ import annotations

from .comm import Comm
from .plan import MEAN, N_GROUPS, Stage
from .predictive import DrawSums, GroupSums


def reduce_groups(
    comm: Comm, stage: Stage, sums: dict[int, GroupSums], shape: tuple[int, int, int]
) -> None:
    """Add up each group over the ranks that had a part of it; every rank calls this.

    Parameters
    ----------
    sums : dict of group to GroupSums
        This rank's; afterwards those of every stage so far on rank 0, empty elsewhere.
    shape : tuple
        n_thresholds, n_examples, n_classes.
    """
    for group in (MEAN, *range(N_GROUPS)):
        participants = stage.participants(group)
        if not participants or not (comm.is_root or group in sums):
            continue
        part = sums.pop(group, None) or GroupSums(*shape)
        total = comm.sum_to_root(part.packed, participants)
        if total is not None:
            part.packed = total
            sums[group] = part


def reduce_draws(comm: Comm, draws: DrawSums) -> None:
    """Add up the sums of every draw over all ranks, as :func:`reduce_groups` does."""
    total = comm.sum_to_root(draws.packed, range(comm.size))
    draws.packed[...] = 0 if total is None else total
