"""What a sweep will take: arithmetic on measured rates and on the shapes of the work.

Pure. Rounds, shares and writes are those of the sweep itself (``runner.scheduler``,
``runner.work_split``, ``runner.timing``), with a clock that adds up rates. Measuring them does not
belong here (``estimate.pilot_run``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from ..mpi.reduction_tree import n_steps
from ..posterior.draws import MEAN
from ..runner.evaluation import chunks
from ..runner.reduction import PendingReductions, most_groups_held
from ..runner.scheduler import last_unit, level, superstep_of
from ..runner.state import SweepState
from ..runner.timing import Timing
from ..runner.work_split import Round, Share, round_of

LINK_BYTES_PER_S = 1e9
"""Rate at which sums are taken to travel between ranks: 10 Gbit/s, and a little less."""
MIB = 2**20


@dataclass(frozen=True)
class DrawTime:
    """Seconds of units of draws at a threshold: what is paid once, by unit, by batch, by both."""

    once_s: float
    unit_s: float
    batch_s: float
    both_s: float

    def seconds(self, n_units: float, n_batches: int) -> float:
        """Of units that are drawn together, on so many batches of examples."""
        by_batch = n_batches * (self.batch_s + n_units * self.both_s)
        return self.once_s + n_units * self.unit_s + by_batch

    @classmethod
    def fit(cls, seconds: Mapping[tuple[int, int], float]) -> DrawTime:
        """The times that fit measured ones best, none of them negative.

        Parameters
        ----------
        seconds : mapping of (n_units, n_batches) to float
            Where units (or batches) are of one number only, all is taken to grow with them.
        """
        from scipy.optimize import nnls  # a fifth of a second, for plans alone

        counts = np.array(list(seconds), float)
        n_units, n_batches = counts.T
        measured = np.maximum(np.array(list(seconds.values())), 1e-9)
        columns = np.stack([np.ones(len(counts)), n_units, n_batches, n_units * n_batches], axis=1)
        varies = [len(set(one)) > 1 for one in counts.T]
        is_used = np.array([all(varies), varies[1], varies[0], True])
        # Relative errors count, since the clock of a shared machine is off by a share.
        found, _ = nnls(columns[:, is_used] / measured[:, None], np.ones(len(counts)))
        times = np.zeros(4)
        times[is_used] = found
        return cls(*(float(value) for value in times))


def between(costs: Sequence[int], timed: Mapping[int, DrawTime]) -> tuple[DrawTime, ...]:
    """Times of every threshold from those of some, by a straight line in the cost.

    Parameters
    ----------
    costs : sequence of int
        Work of a draw at each threshold.
    timed : mapping of int to DrawTime
        By the threshold's index.
    """
    chosen = sorted(timed, key=lambda index: costs[index])
    known = np.array([astuple(timed[index]) for index in chosen])
    at = [costs[index] for index in chosen]
    columns = [np.interp(costs, at, column) for column in known.T]
    return tuple(DrawTime(*(float(value) for value in row)) for row in zip(*columns, strict=True))


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes
    ----------
    noise_s : float
        Of the normals of a unit.
    draws : tuple of DrawTime
        One for each threshold.
    write_s : float
        Statistics of all, and the file.
    block_s : float
        Statistics at the end of a pass, where there are several.
    """

    noise_s: float
    draws: tuple[DrawTime, ...]
    write_s: float
    block_s: float = 0.0


@dataclass(frozen=True)
class Work:
    """The shapes of a sweep.

    Attributes
    ----------
    costs : tuple of int
        Work of a draw at each threshold, by which cells are dealt to ranks.
    stage_ends : tuple of int
        See :class:`bprune_hpc.runner.work_split.Plan`; the last is the number of units.
    passes : tuple of tuple of (int, int)
        Examples and batches of each block of a pass.
    draws_per_unit : int
    units_at_once : int
        Units whose noise is held at a time.
    bytes_per_cell : int
        Of one group's sums, for a threshold and an example.
    """

    costs: tuple[int, ...]
    stage_ends: tuple[int, ...]
    passes: tuple[tuple[tuple[int, int], ...], ...]
    draws_per_unit: int
    units_at_once: int
    bytes_per_cell: int

    @property
    def n_units(self) -> int:
        """Units of draws."""
        return self.stage_ends[-1]

    @property
    def group_bytes(self) -> int:
        """Sums of a group, in the largest pass."""
        largest = max(sum(n_examples for n_examples, _ in blocks) for blocks in self.passes)
        return self.bytes_per_cell * len(self.costs) * largest

    def first_round(self, n_ranks: int) -> Round:
        """All units dealt to the ranks at once."""
        return round_of(range(self.n_units), self.costs, n_ranks)

    def most_groups_held(self, n_ranks: int) -> int:
        """See :func:`bprune_hpc.runner.reduction.most_groups_held`."""
        return most_groups_held(self.n_units, len(self.costs), n_ranks)


@dataclass(frozen=True)
class Timeline:
    """How a sweep's time passes, s.

    Attributes
    ----------
    draw_s : float
        Until the last rank has drawn, summed over rounds.
    reduce_s, write_s : float
        Sums brought together; statistics and files.
    round_s : float
        The longest time between two writes.
    n_writes : int
    """

    draw_s: float
    reduce_s: float
    write_s: float
    round_s: float
    n_writes: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.draw_s + self.reduce_s + self.write_s


def timeline(
    work: Work, rates: Rates, n_ranks: int, sweep_states: Sequence[SweepState]
) -> Timeline:
    """Go through the rounds of a sweep.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        What is done already; their sums are not looked at, and need not be there.
    """
    pace = Timing()
    draw_s = reduce_s = blocks_s = written_s = 0.0
    coordinators = level([SweepState(one.rows, one.n_passes, one.n_units) for one in sweep_states])
    pending = PendingReductions(n_ranks, work.most_groups_held(n_ranks))
    while not _is_complete(work, coordinators):
        behind, end = coordinators[-1], last_unit(coordinators, work.stage_ends)
        blocks = work.passes[behind.n_passes]
        n_examples = sum(of_block for of_block, _ in blocks)
        group_bytes = work.bytes_per_cell * len(behind.rows) * n_examples
        superstep = superstep_of(
            behind, end, n_examples, n_ranks, pace.n_cells(), work.units_at_once
        )
        costs = [work.costs[row] for row in superstep.rows]
        of_round = round_of(superstep.units, costs, n_ranks)
        if not pending.has_room(of_round):
            reduce_s += _reduce(pace, pending, group_bytes, is_forced=True)
        n_batches = [batches for _, batches in blocks]
        drawn = max(
            share_seconds(work, rates, share, superstep.rows, n_batches)
            for share in of_round.shares
        )
        draw_s += drawn
        n_cells = -(-len(superstep.units) * len(superstep.rows) // n_ranks) * n_examples
        pace.worked(drawn, of_round.evenness * drawn, n_cells)
        pending.add(of_round)
        behind.n_units = superstep.units.stop
        if pending and (behind.n_units == end or pace.is_due):
            reduce_s += _reduce(pace, pending, group_bytes)
        if len(work.passes) > 1 and behind.n_units == work.n_units:
            behind.end_pass({})
            blocks_s += rates.block_s
            pace.passed(rates.block_s)
        coordinators = level(coordinators)
        if pace.is_due:
            pace.wrote(rates.write_s)
            written_s += rates.write_s
    if pace.unsaved_s:
        pace.wrote(rates.write_s)
        written_s += rates.write_s
    return Timeline(draw_s, reduce_s, blocks_s + written_s, pace.slowest_round_s, pace.n_writes)


def _reduce(
    pace: Timing, pending: PendingReductions, group_bytes: int, is_forced: bool = False
) -> float:
    seconds = reduce_seconds(pending.participants, group_bytes)
    pace.reduced(seconds, is_forced)
    pending.clear()
    return seconds


def _is_complete(work: Work, coordinators: Sequence[SweepState]) -> bool:
    (first, *others) = coordinators
    if others:
        return False
    is_last = len(work.passes) == 1 and first.n_units == work.n_units
    return is_last or first.n_passes == len(work.passes)


def share_seconds(
    work: Work, rates: Rates, share: Share, rows: Sequence[int], n_batches: Sequence[int]
) -> float:
    """Time of a rank's share of a round.

    Parameters
    ----------
    rows : sequence of int
        Thresholds of the grid that the share's are.
    n_batches : sequence of int
        Of each block of examples; noise is made anew for each.
    """
    seconds = 0.0
    for piece in chunks(share, work.units_at_once):
        seconds += rates.noise_s * sum(unit != MEAN for unit in piece) * len(n_batches)
        together: dict[int, float] = defaultdict(float)
        for unit, thresholds in piece.items():
            for index in thresholds:
                together[index] += 1 / work.draws_per_unit if unit == MEAN else 1
        seconds += sum(
            rates.draws[rows[index]].seconds(n_units, batches)
            for index, n_units in together.items()
            for batches in n_batches
        )
    return seconds


def reduce_seconds(participants: Mapping[int, Sequence[int]], group_bytes: int) -> float:
    """Time to bring sums to rank 0: each group's up a tree of the ranks that have a part."""
    return n_steps(participants.values()) * group_bytes / LINK_BYTES_PER_S


@dataclass(frozen=True)
class Peaks:
    """Peak resident memory, MiB, of the parts of a pilot run on a rank.

    Attributes
    ----------
    reading, drawing, writing : float
        Rank 0 holds the sums of the whole sweep while it draws and writes; others none. 0 where
        there was no such part.
    """

    reading: float
    drawing: float
    writing: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of ranks, MiB."""

    root_mib: float
    other_mib: float
    n_ranks: int

    @property
    def together_mib(self) -> float:
        """Of all, pages that they share counted for each."""
        return self.root_mib + (self.n_ranks - 1) * self.other_mib


def memory(root: Peaks, other: Peaks, missing_bytes: int, work: Work, n_ranks: int) -> Memory:
    """Peaks of the whole sweep.

    Parameters
    ----------
    missing_bytes : int
        Noise and weights that a rank will hold beyond those of the pilot run.
    """
    group_mib, missing_mib = work.group_bytes / MIB, missing_bytes / MIB
    received = group_mib if n_ranks > 1 else 0.0
    drawing = root.drawing + max(missing_mib, received)
    n_groups = work.most_groups_held(n_ranks)
    return Memory(
        max(root.reading, drawing, root.writing),
        max(other.reading, other.drawing + missing_mib + n_groups * group_mib),
        n_ranks,
    )
