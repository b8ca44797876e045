"""Arrays that are used again and again, and threads that each have some of their own.

Fresh memory costs more to touch than to compute on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..alignment import aligned


@dataclass
class Workspace:
    """Room for arrays of a kind, of which one is in use at a time."""

    _held: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def array(self, kind: str, *shape: int) -> NDArray[np.float32]:
        """An uninitialized array; it overwrites the one of this kind that was given before."""
        size = math.prod(shape)
        held = self._held.get(kind)
        if held is None or held.size < size:
            held = self._held[kind] = aligned(size)
        return held[:size].reshape(shape)


Work = Callable[[Workspace, int, int], None]
"""Works on parts from one on to another one, in a workspace."""


class Threads:
    """Threads that divide parts among themselves.

    Parameters
    ----------
    n_threads : int
        With one, the thread that asks does the work itself.
    """

    def __init__(self, n_threads: int) -> None:
        self._workspaces = [Workspace() for _ in range(n_threads)]
        self._pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None

    def run(self, work: Work, n_parts: int) -> None:
        """Do all parts: those of a thread are next to each other."""
        workspaces = self._workspaces[:n_parts]
        if self._pool is None or len(workspaces) < 2:
            work(self._workspaces[0], 0, n_parts)
            return
        ends = [n_parts * at // len(workspaces) for at in range(len(workspaces) + 1)]
        started = [
            self._pool.submit(work, *arguments)
            for arguments in zip(workspaces, ends[:-1], ends[1:], strict=True)
        ]
        wait(started)  # so that none works on when one has failed
        for one in started:
            one.result()
