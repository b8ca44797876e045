"""Whether all ranks stop now: a signal that any of them has got, or the end of the job.

What belongs here: the vote before each stretch of work. What does not: when a job ends
(``deadline``), how signals are seen (``stop_signals``), what is done before leaving.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .comm import Comm
from .deadline import Deadline, margin
from .pace import Pace
from .stop_signals import StopSignals, signals


class StopVote:
    """Asked by every rank before each stretch of work (``gathering.Ask``).

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

    def __call__(self, pace: Pace) -> str | None:
        """Why to stop now, the same on every rank; None: there is no reason.

        On rank 0 the pace learns how much time there is left for work.
        """
        mine = self._reason(pace)
        if not self._comm.any_of(mine is not None):
            return None
        reasons = self._comm.gather(mine) or [mine]
        return self._comm.from_root(lambda: _first(reasons))

    def _reason(self, pace: Pace) -> str | None:
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
