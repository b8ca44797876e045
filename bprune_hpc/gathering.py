"""The work of a sweep on all ranks, in rounds, after each of which the results are written.

Rank 0 says what comes next and keeps what was found; the others know no more than the stretch of
work in hand, and keep their own sums until those are wanted. How a share is evaluated does not
belong here (``evaluation``), nor what the sums say (``findings``), nor which work is next
(``schedule``) and how much of it (``pace``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .comm import Comm
from .config import SweepConfig
from .environment import Stopwatch
from .evaluation import NotFinite, evaluate, units_at_once
from .evaluators import Evaluator
from .faults import Fault, Faults, take_earliest
from .findings import Findings, with_block
from .ledger import Ledger
from .outstanding import Outstanding
from .pace import Pace
from .parts import Part, passes, state_bytes
from .plan import Round, round_of
from .pruning import PRUNED_SCALE, Cut
from .reduction import reduce_draws, reduce_groups
from .schedule import Stretch, last_unit, level, stretch_of
from .tasks import AnyDrawSums, AnySums

logger = logging.getLogger(__name__)

Publish = Callable[["Book"], None]
FindLayer = Callable[[int, Fault], str]
"""The operation at which a draw's numbers at a threshold stop being finite; empty: not found."""
Ask = Callable[[Pace], str | None]
"""Asked on every rank before each stretch of work: why to stop now, the same on all; or None.

Rank 0's pace is the one that has been measured; it knows what another round needs.
"""


@dataclass(frozen=True)
class Collection:
    """The sums of all ranks are brought together on rank 0."""


Step = Stretch | Collection


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
        self.pace = Pace(state_bytes(parts))
        self.outstanding = Outstanding(n_ranks)
        self._is_at_end = False
        self._n_ranks = n_ranks
        self._publish = publish
        self._find_layer = find_layer
        self._passes = passes(parts)
        self._findings: Findings | None = None

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
        """Write what is due, and say what to do; None: no more."""
        is_due = self.pace.is_due
        if self.outstanding and (is_stopping or self._is_at_end or is_due):
            return Collection()
        if is_stopping or self.is_complete:
            return None
        if is_due:
            self.publish()
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
        self.pace.wrote(time.perf_counter() - start)

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

    def settle(self) -> None:
        """Take note that all sums of the ledger that is furthest behind are here."""
        if not self._is_at_end:
            return
        ledger = self.ledgers[-1]
        if len(self._passes) > 1 and ledger.n_units == len(self.parts[0].plan.units):
            ledger.end_pass(with_block(self.parts, ledger, self.config.save_probabilities))
        self.ledgers = level(self.ledgers)
        self._is_at_end = False


def gather(
    comm: Comm,
    evaluator: Evaluator,
    parts: Sequence[Part],
    cuts: Sequence[Cut],
    costs: Sequence[int],
    config: SweepConfig,
    book: Book | None,
    watch: Stopwatch,
    advance: Callable[[int], None],
    ask: Ask,
) -> str | None:
    """Do the work; every rank calls this.

    Parameters
    ----------
    cuts : sequence of Cut
        Of every threshold of the grid.
    costs : sequence of int
        Work of a draw at each; see :func:`bprune_hpc.plan.split`.
    book : Book on rank 0, None elsewhere

    Returns
    -------
    str or None
        Why it has stopped before all was done. What was done since the last write is in the book.
    """
    rank = _Rank(comm, evaluator, parts, cuts, costs, config, watch, advance, book)
    pace, why = book.pace if book is not None else Pace(), None
    while True:
        why = why or ask(pace)
        with watch.time("write"):
            step = comm.from_root(partial(_next, book, why is not None))
        if step is None:
            return why if comm.from_root(partial(_is_unfinished, book)) else None
        if isinstance(step, Stretch):
            rank.work(step)
        else:
            rank.bring_together()


def _next(book: Book | None, is_stopping: bool) -> Step | None:
    assert book is not None  # only rank 0 calls this
    return book.next(is_stopping)


def _is_unfinished(book: Book | None) -> bool:
    assert book is not None
    return not book.is_complete


@dataclass
class _Rank:
    """What a rank does; for most see :func:`gather`."""

    comm: Comm
    evaluator: Evaluator
    parts: Sequence[Part]
    cuts: Sequence[Cut]
    costs: Sequence[int]
    config: SweepConfig
    watch: Stopwatch
    advance: Callable[[int], None]
    book: Book | None

    def __post_init__(self) -> None:
        self._passes = passes(self.parts)
        self._own = _OwnSums()
        self._outstanding = Outstanding(self.comm.size)
        if self.book is not None:
            self._outstanding = self.book.outstanding
        self._last: Stretch | None = None

    def work(self, stretch: Stretch) -> None:
        """Evaluate a share of a stretch; rank 0 takes in what all have found."""
        costs = [self.costs[row] for row in stretch.rows]
        of_round = round_of(stretch.units, costs, self.comm.size)
        if not self._outstanding.has_room(of_round):
            self.bring_together()
        start, before_s = time.perf_counter(), self.watch.seconds.get("evaluate", 0.0)
        self._last = stretch
        draws, faults = [], Faults()
        for index, (part, block) in enumerate(self._passes[stretch.n_passes]):
            draws.append((part, self._evaluate(stretch, of_round, index, part, block, faults)))
        with self.watch.time("reduce"):
            for _, of_part in draws:
                reduce_draws(self.comm, of_part)
            mine_s = self.watch.seconds["evaluate"] - before_s
            of_ranks = self.comm.gather((faults, mine_s)) or []
        self._outstanding.add(of_round)
        if self.book is None:
            return
        for of_rank, _ in of_ranks:
            take_earliest(faults, of_rank)
        n_examples = sum(len(block) for _, block in self._passes[stretch.n_passes])
        n_cells = -(-len(stretch.units) * len(stretch.rows) // self.comm.size)
        slowest_s = max(seconds for _, seconds in of_ranks)
        self.book.pace.worked(time.perf_counter() - start, slowest_s, n_cells * n_examples)
        self.book.done(stretch, draws, faults)

    def _evaluate(
        self,
        stretch: Stretch,
        of_round: Round,
        index: int,
        part_index: int,
        block: range,
        faults: Faults,
    ) -> AnyDrawSums:
        """Add a share of a stretch, on a block, to this rank's sums; the sums of each draw."""
        part, share = self.parts[part_index], of_round.shares[self.comm.rank]
        first, last = part.plan.units[stretch.units.start], part.plan.units[stretch.units[-1]]
        n_draws = last[-1].index + 1 - first[0].index
        draws = part.problem.task.draw_sums(len(stretch.rows), n_draws)
        not_finite: NotFinite = {}
        with self.watch.time("evaluate"):
            evaluate(
                self.evaluator, part.problem, [self.cuts[row] for row in stretch.rows], part.plan,
                share, block, self._sums(index, stretch, block, share.groups),
                _From(first[0].index, draws), not_finite, seed=self.config.seed,
                advance=self.advance, pruned_scale=PRUNED_SCALE[self.config.pruned_weights],
            )  # fmt: skip
        of_block = {
            stretch.rows[at]: Fault(draw, part_index, example)
            for at, (draw, example) in not_finite.items()
        }
        take_earliest(faults, of_block)
        return draws

    def bring_together(self) -> None:
        """Bring the sums of all stretches so far together on rank 0; they are of one pass."""
        assert self._last is not None
        start = time.perf_counter()
        participants = self._outstanding.participants
        with self.watch.time("reduce"):
            for index, (part_index, block) in enumerate(self._passes[self._last.n_passes]):
                part = self.parts[part_index]
                reduce_groups(
                    self.comm, participants, self._sums(index, self._last, block),
                    part.problem.task, (len(self._last.rows), len(block)), len(part.plan.units[0]),
                )  # fmt: skip
        self._outstanding.clear()
        self._own.spent()
        if self.book is not None:
            self.book.pace.reduced(time.perf_counter() - start)
            self.book.settle()

    def _sums(
        self, index: int, stretch: Stretch, block: range, groups: Set[int] = frozenset()
    ) -> dict[int, AnySums]:
        """This rank's sums of a block of a pass, to be added to."""
        if self.book is not None:
            return self.book.ledgers[-1].sums_of(index)
        return self._own.of(index, (len(stretch.rows), len(block)), groups)


class _OwnSums:
    """Sums of a rank other than 0 until they are brought together there.

    Memory that was touched once is faster: that of sums which are spent is used again.
    """

    def __init__(self) -> None:
        self._of_block: dict[int, dict[int, AnySums]] = {}
        self._shapes: dict[int, tuple[int, int]] = {}
        self._spare: dict[int, list[AnySums]] = {}

    def of(self, index: int, shape: tuple[int, int], groups: Set[int]) -> dict[int, AnySums]:
        """Sums of a block of a pass, for so many thresholds and examples.

        Where there is memory from before, groups that are missing are put in.
        """
        sums = self._of_block.setdefault(index, {})
        if self._shapes.get(index) != shape:
            self._shapes[index], self._spare[index] = shape, []
        for group in sorted(groups - sums.keys()):
            if self._spare[index]:
                sums[group] = self._spare[index].pop()
                sums[group].clear()
        return sums

    def spent(self) -> None:
        """Rank 0 has got them all."""
        for index, sums in self._of_block.items():
            self._spare[index] += sums.values()
            sums.clear()


class _From:
    """Sums of the draws from one on."""

    def __init__(self, first: int, sums: AnyDrawSums) -> None:
        self._first = first
        self._sums = sums

    def add(self, threshold: int, draws: Any, *predictions: Any) -> None:
        """See :class:`bprune_hpc.predictive.DrawSums`; a regression adds draw by draw."""
        sums: Any = self._sums
        sums.add(threshold, np.asarray(draws) - self._first, *predictions)

    def add_sums(self, threshold: int, draws: Any, of_draws: Any) -> None:
        """The same."""
        sums: Any = self._sums
        sums.add_sums(threshold, np.asarray(draws, int) - self._first, of_draws)
