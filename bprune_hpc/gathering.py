"""The work of a sweep on all ranks, in rounds, after each of which the results are written.

Rank 0 says what comes next and keeps what was found; the others know no more than the stretch of
work in hand. How a share is evaluated does not belong here (``evaluation``), nor what the sums
say (``findings``), nor which work is next (``schedule``) and how much of it (``pace``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .comm import Comm
from .config import SweepConfig
from .environment import Stopwatch
from .evaluation import Network, evaluate
from .findings import Findings, with_block
from .ledger import Ledger
from .pace import Pace
from .parts import Part, passes, state_bytes
from .plan import round_of
from .pruning import PRUNED_SCALE, Cut
from .reduction import reduce_draws, reduce_groups
from .schedule import Stretch, last_unit, level, stretch_of
from .tasks import AnyDrawSums, AnySums

Publish = Callable[["Book"], None]
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
    """

    def __init__(
        self,
        config: SweepConfig,
        parts: Sequence[Part],
        ledgers: Sequence[Ledger],
        n_ranks: int,
        publish: Publish,
    ) -> None:
        self.config = config
        self.parts = parts
        self.ledgers = level(ledgers)
        self.pace = Pace(state_bytes(parts))
        self._n_ranks = n_ranks
        self._publish = publish
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
            return ledger.n_units == len(plan.units) or target.is_reached(self.findings.metrics)
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

    def done(self, stretch: Stretch, draws: Sequence[tuple[int, AnyDrawSums]]) -> None:
        """Take in a stretch whose sums have been added to the ledger that is furthest behind."""
        ledger = self.ledgers[-1]
        for part, of_part in draws:
            ledger.add_draws(part, of_part)
        ledger.n_units = stretch.units.stop
        if len(self._passes) > 1 and ledger.n_units == len(self.parts[0].plan.units):
            ledger.end_pass(with_block(self.parts, ledger, self.config.save_probabilities))
        self.ledgers = level(self.ledgers)
        self._findings = None


def gather(
    comm: Comm,
    network: Network,
    parts: Sequence[Part],
    cuts: Sequence[Cut],
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
    book : Book on rank 0, None elsewhere

    Returns
    -------
    str or None
        Why it has stopped before all was done. What was done since the last write is in the book.
    """
    pace = book.pace if book is not None else Pace()
    while True:
        why = ask(pace)
        with watch.time("write"):
            stretch = comm.from_root(partial(_next, book, why is not None))
        if stretch is None:
            return why if comm.from_root(partial(_is_unfinished, book)) else None
        start = time.perf_counter()
        draws = _work(comm, network, parts, cuts, config, book, watch, advance, stretch)
        if book is not None:
            n_examples = sum(len(block) for _, block in passes(parts)[stretch.n_passes])
            n_cells = -(-len(stretch.units) * len(stretch.rows) // comm.size)
            book.pace.worked(time.perf_counter() - start, n_cells * n_examples)
            book.done(stretch, draws)


def _next(book: Book | None, is_stopping: bool) -> Stretch | None:
    assert book is not None  # only rank 0 calls this
    return book.next(is_stopping)


def _is_unfinished(book: Book | None) -> bool:
    assert book is not None
    return not book.is_complete


def _work(
    comm: Comm,
    network: Network,
    parts: Sequence[Part],
    cuts: Sequence[Cut],
    config: SweepConfig,
    book: Book | None,
    watch: Stopwatch,
    advance: Callable[[int], None],
    stretch: Stretch,
) -> list[tuple[int, AnyDrawSums]]:
    """Evaluate a stretch on all ranks; sums go to the book on rank 0."""
    of_rows = [cuts[row] for row in stretch.rows]
    of_round = round_of(stretch.units, len(of_rows), comm.size)
    all_draws = []
    sums: dict[int, AnySums]
    for index, (part_index, block) in enumerate(passes(parts)[stretch.n_passes]):
        part = parts[part_index]
        sums = {} if book is None else book.ledgers[-1].sums_of(index)
        first, last = part.plan.units[stretch.units.start], part.plan.units[stretch.units[-1]]
        draws = part.problem.task.draw_sums(len(of_rows), last[-1].index + 1 - first[0].index)
        with watch.time("evaluate"):
            evaluate(
                network, part.problem, of_rows, part.plan, of_round.shares[comm.rank], block,
                sums, _From(first[0].index, draws), seed=config.seed, advance=advance,
                pruned_scale=PRUNED_SCALE[config.pruned_weights],
            )  # fmt: skip
        with watch.time("reduce"):
            reduce_groups(
                comm, of_round, sums, part.problem.task, (len(of_rows), len(block)),
                len(part.plan.units[0]),
            )  # fmt: skip
            reduce_draws(comm, draws)
        all_draws.append((part_index, draws))
    return all_draws


class _From:
    """Sums of the draws from one on."""

    def __init__(self, first: int, sums: AnyDrawSums) -> None:
        self._first = first
        self._sums = sums

    def add(self, threshold: int, draw: int, prediction: Any) -> None:
        """See :class:`bprune_hpc.predictive.DrawSums`."""
        self._sums.add(threshold, draw - self._first, prediction)
