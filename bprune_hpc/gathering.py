"""The work of a sweep on all ranks, in rounds, after each of which the results are written.

Rank 0 says what comes next (``book``), and every rank does it (``rank_work``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .book import Book
from .comm import Comm
from .config import SweepConfig
from .environment import Stopwatch
from .evaluators import Evaluator
from .pace import Pace
from .parts import Part
from .pruning import Cut
from .rank_work import RankWork
from .schedule import Publication, Step, Stretch

Ask = Callable[[Pace], str | None]
"""Asked on every rank before each stretch of work: why to stop now, the same on all; or None.

Rank 0's pace is the one that has been measured; it knows what another round needs.
"""


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
    rank = RankWork(comm, evaluator, parts, cuts, costs, config, watch, advance, book)
    pace, why = book.pace if book is not None else Pace(), None
    while True:
        why = why or ask(pace)
        with watch.time("write"):
            step = comm.from_root(partial(_next, book, why is not None))
        if step is None:
            return why if comm.from_root(partial(_is_unfinished, book)) else None
        if isinstance(step, Stretch):
            rank.work(step)
        elif isinstance(step, Publication):
            with watch.time("write"):
                comm.from_root(partial(_publish, book))
        else:
            rank.bring_together()


def _next(book: Book | None, is_stopping: bool) -> Step | None:
    assert book is not None  # only rank 0 calls this
    return book.next(is_stopping)


def _publish(book: Book | None) -> None:
    assert book is not None
    book.publish()


def _is_unfinished(book: Book | None) -> bool:
    assert book is not None
    return not book.is_complete
