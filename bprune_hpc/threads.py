"""A process's own threads, each with room for arrays of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from .workspace import Workspace

Work = Callable[[Workspace, int, int], None]
"""Works on parts from one on to another one, in some room."""


class Threads:
    """Threads that divide parts among themselves.

    Parameters
    ----------
    n_threads : int
        With one, the thread that asks does the work itself.
    """

    def __init__(self, n_threads: int) -> None:
        self._rooms = [Workspace() for _ in range(n_threads)]
        self._pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None

    def run(self, work: Work, n_parts: int) -> None:
        """Do all parts: those of a thread are next to each other."""
        rooms = self._rooms[:n_parts]
        if self._pool is None or len(rooms) < 2:
            work(self._rooms[0], 0, n_parts)
            return
        ends = [n_parts * at // len(rooms) for at in range(len(rooms) + 1)]
        started = [
            self._pool.submit(work, *arguments)
            for arguments in zip(rooms, ends[:-1], ends[1:], strict=True)
        ]
        wait(started)  # so that none works on when one has failed
        for one in started:
            one.result()
