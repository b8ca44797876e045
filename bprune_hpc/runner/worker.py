"""What one rank does of a sweep: its partition of a superstep, and its part of a reduction.

The same on every rank: each is told where its sums are. How a partition is evaluated does not
belong here (``runner.evaluation``), nor which work is next (``runner.coordinator``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..job.environment import Stopwatch
from ..metrics.tasks import AnyDrawSums, AnySums
from ..mpi.comm import Comm
from .evaluation import NotFinite, evaluate
from .nonfinite import Fault, Faults, take_earliest
from .preparation import PreparedSweep
from .reduction import reduce_draws, reduce_groups
from .scheduler import Reduce, Superstep, WorkResult
from .state import SumsOf
from .work_split import Assignment, Partition, assign


@dataclass
class RankWorker:
    """The worker of a rank; see :class:`bprune_hpc.runner.loop.Worker`.

    Attributes
    ----------
    advance : callable
        Told the number of work items done, each time some are.
    """

    comm: Comm
    sweep: PreparedSweep
    watch: Stopwatch
    advance: Callable[[int], None]
    _memory: _Memory = field(default_factory=lambda: _Memory())

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        """Evaluate this rank's partition of a superstep."""
        before_s = self.watch.seconds.get("evaluate", 0.0)
        costs = superstep.thresholds.of(self.sweep.costs)
        assignment = assign(superstep.units, costs, self.comm.size)
        partition, faults = assignment.partitions[self.comm.rank], Faults()
        draws = {}
        for index, (dataset, block) in enumerate(self.sweep.passes[superstep.n_passes]):
            self._memory.reuse(self._shape(superstep, index), partition, sums_of(index))
            draws[dataset], of_block = self._evaluate(
                superstep, partition, dataset, block, sums_of(index)
            )
            take_earliest(faults, of_block)
        preparing_s = self._prepare(superstep, assignment, sums_of)
        with self.watch.time("reduce"):
            for of_dataset in draws.values():
                reduce_draws(self.comm, of_dataset)
            mine_s = self.watch.seconds["evaluate"] - before_s
            of_ranks = self.comm.gather((faults, mine_s)) or [(faults, mine_s)]
        for of_rank, _ in of_ranks:
            take_earliest(faults, of_rank)
        return WorkResult(draws, faults, max(seconds for _, seconds in of_ranks), preparing_s)

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        """Reduce this rank's sums with those of others."""
        with self.watch.time("reduce"):
            for index in range(len(self.sweep.passes[step.n_passes])):
                sums, shape = sums_of(index), self._shape(step, index)
                own = list(sums.values())
                make = partial(self._memory.take, shape, partial(self._make, step, index))
                reduce_groups(self.comm, step.participants, sums, make)
                if not self.comm.is_root:
                    self._memory.give(shape, own)
        self._memory.missing.clear()

    def _evaluate(
        self,
        superstep: Superstep,
        partition: Partition,
        index: int,
        block: range,
        sums: dict[int, AnySums],
    ) -> tuple[AnyDrawSums, Faults]:
        """Add a partition to sums of a block; the sums of each draw, and faults."""
        sweep, first = self.sweep, self.sweep.plan.units[superstep.units.start]
        n_draws = len(superstep.units) * sweep.plan.draws_per_unit
        draws = sweep.network.task.draw_sums(len(superstep.thresholds), n_draws)
        not_finite: NotFinite = {}
        with self.watch.time("evaluate"):
            evaluate(
                sweep.evaluator, sweep.network, superstep.thresholds.of(sweep.masks),
                sweep.datasets[index], partition, block, sums, _From(first[0].index, draws),
                not_finite, seed=sweep.config.seed, advance=self.advance,
            )  # fmt: skip
        faults = {
            position: Fault(draw, index, example)
            for position, (draw, example) in not_finite.items()
        }
        return draws, superstep.thresholds.by_index(faults)

    def _prepare(self, superstep: Superstep, assignment: Assignment, sums_of: SumsOf) -> float:
        """Touch memory on rank 0 for what others are going to send, while they may be at work; s.

        That takes longer than to receive it.
        """
        if not self.comm.is_root:
            return 0.0
        start = self.watch.now()
        self._memory.missing.update(*(one.groups for one in assignment.partitions[1:]))
        with self.watch.time("reduce"):
            for index in range(len(self.sweep.passes[superstep.n_passes])):
                n_missing = len(self._memory.missing - sums_of(index).keys())
                make = partial(self._make, superstep, index)
                self._memory.touch(self._shape(superstep, index), n_missing, make)
        return self.watch.now() - start

    def _make(self, step: Superstep | Reduce, index: int) -> AnySums:
        """Sums of a jackknife group, of a block of the pass."""
        _, n_thresholds, n_examples = self._shape(step, index)
        draws_per_unit = self.sweep.plan.draws_per_unit
        return self.sweep.network.task.sums(n_thresholds, n_examples, draws_per_unit)

    def _shape(self, step: Superstep | Reduce, index: int) -> tuple[int, int, int]:
        """A block of the pass; its thresholds and examples."""
        _, block = self.sweep.passes[step.n_passes][index]
        return index, len(step.thresholds), len(block)


class _Memory:
    """Sums that are of no use any more, or yet: memory that was touched once is faster.

    Attributes
    ----------
    missing : set of int
        Jackknife groups that others are going to send.
    """

    def __init__(self) -> None:
        self._spare: dict[tuple[int, int, int], list[AnySums]] = defaultdict(list)
        self.missing: set[int] = set()

    def reuse(
        self, shape: tuple[int, int, int], partition: Partition, sums: dict[int, AnySums]
    ) -> None:
        """Put cleared sums where a partition lacks some."""
        spare = self._of(shape)
        for group in sorted(partition.groups - sums.keys())[: len(spare)]:
            sums[group] = spare.pop()
            sums[group].clear()

    def touch(self, shape: tuple[int, int, int], number: int, make: Callable[[], AnySums]) -> None:
        """Have so many."""
        spare = self._of(shape)
        while len(spare) < number:
            spare.append(make())
            spare[-1].clear()

    def take(self, shape: tuple[int, int, int], make: Callable[[], AnySums]) -> AnySums:
        """One of them, or a new one."""
        spare = self._of(shape)
        return spare.pop() if spare else make()

    def give(self, shape: tuple[int, int, int], sums: Sequence[AnySums]) -> None:
        """Take in what is spent."""
        self._of(shape).extend(sums)

    def _of(self, shape: tuple[int, int, int]) -> list[AnySums]:
        """All sets of examples have one task, so that those of one shape are of one kind."""
        for other in [other for other in self._spare if other[0] == shape[0] and other != shape]:
            del self._spare[other]
        return self._spare[shape]


class _From:
    """Sums of the draws from one on."""

    def __init__(self, first: int, sums: AnyDrawSums) -> None:
        self._first = first
        self._sums = sums

    def add(self, threshold: int, draws: Any, *predictions: Any) -> None:
        """See :class:`bprune_hpc.accumulators.classification.DrawSums`.

        A regression adds draw by draw.
        """
        sums: Any = self._sums
        sums.add(threshold, np.asarray(draws) - self._first, *predictions)

    def add_sums(self, threshold: int, draws: Any, of_draws: Any) -> None:
        """The same."""
        sums: Any = self._sums
        sums.add_sums(threshold, np.asarray(draws, int) - self._first, of_draws)
