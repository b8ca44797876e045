"""What rank 0 keeps of a sweep: what was found, and so what all ranks are to do next.

Doing it does not belong here (``runner.worker``), nor what the sums say (``runner.statistics``),
how work is cut up (``runner.scheduler``) and how much of it there is time for (``runner.timing``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..job.environment import Stopwatch
from .evaluation import replicates_at_once
from .nonfinite import take_earliest
from .nonfinite_search import find_layer
from .preparation import PreparedSweep
from .reduction import PendingReductions, most_groups_held
from .scheduler import Publication, Reduce, Step, Superstep, WorkResult, level, stops, superstep_of
from .state import Arrays, SumsOf, SweepState
from .statistics import SweepStatistics, with_block
from .timing import Timing
from .work_split import Assignment, assign, least_number
from .write_cost import WriteCost

logger = logging.getLogger(__name__)

Publish = Callable[["Coordinator"], None]
OfPass = Callable[[SweepState], Mapping[int, Arrays]]
"""Statistics of the examples of a pass that is done; see :func:`.statistics.with_block`."""


class Coordinator:
    """What rank 0 knows of a sweep: sweep states, and what comes next.

    Parameters
    ----------
    sweep_states : sequence of SweepState
        What is done already; of every threshold of the grid.
    watch : Stopwatch
        Whose clock all times are by.
    publish : callable
        Writes the results file as the coordinator stands.
    write_cost : WriteCost, optional
        Without, it is measured.
    of_pass : callable, optional
        Asked at the end of each pass where there are several.
    """

    def __init__(
        self,
        sweep: PreparedSweep,
        sweep_states: Sequence[SweepState],
        n_ranks: int,
        watch: Stopwatch,
        publish: Publish,
        write_cost: WriteCost | None = None,
        of_pass: OfPass | None = None,
    ) -> None:
        write_cost = write_cost or WriteCost.measure(sweep)
        self.sweep = sweep
        self.sweep_states = level(sweep_states)
        self.timing = Timing(growth_s=n_ranks * write_cost.group_s)
        self.watch = watch
        self._n_ranks = n_ranks
        self._write_cost = write_cost
        self._publish = publish
        self._of_pass = of_pass or partial(with_block, sweep)
        most_held = most_groups_held(len(sweep.plan.replicates), len(sweep.masks), n_ranks)
        self._pending = PendingReductions(n_ranks, most_held)
        self._statistics: SweepStatistics | None = None
        self._foretell()

    @property
    def statistics(self) -> SweepStatistics:
        """Of the thresholds that are furthest; there are none before the first superstep."""
        assert not self._pending, "sums that are not here yet"
        if self._statistics is None:
            self._statistics = SweepStatistics(self.sweep, self.sweep_states[0])
        return self._statistics

    @property
    def n_items_left(self) -> int:
        """Units of draws times thresholds times passes that are not done."""
        n_replicates = len(self.sweep.plan.replicates)
        return sum(
            len(one.thresholds)
            * (n_replicates * (len(self.sweep.passes) - one.n_passes) - one.n_replicates)
            for one in self.sweep_states
        )

    @property
    def n_items(self) -> int:
        """The same, done and not done."""
        n_thresholds = sum(len(one.thresholds) for one in self.sweep_states)
        return n_thresholds * len(self.sweep.plan.replicates) * len(self.sweep.passes)

    @property
    def n_failed(self) -> int:
        """Thresholds that failed, of those that are furthest: the ones that are shown."""
        return len(self.sweep_states[0].faults)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is there."""
        if len(self.sweep_states) > 1:
            return False
        (sweep_state,), plan = self.sweep_states, self.sweep.plan
        if sweep_state.n_passes == len(self.sweep.passes):
            return True
        if len(self.sweep.passes) > 1 or not sweep_state.n_replicates:
            return False
        target = self.sweep.config.target
        if sweep_state.n_replicates in plan.stage_ends and target is not None:
            return sweep_state.n_replicates == len(plan.replicates) or target.is_settled(
                self.statistics.metrics, self.statistics.failed
            )
        return sweep_state.n_replicates == len(plan.replicates)

    @property
    def sums_of(self) -> SumsOf:
        """What rank 0 adds to."""
        return self._behind.sums_of

    def next(self, is_stopping: bool) -> Step | None:
        """What to do; None: no more."""
        is_due = self.timing.is_due
        if self._pending and (is_stopping or self._is_at_stop or is_due):
            return self._reduce()
        if is_stopping or self.is_complete:
            return None
        if is_due:
            return Publication()
        superstep = superstep_of(
            self._behind,
            self._stops,
            self._n_examples,
            self._n_ranks,
            self.timing.n_items(),
            replicates_at_once(self.sweep.network),
        )
        has_room = self._pending.has_room(self._assignment(superstep))
        return superstep if has_room else self._reduce(is_forced=True)

    def worked(self, superstep: Superstep, found: WorkResult, seconds: float) -> None:
        """Take in a superstep, by the sweep state that is furthest behind."""
        sweep_state, assignment = self._behind, self._assignment(superstep)
        n_items = -(-len(superstep.replicates) * len(superstep.thresholds) // self._n_ranks)
        computing_s = assignment.evenness * found.computing_s
        self.timing.worked(seconds, computing_s, n_items * self._n_examples)
        for dataset, draws in found.draws.items():
            sweep_state.add_draws(dataset, draws)
        for threshold_index in take_earliest(sweep_state.faults, found.faults):
            fault = sweep_state.faults[threshold_index]
            fault = fault._replace(layer=find_layer(self.sweep, threshold_index, fault))
            sweep_state.faults[threshold_index] = fault
            logger.warning(
                "%s %g failed, outputs are not finite: %s; the others go on",
                self.sweep.config.grid_kind, self.sweep.config.grid[threshold_index], fault.text,
            )  # fmt: skip
        sweep_state.n_replicates = superstep.replicates.stop
        self._pending.add(assignment)
        self._statistics = None
        self._settle()

    def reduced(self, step: Reduce, seconds: float) -> None:
        """Take note that all sums are here."""
        self.timing.reduced(seconds, step.is_forced)
        self._pending.clear()
        self._settle()

    def publish(self) -> None:
        """Write the results file, and see how long it takes."""
        start = self.watch.now()
        self._publish(self)
        foretold_s = self._write_cost.seconds(self.sweep, self.sweep_states)
        self.timing.wrote(self.watch.now() - start, foretold_s)

    @property
    def _behind(self) -> SweepState:
        """The sweep state that is furthest behind, whose thresholds are worked at."""
        return self.sweep_states[-1]

    @property
    def _n_examples(self) -> int:
        """Examples of the pass in progress."""
        return sum(len(block) for _, block in self.sweep.passes[self._behind.n_passes])

    @property
    def _stops(self) -> Sequence[int]:
        return stops(self.sweep_states, self.sweep.plan.stage_ends)

    @property
    def _is_at_stop(self) -> bool:
        return self._behind.n_replicates in self._stops

    def _assignment(self, superstep: Superstep) -> Assignment:
        return assign(
            superstep.replicates, superstep.thresholds.of(self.sweep.costs), self._n_ranks
        )

    def _reduce(self, is_forced: bool = False) -> Reduce:
        behind = self._behind
        return Reduce(behind.thresholds, behind.n_passes, self._pending.participants, is_forced)

    def _settle(self) -> None:
        """Go on from where something waited for all sums, once they are here."""
        if self._is_at_stop and not self._pending:
            behind = self._behind
            if len(self.sweep.passes) > 1 and behind.n_replicates == len(
                self.sweep.plan.replicates
            ):
                start = self.watch.now()
                with self.watch.time("write"):
                    behind.end_pass(self._of_pass(behind))
                self.timing.passed(self.watch.now() - start)
            self.sweep_states = level(self.sweep_states)
        self._foretell()

    def _foretell(self) -> None:
        """Let the timing know what the next write is going to be like."""
        least = least_number(len(self._behind.thresholds), self._n_ranks)
        next_s, most_s = (
            self._write_cost.seconds(self.sweep, self.sweep_states, n_more)
            for n_more in (least, len(self.sweep.plan.replicates))
        )
        self.timing.foretold_s, self.timing.most_growth_s = next_s, most_s - next_s
