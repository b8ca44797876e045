"""What a sweep will take: arithmetic on measured rates and on the shapes of the work.

The schedule is the sweep's own: its loop and coordinator run, with a worker and a clock that add up
rates. Measuring those does not belong here (``estimate.pilot_run``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from ..job.environment import Stopwatch
from ..mpi.comm import SerialComm
from ..mpi.reduction_tree import n_steps
from ..posterior.draws import MEAN
from ..runner import loop
from ..runner.coordinator import Coordinator
from ..runner.evaluation import chunks, replicates_at_once
from ..runner.preparation import PreparedSweep
from ..runner.reduction import most_groups_held
from ..runner.scheduler import Reduce, Superstep, WorkResult
from ..runner.state import Arrays, SumsOf, SweepState
from ..runner.work_split import Partition, assign
from ..runner.write_cost import WriteCost

LINK_BYTES_PER_S = 1e9
"""Rate at which sums are taken to travel between ranks: 10 Gbit/s, and a little less."""
MIB = 2**20


@dataclass(frozen=True)
class DrawTime:
    """Seconds of replicates at a threshold: what is paid once, by replicate, by batch, by
    both.
    """

    once_s: float
    replicate_s: float
    batch_s: float
    both_s: float

    def seconds(self, n_replicates: float, n_batches: int) -> float:
        """Of replicates that are drawn together, on so many batches of examples."""
        by_batch = n_batches * (self.batch_s + n_replicates * self.both_s)
        return self.once_s + n_replicates * self.replicate_s + by_batch

    @classmethod
    def fit(cls, seconds: Mapping[tuple[int, int], float]) -> DrawTime:
        """The times that fit measured ones best, none of them negative.

        Parameters
        ----------
        seconds : mapping of (n_replicates, n_batches) to float
            Where replicates (or batches) are of one number only, all is taken to grow with them.
        """
        from scipy.optimize import nnls  # a fifth of a second, for plans alone

        counts = np.array(list(seconds), float)
        n_replicates, n_batches = counts.T
        measured = np.maximum(np.array(list(seconds.values())), 1e-9)
        columns = np.stack(
            [np.ones(len(counts)), n_replicates, n_batches, n_replicates * n_batches], axis=1
        )
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
        Of the normals of a replicate.
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
class Timeline:
    """How a sweep's time passes, s.

    Attributes
    ----------
    draw_s : float
        Until the last rank has drawn, summed over supersteps.
    reduce_s, write_s : float
        Reductions; statistics and files.
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


@dataclass
class SimulatedWatch(Stopwatch):
    """A clock that goes on when it is told to."""

    now_s: float = 0.0

    def now(self) -> float:
        """Seconds by its clock."""
        return self.now_s

    def spend(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


@dataclass(frozen=True)
class SimulatedWorker:
    """A worker (:class:`bprune_hpc.runner.loop.Worker`) who lets the time pass that ranks take."""

    sweep: PreparedSweep
    rates: Rates
    n_ranks: int
    watch: SimulatedWatch

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        """Take as long as the slowest rank."""
        costs = superstep.thresholds.of(self.sweep.costs)
        assignment = assign(superstep.replicates, costs, self.n_ranks)
        draws = superstep.thresholds.of(self.rates.draws)
        n_batches = [
            -(-len(block) // self.sweep.datasets[index].plan.batch_size)
            for index, block in self.sweep.passes[superstep.n_passes]
        ]
        seconds = max(self._seconds(one, draws, n_batches) for one in assignment.partitions)
        with self.watch.time("evaluate"):
            self.watch.spend(seconds)
        return WorkResult(computing_s=seconds)

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        """Take as long as the messages."""
        n_examples = sum(len(block) for _, block in self.sweep.kept(step.n_passes))
        n_bytes = self.sweep.network.task.bytes_per_cell * len(step.thresholds) * n_examples
        with self.watch.time("reduce"):
            self.watch.spend(reduce_seconds(step.participants, n_bytes))

    def _seconds(
        self, partition: Partition, draws: Sequence[DrawTime], n_batches: Sequence[int]
    ) -> float:
        """Time of a partition; noise is made anew for each block of examples."""
        draws_per_replicate = self.sweep.plan.draws_per_replicate
        seconds = 0.0
        for chunk in chunks(partition, replicates_at_once(self.sweep.network)):
            seconds += (
                self.rates.noise_s * sum(replicate != MEAN for replicate in chunk) * len(n_batches)
            )
            together: dict[int, float] = defaultdict(float)
            for replicate, positions in chunk.items():
                for position in positions:
                    together[position] += 1 / draws_per_replicate if replicate == MEAN else 1
            seconds += sum(
                draws[position].seconds(n_replicates, batches)
                for position, n_replicates in together.items()
                for batches in n_batches
            )
        return seconds


def timeline(
    sweep: PreparedSweep, rates: Rates, n_ranks: int, sweep_states: Sequence[SweepState]
) -> Timeline:
    """Run the sweep's own loop with a simulated worker and clock.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        What is done already; their sums are not looked at, and need not be there.
    """
    watch = SimulatedWatch()

    def of_pass(sweep_state: SweepState) -> dict[int, Arrays]:
        watch.spend(rates.block_s)
        return {}

    coordinator = Coordinator(
        replace(sweep, config=replace(sweep.config, target=None)),  # that no sums can settle
        [SweepState(one.thresholds, *one.progress) for one in sweep_states],
        n_ranks,
        watch,
        lambda _: watch.spend(rates.write_s),
        WriteCost(0.0, 0.0),
        of_pass,
    )
    worker = SimulatedWorker(sweep, rates, n_ranks, watch)
    loop.run(SerialComm(), worker, coordinator, watch, ask=lambda timing: None)
    timing = coordinator.timing
    if timing.unsaved_s > 0:
        with watch.time("write"):
            coordinator.publish()
    draw_s, reduce_s, write_s = (
        watch.seconds.get(part, 0.0) for part in ("evaluate", "reduce", "write")
    )
    return Timeline(draw_s, reduce_s, write_s, timing.slowest_round_s, timing.n_writes)


def replicates_held(sweep: PreparedSweep, n_ranks: int) -> int:
    """Units of draws whose noise a rank holds at a time, at most."""
    partitions = assign(range(len(sweep.plan.replicates)), sweep.costs, n_ranks).partitions
    most = replicates_at_once(sweep.network)
    return min(most, max(sum(replicate != MEAN for replicate, _ in one) for one in partitions))


def reduce_seconds(participants: Mapping[int, Sequence[int]], group_bytes: int) -> float:
    """Time of a reduction: each group's sums go up a tree of the ranks that have a part."""
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


def memory(
    root: Peaks, other: Peaks, missing_bytes: int, sweep: PreparedSweep, n_ranks: int
) -> Memory:
    """Peaks of the whole sweep.

    Parameters
    ----------
    missing_bytes : int
        Noise and weights that a rank will hold beyond those of the pilot run.
    """
    of_passes = [sweep.kept(index) for index in range(len(sweep.passes))]
    n_examples = max(sum(len(block) for _, block in blocks) for blocks in of_passes)
    group_mib = sweep.network.task.bytes_per_cell * len(sweep.masks) * n_examples / MIB
    missing_mib = missing_bytes / MIB
    received = group_mib if n_ranks > 1 else 0.0
    drawing = root.drawing + max(missing_mib, received)
    n_groups = most_groups_held(len(sweep.plan.replicates), len(sweep.masks), n_ranks)
    return Memory(
        max(root.reading, drawing, root.writing),
        max(other.reading, other.drawing + missing_mib + n_groups * group_mib),
        n_ranks,
    )
