"""What rank 0 keeps of a sweep: what was found, and so what all ranks are to do next.

Doing it does not belong here (``runner.loop``), nor what the sums say (``runner.statistics``), nor
how work is cut up (``runner.scheduler``) and how much of it there is time for (``runner.timing``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..config.sweep_config import SweepConfig
from ..metrics.tasks import AnyDrawSums
from .datasets import Part, passes
from .evaluation import units_at_once
from .nonfinite import Fault, Faults, take_earliest
from .reduction import Outstanding
from .scheduler import Collection, Publication, Step, Stretch, last_unit, level, stretch_of
from .state import Ledger
from .statistics import Findings, with_block
from .timing import Pace
from .work_split import least_number
from .write_cost import WriteCost

logger = logging.getLogger(__name__)

Publish = Callable[["Book"], None]
FindLayer = Callable[[int, Fault], str]
"""The operation at which a draw's numbers at a threshold stop being finite; empty: not found."""


class Book:
    """What rank 0 knows of a sweep: ledgers, and what comes next.

    Parameters
    ----------
    ledgers : sequence of Ledger
        What is done already; of every threshold of the grid.
    publish : callable
        Writes the results file as the book stands.
    find_layer : callable
        Asked once for each threshold that fails.
    """

    def __init__(
        self,
        config: SweepConfig,
        parts: Sequence[Part],
        ledgers: Sequence[Ledger],
        n_ranks: int,
        publish: Publish,
        find_layer: FindLayer,
    ) -> None:
        self.config = config
        self.parts = parts
        self.ledgers = level(ledgers)
        self.pace = Pace()
        self.outstanding = Outstanding.of(parts[0].plan, n_ranks)
        self._is_at_end = False
        self._n_ranks = n_ranks
        self._publish = publish
        self._find_layer = find_layer
        self._passes = passes(parts)
        self._findings: Findings | None = None
        self._write_cost = WriteCost.measure(parts, config.save_probabilities)
        self.pace.growth_s = n_ranks * self._write_cost.group_s
        self._foretell()

    @property
    def findings(self) -> Findings:
        """Of the thresholds that are furthest; there is none before the first stretch of work."""
        assert not self.outstanding, "sums that are not here yet"
        if self._findings is None:
            self._findings = Findings(self.parts, self.ledgers[0], self.config.save_probabilities)
        return self._findings

    @property
    def n_cells_left(self) -> int:
        """Units of draws times thresholds times passes that are not done."""
        n_units = len(self.parts[0].plan.units)
        return sum(
            len(one.rows) * (n_units * (len(self._passes) - one.n_passes) - one.n_units)
            for one in self.ledgers
        )

    @property
    def n_cells(self) -> int:
        """The same, done and not done."""
        n_rows = sum(len(one.rows) for one in self.ledgers)
        return n_rows * len(self.parts[0].plan.units) * len(self._passes)

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is there."""
        if len(self.ledgers) > 1:
            return False
        (ledger,), plan = self.ledgers, self.parts[0].plan
        if ledger.n_passes == len(self._passes):
            return True
        if len(self._passes) > 1 or not ledger.n_units:
            return False
        target = self.config.target
        if ledger.n_units in plan.stage_ends and target is not None:
            return ledger.n_units == len(plan.units) or target.is_settled(
                self.findings.metrics, self.findings.failed
            )
        return ledger.n_units == len(plan.units)

    def next(self, is_stopping: bool) -> Step | None:
        """What to do; None: no more."""
        is_due = self.pace.is_due
        if self.outstanding and (is_stopping or self._is_at_end or is_due):
            return Collection()
        if is_stopping or self.is_complete:
            return None
        if is_due:
            return Publication()
        behind = self.ledgers[-1]
        return stretch_of(
            behind,
            self._end,
            sum(len(block) for _, block in self._passes[behind.n_passes]),
            self._n_ranks,
            self.pace.n_cells(),
            units_at_once(self.parts[0].problem.posterior.n_weights),
        )

    @property
    def _end(self) -> int:
        """Unit at which the ledger that is furthest behind has to have all of its sums."""
        return last_unit(self.ledgers, self.parts[0].plan.stage_ends)

    def publish(self) -> None:
        """Write the results file, and see how long it takes."""
        start = time.perf_counter()
        self._publish(self)
        foretold_s = self._write_cost.seconds(self.parts, self.ledgers)
        self.pace.wrote(time.perf_counter() - start, foretold_s)

    def _foretell(self) -> None:
        """Let the pace know what the next write is going to be like."""
        least = least_number(len(self.ledgers[-1].rows), self._n_ranks)
        next_s, most_s = (
            self._write_cost.seconds(self.parts, self.ledgers, n_more)
            for n_more in (least, len(self.parts[0].plan.units))
        )
        self.pace.foretold_s, self.pace.most_growth_s = next_s, most_s - next_s

    @property
    def n_failed(self) -> int:
        """Thresholds that failed, of those that are furthest: the ones that are shown."""
        return len(self.ledgers[0].faults)

    def done(
        self, stretch: Stretch, draws: Sequence[tuple[int, AnyDrawSums]], faults: Faults
    ) -> None:
        """Take in a stretch, by the ledger that is furthest behind."""
        ledger = self.ledgers[-1]
        for part, of_part in draws:
            ledger.add_draws(part, of_part)
        for row in take_earliest(ledger.faults, faults):
            fault = ledger.faults[row]
            fault = fault._replace(layer=self._find_layer(row, fault))
            ledger.faults[row] = fault
            logger.warning(
                "%s %g fails, its outputs are not finite: %s; the rest goes on",
                self.config.grid_kind, self.config.grid[row], fault.text,
            )  # fmt: skip
        self._is_at_end = stretch.units.stop == self._end
        ledger.n_units = stretch.units.stop
        self._findings = None
        if not self.outstanding:
            self.settle()
        self._foretell()

    def settle(self) -> None:
        """Take note that all sums of the ledger that is furthest behind are here."""
        if not self._is_at_end:
            return
        ledger = self.ledgers[-1]
        if len(self._passes) > 1 and ledger.n_units == len(self.parts[0].plan.units):
            start = time.perf_counter()
            ledger.end_pass(with_block(self.parts, ledger, self.config.save_probabilities))
            self.pace.passed(time.perf_counter() - start)
        self.ledgers = level(self.ledgers)
        self._is_at_end = False
        self._foretell()
