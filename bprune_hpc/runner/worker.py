"""What one rank does of a sweep: its partition of a superstep, and its part of a reduction.

The same on every rank: each is told where its sums are. How a partition is evaluated does not
belong here (``runner.evaluation``), nor which work is next (``runner.coordinator``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from .work_split import Partition, assign


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

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        """Evaluate this rank's partition of a superstep."""
        before_s = self.watch.seconds.get("evaluate", 0.0)
        costs = superstep.thresholds.of(self.sweep.costs)
        assignment = assign(superstep.replicates, costs, self.comm.size)
        partition, faults = assignment.partitions[self.comm.rank], Faults()
        draws = {}
        for index, (dataset, block) in enumerate(self.sweep.passes[superstep.n_passes]):
            sums = sums_of(index) if self.sweep.datasets[dataset].keeps_examples else None
            draws[dataset], of_block = self._evaluate(superstep, partition, dataset, block, sums)
            take_earliest(faults, of_block)
        with self.watch.time("reduce"):
            for of_dataset in draws.values():
                reduce_draws(self.comm, of_dataset)
            mine_s = self.watch.seconds["evaluate"] - before_s
            of_ranks = self.comm.gather((faults, mine_s)) or [(faults, mine_s)]
        for of_rank, _ in of_ranks:
            take_earliest(faults, of_rank)
        return WorkResult(draws, faults, max(seconds for _, seconds in of_ranks))

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        """Reduce this rank's sums with those of others."""
        task, n_draws = self.sweep.network.task, self.sweep.plan.draws_per_replicate
        with self.watch.time("reduce"):
            for index, (_, block) in enumerate(self.sweep.kept(step.n_passes)):
                make = partial(task.sums, len(step.thresholds), len(block), n_draws)
                reduce_groups(self.comm, step.participants, sums_of(index), make)

    def _evaluate(
        self,
        superstep: Superstep,
        partition: Partition,
        index: int,
        block: range,
        sums: dict[int, AnySums] | None,
    ) -> tuple[AnyDrawSums, Faults]:
        """Add a partition to sums of a block; the sums of each draw, and faults."""
        sweep, first = self.sweep, self.sweep.plan.replicates[superstep.replicates.start]
        n_draws = len(superstep.replicates) * sweep.plan.draws_per_replicate
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
