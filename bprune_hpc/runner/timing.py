"""How long rounds take, and so how long the next is to be: arithmetic on measured times.

A round is all that is done between two writes. The clock decides when results are written and
never what is in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUND_S = 60.0
"""Work between two writes of the results, about, s."""
FIRST_ROUND_S = 10.0
"""Work before the first write, s, as something is to be on disk early; up to ``ROUND_S`` where the
write would otherwise take more than ``FIRST_WRITE_SHARE`` of the time until then."""
FIRST_WRITE_SHARE = 0.1
SUPERSTEP_S = 15.0
"""Work before all ranks look at signals and the clock again, where that costs little, s: a batch
system leaves 30 s or so after a SIGTERM."""
WRITE_SHARE = 0.02
"""Most of the time that is to go into writing, with the reductions that it needs; and
into what ranks do, or wait for, between supersteps of work. Rounds, and supersteps, become longer
where that is not enough."""


@dataclass
class Timing:
    """Times of rank 0, s.

    Attributes
    ----------
    foretold_s : float
        What the next write is foretold to take, if as little as can be is drawn before it: a file
        grows with jackknife groups, and with examples.
    growth_s : float
        What is foretold for a work item (see :meth:`n_items`) of a jackknife group that has no
        draws yet.
    most_growth_s : float
        The same for all groups that will have none.
    slowest_round_s, slowest_write_s : float
        So far: what a job has to have left for another round. 0 before the first.
    unsaved_s : float
        Work since the last write.
    n_writes : int
    room_s : float
        What there is before the job has to stop; no superstep of work is planned beyond.
    """

    foretold_s: float = 0.0
    growth_s: float = 0.0
    most_growth_s: float = 0.0
    slowest_round_s: float = 0.0
    slowest_write_s: float = 0.0
    unsaved_s: float = 0.0
    n_writes: int = 0
    room_s: float = math.inf
    _largest: tuple[float, float] = (0.0, 0.0)  # of all writes: foretold, and what it took
    _write_s: float = 0.0
    _reduce_s: float = 0.0
    _reducing_s: float = 0.0
    _forced_s: float = 0.0  # since the last superstep
    _item_s: float | None = None
    _besides_s: float = 0.0

    @property
    def round_s(self) -> float:
        """How much work the round in progress is to have."""
        if self.n_writes == 0:
            return min(max(FIRST_ROUND_S, self.foretold_s / FIRST_WRITE_SHARE), ROUND_S)
        return max(ROUND_S, (self._reduce_s + self._write_s) / WRITE_SHARE)

    @property
    def superstep_s(self) -> float:
        """Work, at most, before signals are looked at."""
        besides_s = self._besides_s + self._forced_s
        return min(max(SUPERSTEP_S, besides_s / WRITE_SHARE), self.round_s)

    @property
    def is_due(self) -> bool:
        """Whether there is enough work to be worth a write."""
        return self.unsaved_s > 0 and self.unsaved_s + 0.5 * self.superstep_s >= self.round_s

    @property
    def next_write_s(self) -> float:
        """What the next write may take, by what is foretold and by the writes so far."""
        return max(self.slowest_write_s, self.foretold_s * self._error)

    @property
    def _error(self) -> float:
        """What the write of the most sums took, for each second that was foretold."""
        foretold_s, seconds = self._largest
        return seconds / foretold_s if foretold_s > 0 else 1.0

    def n_items(self) -> float | None:
        """Work items of one rank, times examples, that there is time for; None: not known.

        A work item is a replicate at a threshold.
        """
        if self._item_s is None:
            return None
        room_s = self.room_s - self._besides_s - max(self._reduce_s, self._reducing_s)
        # What is drawn has to be written before the end too.
        growing = room_s / (self._item_s + self.growth_s * self._error)
        grown = (room_s - self.most_growth_s * self._error) / self._item_s
        left_s = min(self.round_s - self.unsaved_s, self.superstep_s)
        return max(min(left_s / self._item_s, max(growing, grown)), 0.0)

    def worked(self, seconds: float, computing_s: float, n_items: float) -> None:
        """Take in a superstep of work.

        Parameters
        ----------
        seconds : float
            From its beginning until rank 0 knows that it is done.
        computing_s : float
            Of the rank that took longest, without what others wait for as work items cannot be
            divided. The rest takes as long for a long superstep as for a short one.
        n_items : float
            Work items of one rank, times examples.
        """
        self._item_s = max(min(computing_s, seconds), 1e-6) / n_items
        self._besides_s = max(seconds - computing_s, 0.0)
        self._forced_s = 0.0
        self.passed(seconds)

    def reduced(self, seconds: float, is_forced: bool = False) -> None:
        """Take in how long a reduction took.

        Parameters
        ----------
        is_forced : bool
            Whether before a write is due; the next superstep is then long enough to be worth it.
        """
        self._forced_s = seconds if is_forced else 0.0
        self._reducing_s += seconds
        self.passed(seconds)

    def passed(self, seconds: float) -> None:
        """Take in what else had to be done before the next write."""
        self.unsaved_s += seconds
        self.slowest_round_s = max(self.slowest_round_s, self.unsaved_s)

    def wrote(self, seconds: float, foretold_s: float = 0.0) -> None:
        """Take in a write.

        Parameters
        ----------
        foretold_s : float
            What had been foretold for it.
        """
        self._largest = max(self._largest, (foretold_s, seconds))
        self._write_s = seconds
        self.slowest_write_s = max(self.slowest_write_s, seconds)
        self.unsaved_s = 0.0
        self._reduce_s, self._reducing_s = self._reducing_s, 0.0
        self.n_writes += 1
