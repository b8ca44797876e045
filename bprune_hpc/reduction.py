"""Sums of all ranks brought together on rank 0: exact, so that who added what does not matter."""

from __future__ import annotations

from collections.abc import Mapping

from .comm import Comm
from .plan import MEAN, Plan
from .predictive import DrawSums, GroupSums


def reduce_groups(
    comm: Comm, plan: Plan, sums: Mapping[int, GroupSums], shape: tuple[int, int, int]
) -> dict[int, GroupSums]:
    """Add up each group over the ranks that have a part of it; every rank calls this.

    Parameters
    ----------
    sums : mapping of group to GroupSums
        This rank's.
    shape : tuple
        n_thresholds, n_examples, n_classes.

    Returns
    -------
    dict of group to GroupSums
        On rank 0, every group and ``MEAN``; empty elsewhere.
    """
    out = {}
    for group in (MEAN, *range(len(plan.group_sizes))):
        part = sums.get(group)
        if part is None and not comm.is_root:
            continue
        part = part or GroupSums(*shape)
        total = comm.sum_to_root(part.packed, plan.participants(group))
        if total is not None:
            part.packed = total
            out[group] = part
    return out


def reduce_draws(comm: Comm, draws: DrawSums) -> DrawSums | None:
    """Add up the sums of every draw over all ranks; ``None`` except on rank 0."""
    total = comm.sum_to_root(draws.packed, range(comm.size))
    return None if total is None else DrawSums(total)
