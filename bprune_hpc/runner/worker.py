"""What one rank does of a sweep: its share of a superstep of work, and its own sums until wanted.

Ranks other than 0 know no more than the superstep of work in hand. How a share is evaluated does
not belong here (``runner.evaluation``), nor which work is next (``runner.coordinator``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..job.environment import Stopwatch
from ..metrics.tasks import AnyDrawSums, AnySums
from ..mpi.comm import Comm
from .coordinator import Coordinator
from .evaluation import NotFinite, evaluate
from .nonfinite import Fault, Faults, take_earliest
from .preparation import PreparedSweep
from .reduction import PendingReductions, reduce_draws, reduce_groups
from .scheduler import Superstep
from .work_split import Round, round_of


@dataclass
class Worker:
    """What one rank does; for most see :func:`bprune_hpc.runner.loop.gather`."""

    comm: Comm
    sweep: PreparedSweep
    watch: Stopwatch
    advance: Callable[[int], None]
    coordinator: Coordinator | None

    def __post_init__(self) -> None:
        self._own: dict[int, dict[int, AnySums]] = {}  # until rank 0 has got them
        self._spare: dict[int, tuple[tuple[int, int], list[AnySums]]] = {}  # and their shape
        if self.coordinator is not None:
            self._pending = self.coordinator.pending
        else:
            self._pending = PendingReductions.of(self.sweep.plan, self.comm.size)
        self._superstep: Superstep | None = None

    def work(self, superstep: Superstep) -> None:
        """Evaluate a share of a superstep; rank 0 takes in what all have found."""
        costs = [self.sweep.costs[row] for row in superstep.rows]
        of_round = round_of(superstep.units, costs, self.comm.size)
        if not self._pending.has_room(of_round):
            self.reduce(is_forced=True)
        start, before_s = time.perf_counter(), self.watch.seconds.get("evaluate", 0.0)
        self._superstep = superstep
        draws, faults = [], Faults()
        for index, (dataset, block) in enumerate(self.sweep.passes[superstep.n_passes]):
            of_draws = self._evaluate(superstep, of_round, index, dataset, block, faults)
            draws.append((dataset, of_draws))
        self._pending.add(of_round)
        preparing_s = self._prepare()
        with self.watch.time("reduce"):
            for _, of_draws in draws:
                reduce_draws(self.comm, of_draws)
            mine_s = self.watch.seconds["evaluate"] - before_s
            of_ranks = self.comm.gather((faults, mine_s)) or []
        if self.coordinator is None:
            return
        for of_rank, _ in of_ranks:
            take_earliest(faults, of_rank)
        n_examples = sum(len(block) for _, block in self.sweep.passes[superstep.n_passes])
        n_cells = -(-len(superstep.units) * len(superstep.rows) // self.comm.size)
        computing_s = of_round.evenness * max(seconds for _, seconds in of_ranks)
        seconds = time.perf_counter() - start
        self.coordinator.pace.worked(seconds, computing_s, n_cells * n_examples, preparing_s)
        self.coordinator.done(superstep, draws, faults)

    def _evaluate(
        self,
        superstep: Superstep,
        of_round: Round,
        index: int,
        dataset_index: int,
        block: range,
        faults: Faults,
    ) -> AnyDrawSums:
        """Add a share of a superstep, on a block, to this rank's sums; the sums of each draw."""
        sweep, share = self.sweep, of_round.shares[self.comm.rank]
        first = sweep.plan.units[superstep.units.start]
        n_draws = len(superstep.units) * sweep.plan.draws_per_unit
        draws = sweep.network.task.draw_sums(len(superstep.rows), n_draws)
        not_finite: NotFinite = {}
        sums, spare = self._sums(index), self._spare_of(index)
        for group in sorted(share.groups - sums.keys())[: len(spare)]:
            sums[group] = spare.pop()
            sums[group].clear()
        with self.watch.time("evaluate"):
            evaluate(
                sweep.evaluator, sweep.network, [sweep.masks[row] for row in superstep.rows],
                sweep.datasets[dataset_index], share, block, sums, _From(first[0].index, draws),
                not_finite, seed=sweep.config.seed, advance=self.advance,
            )  # fmt: skip
        of_block = {
            superstep.rows[at]: Fault(draw, dataset_index, example)
            for at, (draw, example) in not_finite.items()
        }
        take_earliest(faults, of_block)
        return draws

    def _prepare(self) -> float:
        """Touch memory on rank 0 for what others are going to send, while they may be at work; s.

        That takes longer than to receive it.
        """
        assert self._superstep is not None
        if self.coordinator is None:
            return 0.0
        start = time.perf_counter()
        with self.watch.time("reduce"):
            for index in range(len(self.sweep.passes[self._superstep.n_passes])):
                n_missing = len(self._pending.participants.keys() - self._sums(index).keys())
                spare = self._spare_of(index)
                while len(spare) < n_missing:
                    spare.append(self._make(index))
                    spare[-1].clear()
        return time.perf_counter() - start

    def reduce(self, is_forced: bool = False) -> None:
        """Bring the sums of all supersteps so far together on rank 0; they are of one pass.

        Parameters
        ----------
        is_forced : bool
            Whether for the lack of room, and not since rank 0 wants them.
        """
        assert self._superstep is not None
        start = time.perf_counter()
        participants = self._pending.participants
        with self.watch.time("reduce"):
            for index in range(len(self.sweep.passes[self._superstep.n_passes])):
                sums, spare = self._sums(index), self._spare_of(index)
                reduce_groups(self.comm, participants, sums, partial(self._take, index))
                if self.coordinator is None:
                    spare += sums.values()
                    sums.clear()
        self._pending.clear()
        if self.coordinator is not None:
            self.coordinator.pace.reduced(time.perf_counter() - start, is_forced)
            self.coordinator.settle()

    def _sums(self, index: int) -> dict[int, AnySums]:
        """This rank's sums of a block of the pass, to be added to."""
        if self.coordinator is not None:
            return self.coordinator.sweep_states[-1].sums_of(index)
        return self._own.setdefault(index, {})

    def _spare_of(self, index: int) -> list[AnySums]:
        """Sums of a block of the pass that are of no use any more, or yet.

        Memory that was touched once is faster. All sets have one task and one kind of units, so
        that those of one shape are of one kind.
        """
        shape = self._shape(index)
        if index not in self._spare or self._spare[index][0] != shape:
            self._spare[index] = shape, []
        return self._spare[index][1]

    def _take(self, index: int) -> AnySums:
        spare = self._spare_of(index)
        return spare.pop() if spare else self._make(index)

    def _make(self, index: int) -> AnySums:
        assert self._superstep is not None
        sweep = self.sweep
        return sweep.network.task.sums(*self._shape(index), sweep.plan.draws_per_unit)

    def _shape(self, index: int) -> tuple[int, int]:
        """Thresholds and examples of a block of the pass."""
        assert self._superstep is not None
        _, block = self.sweep.passes[self._superstep.n_passes][index]
        return len(self._superstep.rows), len(block)


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
