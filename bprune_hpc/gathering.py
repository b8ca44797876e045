"""The work of a sweep on all ranks, in rounds, after each of which the results are written.

Rank 0 says what comes next and keeps what was found; the others know no more than the stretch of
work in hand. How a share is evaluated does not belong here (``evaluation``), nor what the sums
say (``findings``), nor which work is next (``schedule``) and how much of it (``pace``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from .comm import Comm
from .config import SweepConfig
from .environment import Stopwatch
from .evaluation import NotFinite, evaluate
from .evaluators import Evaluator
from .faults import Fault, Faults, take_earliest
from .findings import Findings, with_block
from .ledger import Ledger
from .pace import Pace
from .parts import Part, passes, state_bytes
from .plan import round_of
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
        self._n_ranks = n_ranks
        self._publish = publish
        self._find_layer = find_layer
        self._passes = passes(parts)
        self._findings: Findings | None = None

    @property
    def findings(self) -> Findings:
        """Of the thresholds that are furthest; there is none before the first stretch of work."""
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

    def next(self, is_stopping: bool) -> Stretch | None:
        """Write what is due, and say what to do; None: no more."""
        if is_stopping or self.is_complete:
            return None
        if self.pace.is_due:
            self.publish()
        behind = self.ledgers[-1]
        return stretch_of(
            behind,
            last_unit(self.ledgers, self.parts[0].plan.stage_ends),
            sum(len(block) for _, block in self._passes[behind.n_passes]),
            self._n_ranks,
            self.pace.n_cells(),
        )

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
        """Take in a stretch whose sums have been added to the ledger that is furthest behind."""
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
        ledger.n_units = stretch.units.stop
        if len(self._passes) > 1 and ledger.n_units == len(self.parts[0].plan.units):
            ledger.end_pass(with_block(self.parts, ledger, self.config.save_probabilities))
        self.ledgers = level(self.ledgers)
        self._findings = None


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
    pace = book.pace if book is not None else Pace()
    held = _HeldSums([len(blocks) for blocks in passes(parts)] == [1])
    while True:
        why = ask(pace)
        with watch.time("write"):
            stretch = comm.from_root(partial(_next, book, why is not None))
        if stretch is None:
            return why if comm.from_root(partial(_is_unfinished, book)) else None
        start = time.perf_counter()
        draws, faults, computing_s = _work(
            comm, evaluator, parts, cuts, costs, config, book, held, watch, advance, stretch
        )
        if book is not None:
            n_examples = sum(len(block) for _, block in passes(parts)[stretch.n_passes])
            n_cells = -(-len(stretch.units) * len(stretch.rows) // comm.size)
            book.pace.worked(time.perf_counter() - start, computing_s, n_cells * n_examples)
            book.done(stretch, draws, faults)


def _next(book: Book | None, is_stopping: bool) -> Stretch | None:
    assert book is not None  # only rank 0 calls this
    return book.next(is_stopping)


def _is_unfinished(book: Book | None) -> bool:
    assert book is not None
    return not book.is_complete


def _work(
    comm: Comm,
    evaluator: Evaluator,
    parts: Sequence[Part],
    cuts: Sequence[Cut],
    costs: Sequence[int],
    config: SweepConfig,
    book: Book | None,
    held: _HeldSums,
    watch: Stopwatch,
    advance: Callable[[int], None],
    stretch: Stretch,
) -> tuple[list[tuple[int, AnyDrawSums]], Faults, float]:
    """Evaluate a stretch on all ranks; sums go to the book on rank 0, and faults to rank 0.

    There, the last that is returned are the seconds of the rank that took longest to evaluate.
    """
    of_rows = [cuts[row] for row in stretch.rows]
    of_round = round_of(stretch.units, [costs[row] for row in stretch.rows], comm.size)
    all_draws = []
    faults: Faults = {}
    before_s = watch.seconds.get("evaluate", 0.0)
    sums: dict[int, AnySums]
    for index, (part_index, block) in enumerate(passes(parts)[stretch.n_passes]):
        part = parts[part_index]
        shape = (len(of_rows), len(block))
        if book is None:
            sums = held.take(shape, of_round.shares[comm.rank].groups)
        else:
            sums = book.ledgers[-1].sums_of(index)
        first, last = part.plan.units[stretch.units.start], part.plan.units[stretch.units[-1]]
        draws = part.problem.task.draw_sums(len(of_rows), last[-1].index + 1 - first[0].index)
        not_finite: NotFinite = {}
        with watch.time("evaluate"):
            evaluate(
                evaluator, part.problem, of_rows, part.plan, of_round.shares[comm.rank], block,
                sums, _From(first[0].index, draws), not_finite, seed=config.seed, advance=advance,
                pruned_scale=PRUNED_SCALE[config.pruned_weights],
            )  # fmt: skip
        of_block = {
            stretch.rows[at]: Fault(draw, part_index, example)
            for at, (draw, example) in not_finite.items()
        }
        take_earliest(faults, of_block)
        with watch.time("reduce"):
            reduce_groups(comm, of_round, sums, part.problem.task, shape, len(part.plan.units[0]))
            reduce_draws(comm, draws)
        if book is None:
            held.keep(shape, sums)
        all_draws.append((part_index, draws))
    with watch.time("reduce"):
        of_ranks = comm.gather((faults, watch.seconds["evaluate"] - before_s)) or []
        for of_rank, _ in of_ranks:
            take_earliest(faults, of_rank)
    return all_draws, faults, max((seconds for _, seconds in of_ranks), default=0.0)


class _HeldSums:
    """Sums of a rank other than 0 that are at zero, between one stretch of work and the next.

    Memory that was touched once is faster. There are no more than one of the stretches has needed.

    Parameters
    ----------
    is_held : bool
        False where a stretch has one block of examples after the other, each with sums of its own.
    """

    def __init__(self, is_held: bool) -> None:
        self._is_held = is_held
        self._shape: tuple[int, int] | None = None
        self._spare: list[AnySums] = []

    def take(self, shape: tuple[int, int], groups: Collection[int]) -> dict[int, AnySums]:
        """Sums for so many thresholds and examples; for some groups there may be none."""
        if shape != self._shape:
            self._shape, self._spare = shape, []
        taken, self._spare = self._spare[: len(groups)], self._spare[len(groups) :]
        return dict(zip(groups, taken, strict=False))

    def keep(self, shape: tuple[int, int], sums: dict[int, AnySums]) -> None:
        """Take spent ones back."""
        if self._is_held and shape == self._shape:
            for of_group in sums.values():
                of_group.clear()
            self._spare += sums.values()


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
