"""Arrays that ranks fill together, step by step: summands of each, and values that all read.

Ranks of one host have memory that all of them see (a file in memory): each writes what it has once,
adds up its share of the sum from there, and writes new values where all read them. Ranks of several
hosts send messages.

What belongs here: where these arrays lie, and when they may be read. What does not: what is in
them, other collectives (``mpi.comm``, which chooses).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from .._typing import Float32Array as Array
from ..alignment import aligned, extent

Bounds = Sequence[Sequence[int]]
"""Of each part of an array, one behind the other: where each rank's share begins, and the end."""
Inside = Callable[[str], AbstractContextManager[None]]

_SUMMANDS, _VALUES = "gradients of all ranks", "weights of all ranks"
SHARED = "/dev/shm"  # files of Linux that are in memory


class Exchange(Protocol):
    """What ranks do together in a step; all of them call these methods.

    Ranks are not asked first whether they are there, as this is done at every step of a training.

    Attributes
    ----------
    summand : float32 array, one axis
        This rank's, which it writes before :meth:`add_up`.
    values : float32 array of that length
        Those of all ranks. A rank writes its shares of it between :meth:`add_up` and
        :meth:`publish`; after that all have the whole.
    """

    summand: Array
    values: Array

    def add_up(self) -> Sequence[Array]:
        """This rank's share of the sum over ranks, one array a part, until the next call.

        With two ranks the bits are those of any order; with more, of one host those of the order
        of ranks, else those of one MPI library and layout over hosts.
        """

    def publish(self) -> None:
        """Give this rank's shares of the values to all."""


def slices_of(bounds: Bounds, rank: int) -> list[slice]:
    """One rank's share of each part."""
    return [slice(*part[rank : rank + 2]) for part in bounds]


class Messages:
    """By messages between ranks.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``
    world : mpi4py.MPI.Comm
    inside : callable
        Watches what is done in it.
    bounds : see :data:`Bounds`
    """

    def __init__(self, mpi: Any, world: Any, inside: Inside, bounds: Bounds) -> None:
        self._mpi, self._world, self._inside = mpi, world, inside
        self._bounds = bounds
        self.summand, self.values = aligned(bounds[-1][-1]), aligned(bounds[-1][-1])
        self._shares = _shares(bounds, world.Get_rank())

    def add_up(self) -> Sequence[Array]:
        """See :class:`Exchange`."""
        with self._inside(_SUMMANDS):
            for part, share in zip(self._bounds, self._shares, strict=True):
                whole = self.summand[part[0] : part[-1]]
                self._world.Reduce_scatter(whole, share, sizes(part), op=self._mpi.SUM)
        return self._shares

    def publish(self) -> None:
        """See :class:`Exchange`."""
        with self._inside(_VALUES):
            for part in self._bounds:
                layout = sizes(part), list(part[:-1])
                whole = [self.values, layout, self._mpi.FLOAT]
                self._world.Allgatherv(self._mpi.IN_PLACE, whole)


class HostMemory:
    """In memory that all ranks see.

    Until all are in :meth:`add_up` nobody writes values, and until all are in :meth:`publish`
    nobody writes summands again: two barriers a step are enough.

    Parameters
    ----------
    world : mpi4py.MPI.Comm
    inside : callable
        Watches what is done in it.
    bounds : see :data:`Bounds`
    memory : mmap.mmap
        Room for the summands of all ranks, and for the values behind them.
    """

    def __init__(self, world: Any, inside: Inside, bounds: Bounds, memory: mmap.mmap) -> None:
        self._world, self._inside = world, inside
        rank, n = world.Get_rank(), bounds[-1][-1]
        rows = np.frombuffer(memory, np.float32).reshape(world.Get_size() + 1, -1)[:, :n]
        *self._summands, self.values = rows
        self.summand = self._summands[rank]
        self._mine = slices_of(bounds, rank)
        self._shares = _shares(bounds, rank)

    def add_up(self) -> Sequence[Array]:
        """See :class:`Exchange`."""
        with self._inside(_SUMMANDS):
            self._world.Barrier()
        for share, mine in zip(self._shares, self._mine, strict=True):
            first, second, *others = (one[mine] for one in self._summands)
            np.add(first, second, out=share)
            for other in others:
                share += other
        return self._shares

    def publish(self) -> None:
        """See :class:`Exchange`."""
        with self._inside(_VALUES):
            self._world.Barrier()


def exchange(mpi: Any, world: Any, inside: Inside, bounds: Bounds) -> Exchange:
    """In memory of the host, if all ranks are there and it has room; else by messages."""
    row = np.dtype(np.float32).itemsize * extent([[bounds[-1][-1]]])
    rank, size = world.Get_rank(), world.Get_size()
    with contextlib.ExitStack() as stack:
        name = ""
        if rank == 0:
            with contextlib.suppress(OSError):
                made = tempfile.NamedTemporaryFile(prefix="bprune_hpc.", dir=SHARED)  # noqa: SIM115
                file = stack.enter_context(made)
                file.truncate((size + 1) * row)
                name = file.name
        name = world.bcast(name)
        # Rank 0 has the values, too.
        memory = _mapped(name, (size + 1) * row, [rank * row] + [size * row] * (rank == 0), row)
        # Once all have it, or have not, its name can go.
        if world.allreduce(memory is not None, op=mpi.LAND):
            assert memory is not None
            return HostMemory(world, inside, bounds, memory)
    return Messages(mpi, world, inside, bounds)


def _mapped(name: str, n_bytes: int, starts: Sequence[int], row: int) -> mmap.mmap | None:
    """A file of this host in memory, in which this rank takes the rows that it writes first."""
    try:
        with open(name, "r+b") as file:
            # Without this, who writes where there is no room left is ended by the system.
            for start in starts:
                os.posix_fallocate(file.fileno(), start, row)
            return mmap.mmap(file.fileno(), n_bytes)
    except (OSError, ValueError):
        return None


def sizes(bounds: Sequence[int]) -> list[int]:
    """Lengths of the shares of one part."""
    return [stop - start for start, stop in pairwise(bounds)]


def _shares(bounds: Bounds, rank: int) -> list[Array]:
    return [aligned(mine.stop - mine.start) for mine in slices_of(bounds, rank)]
