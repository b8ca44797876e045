"""The loop of a sweep on all ranks: rank 0 says what comes next, every rank does it, until all
stop.

What belongs here: the loop, and the agreement on stopping before each step. What does not: what
comes next (``runner.coordinator``), doing it (``runner.worker``), when a job ends
(``job.deadline``), how signals are seen (``job.signals``).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from ..job.deadline import Deadline, margin
from ..job.environment import Stopwatch
from ..job.signals import StopSignals, signals
from ..metrics.tasks import AnySums
from ..mpi.comm import Comm, of_root
from .coordinator import Coordinator
from .scheduler import Reduce, Step, Superstep, WorkResult
from .state import SumsOf
from .timing import Timing

Ask = Callable[[Timing], str | None]
"""Asked on every rank before each step: why to stop now, the same on all; or None.

Rank 0's timing is the one that has been measured; it knows what another round needs.
"""


class Worker(Protocol):
    """What does the work of a rank; all ranks call its methods together."""

    def work(self, superstep: Superstep, sums_of: SumsOf) -> WorkResult:
        """Add this rank's partition of a superstep to its sums; the result is rank 0's to use."""

    def reduce(self, step: Reduce, sums_of: SumsOf) -> None:
        """Add all ranks' sums to those of rank 0; the others have none then."""


def run(
    comm: Comm, worker: Worker, coordinator: Coordinator | None, watch: Stopwatch, ask: Ask
) -> str | None:
    """Do the work; every rank calls this.

    Parameters
    ----------
    coordinator : Coordinator on rank 0, None elsewhere
    watch : Stopwatch
        The coordinator's, on rank 0.

    Returns
    -------
    str or None
        Why it has stopped before all was done. The coordinator has what was done since the last
        write.
    """
    timing, why = coordinator.timing if coordinator is not None else Timing(), None
    own: defaultdict[int, dict[int, AnySums]] = defaultdict(dict)  # until rank 0 has got them

    def next_step() -> Step | None:
        return of_root(coordinator).next(why is not None)

    while True:
        why = why or ask(timing)
        with watch.time("write"):
            step = comm.from_root(next_step)
        if step is None:
            return None if comm.from_root(lambda: of_root(coordinator).is_complete) else why
        sums_of = coordinator.sums_of if coordinator is not None else own.__getitem__
        start = watch.now()
        if isinstance(step, Superstep):
            found = worker.work(step, sums_of)
            if coordinator is not None:
                coordinator.worked(step, found, watch.now() - start)
        elif isinstance(step, Reduce):
            worker.reduce(step, sums_of)
            if coordinator is not None:
                coordinator.reduced(step, watch.now() - start)
        else:
            with watch.time("write"):
                comm.from_root(lambda: of_root(coordinator).publish())


class StopVote:
    """Asked by every rank before each step (see :data:`Ask`).

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

    def __call__(self, timing: Timing) -> str | None:
        """Why to stop now, the same on every rank; None: there is no reason.

        On rank 0 the timing learns how much time there is left for work.
        """
        mine = self._reason(timing)
        if not self._comm.any_of(mine is not None):
            return None
        reasons = self._comm.gather(mine) or [mine]
        return self._comm.from_root(lambda: _first(reasons))

    def _reason(self, timing: Timing) -> str | None:
        if self._signals.seen is not None:
            return f"{self._signals.seen} on rank {self._comm.rank}"
        if self._deadline is None or not self._comm.is_root:
            return None
        margin_s = margin(self._margin_s, timing.slowest_round_s, timing.next_write_s)
        now = self._now()
        timing.room_s = self._deadline.left_s(now) - margin(
            self._margin_s, 0.0, timing.next_write_s
        )
        if not self._deadline.is_near(margin_s, now):
            return None
        too_short = "" if timing.slowest_round_s else "; too short a job for one round"
        ends = self._deadline.describe(now)
        return f"the job ends {ends}, and {margin_s:.0f} s are kept for that{too_short}"


def _first(reasons: list[str | None]) -> str:
    return next(reason for reason in reasons if reason is not None)
