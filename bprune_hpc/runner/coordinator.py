"""What rank 0 keeps of a sweep: what was found, and so what all ranks are to do next.

Doing it does not belong here (``runner.loop``), nor what the sums say (``runner.statistics``), nor
how work is cut up (``runner.scheduler``) and how much of it there is time for (``runner.timing``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..metrics.tasks import AnyDrawSums
from .evaluation import units_at_once
from .nonfinite import Faults, take_earliest
from .nonfinite_search import find_layer
from .preparation import PreparedSweep
from .reduction import PendingReductions
from .scheduler import Publication, Reduce, Step, Superstep, last_unit, level, superstep_of
from .state import SweepState
from .statistics import SweepStatistics, with_block
from .timing import Timing
from .work_split import least_number
from .write_cost import WriteCost

logger = logging.getLogger(__name__)

Publish = Callable[["Coordinator"], None]


class Coordinator:
    """What rank 0 knows of a sweep: sweep states, and what comes next.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        What is done already; of every threshold of the grid.
    publish : callable
        Writes the results file as the coordinator stands.
    """

    def __init__(
        self,
        sweep: PreparedSweep,
        sweep_states: Sequence[SweepState],
        n_ranks: int,
        publish: Publish,
    ) -> None:
        self.sweep = sweep
        self.sweep_states = level(sweep_states)
        self.pace = Timing()
        self.pending = PendingReductions.of(sweep.plan, n_ranks)
        self._is_at_end = False
        self._n_ranks = n_ranks
        self._publish = publish
        self._findings: SweepStatistics | None = None
        self._write_cost = WriteCost.measure(sweep)
        self.pace.growth_s = n_ranks * self._write_cost.group_s
        self._foretell()

    @property
    def findings(self) -> SweepStatistics:
        """Of the thresholds that are furthest; there is none before the first superstep of work."""
        assert not self.pending, "sums that are not here yet"
        if self._findings is None:
            self._findings = SweepStatistics(self.sweep, self.sweep_states[0])
        return self._findings

    @property
    def n_cells_left(self) -> int:
        """Units of draws times thresholds times passes that are not done."""
        n_units = len(self.sweep.plan.units)
        return sum(
            len(one.rows) * (n_units * (len(self.sweep.passes) - one.n_passes) - one.n_units)
            for one in self.sweep_states
        )

    @property
    def n_cells(self) -> int:
        """The same, done and not done."""
        n_rows = sum(len(one.rows) for one in self.sweep_states)
        return n_rows * len(self.sweep.plan.units) * len(self.sweep.passes)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is there."""
        if len(self.sweep_states) > 1:
            return False
        (sweep_state,), plan = self.sweep_states, self.sweep.plan
        if sweep_state.n_passes == len(self.sweep.passes):
            return True
        if len(self.sweep.passes) > 1 or not sweep_state.n_units:
            return False
        target = self.sweep.config.target
        if sweep_state.n_units in plan.stage_ends and target is not None:
            return sweep_state.n_units == len(plan.units) or target.is_settled(
                self.findings.metrics, self.findings.failed
            )
        return sweep_state.n_units == len(plan.units)

    def next(self, is_stopping: bool) -> Step | None:
        """What to do; None: no more."""
        is_due = self.pace.is_due
        if self.pending and (is_stopping or self._is_at_end or is_due):
            return Reduce()
        if is_stopping or self.is_complete:
            return None
        if is_due:
            return Publication()
        behind = self.sweep_states[-1]
        return superstep_of(
            behind,
            self._end,
            sum(len(block) for _, block in self.sweep.passes[behind.n_passes]),
            self._n_ranks,
            self.pace.n_cells(),
            units_at_once(self.sweep.network.posterior.n_weights),
        )

    @property
    def _end(self) -> int:
        """Unit at which the sweep state that is furthest behind has to have all of its sums."""
        return last_unit(self.sweep_states, self.sweep.plan.stage_ends)

    def publish(self) -> None:
        """Write the results file, and see how long it takes."""
        start = time.perf_counter()
        self._publish(self)
        foretold_s = self._write_cost.seconds(self.sweep, self.sweep_states)
        self.pace.wrote(time.perf_counter() - start, foretold_s)

    def _foretell(self) -> None:
        """Let the pace know what the next write is going to be like."""
        least = least_number(len(self.sweep_states[-1].rows), self._n_ranks)
        next_s, most_s = (
            self._write_cost.seconds(self.sweep, self.sweep_states, n_more)
            for n_more in (least, len(self.sweep.plan.units))
        )
        self.pace.foretold_s, self.pace.most_growth_s = next_s, most_s - next_s

    @property
    def n_failed(self) -> int:
        """Thresholds that failed, of those that are furthest: the ones that are shown."""
        return len(self.sweep_states[0].faults)

    def done(
        self, superstep: Superstep, draws: Sequence[tuple[int, AnyDrawSums]], faults: Faults
    ) -> None:
        """Take in a superstep, by the sweep state that is furthest behind."""
        sweep_state = self.sweep_states[-1]
        for dataset, of_draws in draws:
            sweep_state.add_draws(dataset, of_draws)
        for row in take_earliest(sweep_state.faults, faults):
            fault = sweep_state.faults[row]
            fault = fault._replace(layer=find_layer(self.sweep, row, fault))
            sweep_state.faults[row] = fault
            logger.warning(
                "%s %g fails, its outputs are not finite: %s; the rest goes on",
                self.sweep.config.grid_kind, self.sweep.config.grid[row], fault.text,
            )  # fmt: skip
        self._is_at_end = superstep.units.stop == self._end
        sweep_state.n_units = superstep.units.stop
        self._findings = None
        if not self.pending:
            self.settle()
        self._foretell()

    def settle(self) -> None:
        """Take note that all sums of the sweep state that is furthest behind are here."""
        if not self._is_at_end:
            return
        sweep_state = self.sweep_states[-1]
        if len(self.sweep.passes) > 1 and sweep_state.n_units == len(self.sweep.plan.units):
            start = time.perf_counter()
            sweep_state.end_pass(with_block(self.sweep, sweep_state))
            self.pace.passed(time.perf_counter() - start)
        self.sweep_states = level(self.sweep_states)
        self._is_at_end = False
        self._foretell()
