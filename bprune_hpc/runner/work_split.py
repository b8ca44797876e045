"""Who does what: (units of draws × thresholds) split over ranks. Pure arithmetic.

The work is a table of items, one for each unit of draws and threshold, read unit by unit. Each
rank takes one unbroken run of items, so that any number of ranks is served, also more ranks
than draws; a rank draws a unit's noise once and uses it for every threshold of its run. The units
are taken in supersteps, after each of which all that was drawn so far makes a whole result. No sum
depends on how units are dealt to supersteps or ranks, so that the clock may decide it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from ..posterior.draws import MEAN, DrawDesign, group_of, group_sizes, units_of


@dataclass(frozen=True)
class Partition:
    """A rank's part: the work items ``start`` to ``stop`` of the table ``units`` × thresholds.

    Attributes
    ----------
    by_threshold : bool
        Whether items are counted threshold by threshold; else unit by unit.
    cost : int
        Work of all items, in the measure that they were dealt by.
    """

    units: tuple[int, ...]
    n_thresholds: int
    start: int
    stop: int
    by_threshold: bool = False
    cost: int = 0

    def __iter__(self) -> Iterator[tuple[int, range]]:
        """Yield each unit of the partition with the thresholds to evaluate it at."""
        n_units, width = len(self.units), self.n_thresholds
        if self.by_threshold:
            for at, unit in enumerate(self.units):  # from one of its items to the next: n_units
                thresholds = range(-((at - self.start) // n_units), -((at - self.stop) // n_units))
                if thresholds:
                    yield unit, thresholds
            return
        for at in range(self.start // width, -(-self.stop // width)):
            first, last = self.start - at * width, self.stop - at * width
            thresholds = range(max(first, 0), min(last, width))
            if thresholds:
                yield self.units[at], thresholds

    def __len__(self) -> int:
        return self.stop - self.start

    @cached_property
    def groups(self) -> frozenset[int]:
        """Jackknife groups that this partition adds to."""
        return frozenset(group_of(unit) for unit, _ in self)


def split(units: Iterable[int], costs: Sequence[int], n_ranks: int) -> tuple[Partition, ...]:
    """Split units and thresholds over ranks.

    Units are taken group by group, so that a rank adds to few groups and has few sums to send. Of
    the mean and a single unit thresholds are dealt: what a rank does once for each of them, it then
    does for fewer, though it adds to two groups.

    Parameters
    ----------
    units : iterable of int
        ``MEAN`` may be among them.
    costs : sequence of int, length n_thresholds
        Work of a unit at each threshold, in any measure; at least 1. Pruned networks take less.
    n_ranks : int
        At least 1.

    Returns
    -------
    tuple of Partition
        One for each rank, work differing by less than an item; empty where there are more ranks
        than items.
    """
    ordered = tuple(sorted(units, key=lambda unit: (group_of(unit), unit)))
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


def assign(units: range, costs: Sequence[int], n_ranks: int) -> Assignment:
    """Deal a range of units to the ranks, the posterior mean with the first; see :func:`split`."""
    with_mean = [MEAN, *units] if units.start == 0 else units
    return Assignment(split(with_mean, costs, n_ranks))


def even_number(wanted: float, n_thresholds: int, n_ranks: int, n_together: int = 1) -> int:
    """About as many units as are wanted, at least 1, so that few ranks have less to do than others.

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
    batch is the least.

    Parameters
    ----------
    bytes_per_example : int
        Bytes of all groups and thresholds for one example.
    limit_bytes : float
    """
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
        Numbers of units, ascending, at which the sums are looked at; the last is all of them.
    """

    blocks: tuple[range, ...]
    stage_ends: tuple[int, ...]

    def until(self, n_units: int) -> Plan:
        """The plan of a sweep that ends after some of the units."""
        return replace(self, units=self.units[:n_units], stage_ends=(n_units,))


def make_plan(
    *,
    n_draws: int,
    pairing: str,
    n_thresholds: int,
    n_examples: int,
    bytes_per_cell: int,
    batch_size: int,
    limit_bytes: float,
    noises_per_unit: int = 1,
    stage_ends: Sequence[int] = (),
) -> Plan:
    """Lay out a sweep.

    Parameters
    ----------
    bytes_per_cell : int
        Bytes of one group's sums for one threshold and example.
    batch_size : int
        At most; never more than there are examples.
    limit_bytes : float
        What all groups' sums may take on rank 0.
    noises_per_unit : int
        See :func:`units_of`.
    stage_ends : sequence of int
        Numbers of draws, ascending, at which to look at the sums; at ``n_draws`` in any case.
    """
    units = units_of(n_draws, pairing, noises_per_unit)
    batch_size = min(batch_size, n_examples)
    n_groups = 1 + len(group_sizes(len(units)))
    blocks = example_blocks(
        n_examples, batch_size, bytes_per_cell * n_groups * n_thresholds, limit_bytes
    )
    size = n_draws // len(units)
    ends = sorted({-(-end // size) for end in stage_ends if end < n_draws} | {len(units)})
    return Plan(units, n_thresholds, batch_size, tuple(blocks), tuple(ends))
