"""Who does what: (replicates × thresholds) split over ranks. Pure arithmetic.

The work is a table of items, one for each replicate and threshold, read replicate by
replicate. Each rank takes one unbroken run of items, so that any number of ranks is served, also
more ranks than draws; a rank draws a replicate's noise once and uses it for every threshold of its
run. The replicates are taken in supersteps, after each of which all that was drawn so far makes a
whole result. No sum depends on how replicates are dealt to supersteps or ranks, so that the clock
may decide it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from ..posterior.draws import MEAN, DrawDesign, group_of, group_sizes, replicates_of


@dataclass(frozen=True)
class Partition:
    """A rank's part: the work items ``start`` to ``stop`` of the table ``replicates`` × thresholds.

    Attributes
    ----------
    by_threshold : bool
        Whether items are counted threshold by threshold; else replicate by replicate.
    cost : int
        Work of all items, in the measure that they were dealt by.
    """

    replicates: tuple[int, ...]
    n_thresholds: int
    start: int
    stop: int
    by_threshold: bool = False
    cost: int = 0

    def __iter__(self) -> Iterator[tuple[int, range]]:
        """Yield each replicate of the partition with the positions of its thresholds."""
        n_replicates, width = len(self.replicates), self.n_thresholds
        if self.by_threshold:
            for at, replicate in enumerate(
                self.replicates
            ):  # from one of its items to the next: n_replicates
                positions = range(
                    -((at - self.start) // n_replicates), -((at - self.stop) // n_replicates)
                )
                if positions:
                    yield replicate, positions
            return
        for at in range(self.start // width, -(-self.stop // width)):
            first, last = self.start - at * width, self.stop - at * width
            positions = range(max(first, 0), min(last, width))
            if positions:
                yield self.replicates[at], positions

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def groups(self) -> frozenset[int]:
        """Jackknife groups that this partition adds to."""
        return frozenset(group_of(replicate) for replicate, _ in self)


def split(replicates: Iterable[int], costs: Sequence[int], n_ranks: int) -> tuple[Partition, ...]:
    """Split replicates and thresholds over ranks.

    Replicates are taken by jackknife group, so that a rank adds to few and has few sums to send. Of
    the mean and a single replicate thresholds are dealt: what a rank does once for each of them, it
    then does for fewer, though it adds to two jackknife groups.

    Parameters
    ----------
    replicates : iterable of int
        ``MEAN`` may be among them.
    costs : sequence of int, length n_thresholds
        Work of a replicate at each threshold, in any measure; at least 1. Pruned networks take
        less.
    n_ranks : int
        At least 1.

    Returns
    -------
    tuple of Partition
        One for each rank, work differing by less than an item; empty where there are more ranks
        than items.
    """
    ordered = tuple(sorted(replicates, key=lambda replicate: (group_of(replicate), replicate)))
    by_threshold = len(ordered) == 2 and ordered[0] == MEAN
    n_rows, columns = len(ordered), costs
    if by_threshold:
        n_rows, columns = 1, [cost for cost in costs for _ in ordered]
    until = [0, *accumulate(columns)]
    bounds, until_bound = [], []
    for rank in range(n_ranks + 1):
        row, rest = divmod(n_rows * until[-1] * rank // n_ranks, until[-1])
        # The end of an item that is nearest to an equal share of the work.
        after = bisect_left(until, rest)
        if after and rest - until[after - 1] < until[after] - rest:
            after -= 1
        bounds.append(row * len(columns) + after)
        until_bound.append(row * until[-1] + until[after])
    return tuple(
        Partition(ordered, len(costs), *items, by_threshold, after - before)
        for items, (before, after) in zip(pairwise(bounds), pairwise(until_bound), strict=True)
    )


@dataclass(frozen=True)
class Assignment:
    """Units that are dealt to the ranks together.

    Attributes
    ----------
    partitions : tuple of Partition
        One for each rank.
    """

    partitions: tuple[Partition, ...]

    @property
    def evenness(self) -> float:
        """Work of the average rank, relative to that of the one which has most; 1 if all are even.

        The rest is waiting: items cannot be divided.
        """
        of_ranks = [partition.cost for partition in self.partitions]
        return sum(of_ranks) / (len(of_ranks) * max(1, *of_ranks))


def assign(replicates: range, costs: Sequence[int], n_ranks: int) -> Assignment:
    """Deal a range of replicates to the ranks, the posterior mean with the first; see
    :func:`split`.
    """
    with_mean = [MEAN, *replicates] if replicates.start == 0 else replicates
    return Assignment(split(with_mean, costs, n_ranks))


def even_number(wanted: float, n_thresholds: int, n_ranks: int, n_together: int = 1) -> int:
    """About as many replicates as are wanted, at least 1, so that few ranks have less to do than
    others.

    As many as give every rank the same number of work items, or at least one. Where every rank
    draws as many together as it can, more than once, a last time with less than half as many is
    left out.
    """
    whole, equal = n_ranks * n_together, n_ranks // math.gcd(n_ranks, n_thresholds)
    if wanted >= whole and wanted % whole < whole / 2:
        return int(wanted) // whole * whole
    if wanted >= equal:
        return int(wanted) // equal * equal
    return max(int(wanted), least_number(n_thresholds, n_ranks))


def least_number(n_thresholds: int, n_ranks: int) -> int:
    """Units of which every rank has at least one work item."""
    return -(-n_ranks // n_thresholds)


def doubling(first: int, last: int) -> list[int]:
    """``first``, its double, and so on while below ``last``; then ``last``."""
    out = []
    while first < last:
        out.append(first)
        first *= 2
    return [*out, last]


def example_blocks(
    n_examples: int, batch_size: int, bytes_per_example: int, limit_bytes: float
) -> list[range]:
    """Blocks of examples whose exact sums fit in a memory limit.

    Blocks are whole batches, so that what is evaluated together never depends on the limit; one
    batch is the least. Without sums of examples all are one block.

    Parameters
    ----------
    bytes_per_example : int
        Bytes of all jackknife groups and thresholds for one example.
    limit_bytes : float
    """
    if not bytes_per_example:
        return [range(n_examples)]
    batches = max(1, int(limit_bytes // (bytes_per_example * batch_size)))
    step = batches * batch_size
    return [range(at, min(at + step, n_examples)) for at in range(0, n_examples, step)]


@dataclass(frozen=True)
class Plan(DrawDesign):
    """The whole of a sweep's work on a set of examples.

    Attributes
    ----------
    blocks : tuple of range
        Examples that are taken together, one block after the other.
    stage_ends : tuple of int
        Numbers of replicates, ascending, at which the sums are looked at; the last is all of them.
    """

    blocks: tuple[range, ...]
    stage_ends: tuple[int, ...]

    def until(self, n_replicates: int) -> Plan:
        """The plan of a sweep that ends after some of the replicates."""
        return replace(self, replicates=self.replicates[:n_replicates], stage_ends=(n_replicates,))


def make_plan(
    *,
    n_draws: int,
    pairing: str,
    n_thresholds: int,
    n_examples: int,
    bytes_per_cell: int,
    batch_size: int,
    limit_bytes: float,
    noises_per_replicate: int = 1,
    stage_ends: Sequence[int] = (),
) -> Plan:
    """Lay out a sweep.

    Parameters
    ----------
    bytes_per_cell : int
        Bytes of a jackknife group's sums for one threshold and example; 0 where none are kept.
    batch_size : int
        At most; never more than there are examples.
    limit_bytes : float
        What the sums of all jackknife groups may take on rank 0.
    noises_per_replicate : int
        See :func:`replicates_of`.
    stage_ends : sequence of int
        Numbers of draws, ascending, at which to look at the sums; at ``n_draws`` in any case.
    """
    replicates = replicates_of(n_draws, pairing, noises_per_replicate)
    batch_size = min(batch_size, n_examples)
    n_groups = 1 + len(group_sizes(len(replicates)))
    blocks = example_blocks(
        n_examples, batch_size, bytes_per_cell * n_groups * n_thresholds, limit_bytes
    )
    size = n_draws // len(replicates)
    ends = sorted({-(-end // size) for end in stage_ends if end < n_draws} | {len(replicates)})
    return Plan(replicates, n_thresholds, batch_size, tuple(blocks), tuple(ends))
