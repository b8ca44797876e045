"""The loop of a sweep on all ranks: rank 0 says what comes next, every rank does it, until all
stop.

What belongs here: the loop, and the agreement on stopping before each piece of work. What does not:
what comes next (``runner.coordinator``), doing it (``runner.worker``), when a job ends
(``job.deadline``), how signals are seen (``job.signals``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..job.deadline import Deadline, margin
from ..job.environment import Stopwatch
from ..job.signals import StopSignals, signals
from ..mpi.comm import Comm
from .coordinator import Coordinator
from .preparation import PreparedSweep
from .scheduler import Publication, Step, Superstep
from .timing import Timing
from .worker import Worker

Ask = Callable[[Timing], str | None]
"""Asked on every rank before each superstep of work: why to stop now, the same on all; or None.

Rank 0's pace is the one that has been measured; it knows what another round needs.
"""


def gather(
    comm: Comm,
    sweep: PreparedSweep,
    coordinator: Coordinator | None,
    watch: Stopwatch,
    advance: Callable[[int], None],
    ask: Ask,
) -> str | None:
    """Do the work; every rank calls this.

    Parameters
    ----------
    coordinator : Coordinator on rank 0, None elsewhere

    Returns
    -------
    str or None
        Why it has stopped before all was done. The coordinator has what was done since the last
        write.
    """
    rank = Worker(comm, sweep, watch, advance, coordinator)
    pace, why = coordinator.pace if coordinator is not None else Timing(), None
    while True:
        why = why or ask(pace)
        with watch.time("write"):
            step = comm.from_root(partial(_next, coordinator, why is not None))
        if step is None:
            return why if comm.from_root(partial(_is_unfinished, coordinator)) else None
        if isinstance(step, Superstep):
            rank.work(step)
        elif isinstance(step, Publication):
            with watch.time("write"):
                comm.from_root(partial(_publish, coordinator))
        else:
            rank.reduce()


def _next(coordinator: Coordinator | None, is_stopping: bool) -> Step | None:
    assert coordinator is not None  # only rank 0 calls this
    return coordinator.next(is_stopping)


def _publish(coordinator: Coordinator | None) -> None:
    assert coordinator is not None
    coordinator.publish()


def _is_unfinished(coordinator: Coordinator | None) -> bool:
    assert coordinator is not None
    return not coordinator.is_complete


class StopVote:
    """Asked by every rank before each superstep of work (``gathering.Ask``).

    Parameters
    ----------
    deadline : Deadline or None
        Read on rank 0, whose clock alone decides.
    margin_s : float or None
        ``--stop_margin_s``.
    """

    def __init__(
        self,
        comm: Comm,
        deadline: Deadline | None,
        margin_s: float | None,
        stop_signals: StopSignals = signals,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._comm = comm
        self._deadline = deadline
        self._margin_s = margin_s
        self._signals = stop_signals
        self._now = now

    def __call__(self, pace: Timing) -> str | None:
        """Why to stop now, the same on every rank; None: there is no reason.

        On rank 0 the pace learns how much time there is left for work.
        """
        mine = self._reason(pace)
        if not self._comm.any_of(mine is not None):
            return None
        reasons = self._comm.gather(mine) or [mine]
        return self._comm.from_root(lambda: _first(reasons))

    def _reason(self, pace: Timing) -> str | None:
        if self._signals.seen is not None:
            return f"{self._signals.seen} on rank {self._comm.rank}"
        if self._deadline is None or not self._comm.is_root:
            return None
        margin_s = margin(self._margin_s, pace.slowest_round_s, pace.next_write_s)
        now = self._now()
        pace.room_s = self._deadline.left_s(now) - margin(self._margin_s, 0.0, pace.next_write_s)
        if not self._deadline.is_near(margin_s, now):
            return None
        too_short = "" if pace.slowest_round_s else "; too short a job for one round"
        ends = self._deadline.describe(now)
        return f"the job ends {ends}, and {margin_s:.0f} s are kept for that{too_short}"


def _first(reasons: list[str | None]) -> str:
    return next(reason for reason in reasons if reason is not None)
