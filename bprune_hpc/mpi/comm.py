"""Ranks: the only module that knows there are several, and the only one that imports mpi4py.

Two communicators with one interface, so that the rest of the code is the same alone and on
many ranks. All methods are collective: every rank calls them, in the same order.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import sources, streams
from ..errors import BpruneError, LaunchError, is_bug, message_of, status_of
from . import exchange, rendezvous
from .launchers import is_number, launcher, leave_out_idle_network
from .reduction_tree import Part, messages, pieces

logger = logging.getLogger(__name__)

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

_MESSAGE_BYTES = 64 * 2**20  # so that a collective needs little memory beside its array
_PART_TAG = 7718
# A launcher may drop what it has not read yet when a job aborts.
_LAST_WORDS_S = 0.3


class EndedByRoot(SystemExit):
    """Rank 0 has found bad input: every rank ends with this status, rank 0 says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status)
        self.message = message


class Comm(Protocol):
    """What the code may ask of the ranks."""

    rank: int
    size: int
    library: str

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""

    def from_root(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone and give its (small) result to every rank."""

    def bcast_arrays(self, arrays: Arrays | None) -> dict[str, NDArray[Any]]:
        """Give rank 0's arrays to every rank, as buffers."""

    def add_to_root(
        self, parts: Mapping[int, Part], participants: Mapping[int, Sequence[int]]
    ) -> None:
        """Add all ranks' parts to those of rank 0; of what the others have, nothing is left.

        Parameters
        ----------
        parts : mapping of int to Part
            Those of this rank; rank 0 has one for each of ``participants``.
        participants : mapping of int to sequence of int
            Ranks, ascending, whose part counts; the same on every rank.
        """

    def gather(self, value: T) -> list[T] | None:
        """List of every rank's (small) value on rank 0; ``None`` elsewhere."""

    def any_of(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""

    def exchange(self, bounds: exchange.Bounds) -> exchange.Exchange:
        """Arrays that several ranks fill together at every step of a training.

        Parameters
        ----------
        bounds : sequence of sequence of int
            Of each part of an array where each rank's share begins, and the end.
        """

    def gather_shares(self, array: NDArray[np.float32], bounds: Sequence[int]) -> None:
        """Put every rank's share of an array, which it has there, into that of all ranks."""

    def close(self) -> None:
        """Leave together: nothing is asked of the ranks after this."""

    def abort(self, status: int) -> None:
        """End every rank of the job, now."""


def on_root(comm: Comm, function: Callable[[], T]) -> T | None:
    """Call a function on rank 0 alone, where its result stays; every rank calls this."""
    kept: list[T] = []
    comm.from_root(lambda: kept.append(function()))
    return kept[0] if kept else None


def of_root(value: T | None) -> T:
    """What rank 0 alone has, for what rank 0 alone calls."""
    assert value is not None
    return value


class SerialComm:
    """One process alone; needs no MPI."""

    rank = 0
    size = 1
    is_root = True
    library = "none"

    def from_root(self, function: Callable[[], T]) -> T:
        """See :class:`Comm`."""
        try:
            return function()
        except (BpruneError, OSError) as error:
            raise EndedByRoot(status_of(error), message_of(error)) from error

    def bcast_arrays(self, arrays: Arrays | None) -> dict[str, NDArray[Any]]:
        """See :class:`Comm`."""
        return dict(arrays or {})

    def add_to_root(
        self, parts: Mapping[int, Part], participants: Mapping[int, Sequence[int]]
    ) -> None:
        """See :class:`Comm`."""

    def gather(self, value: T) -> list[T] | None:
        """See :class:`Comm`."""
        return [value]

    def any_of(self, flag: bool) -> bool:
        """See :class:`Comm`."""
        return flag

    def exchange(self, bounds: exchange.Bounds) -> exchange.Exchange:
        """See :class:`Comm`."""
        raise NotImplementedError("one process alone takes its steps by itself")

    def gather_shares(self, array: NDArray[np.float32], bounds: Sequence[int]) -> None:
        """See :class:`Comm`."""

    def close(self) -> None:
        """See :class:`Comm`."""

    def abort(self, status: int) -> None:
        """See :class:`Comm`."""
        sys.exit(status)


class MPIComm:
    """The ranks of ``MPI.COMM_WORLD``."""

    def __init__(self) -> None:
        self._limit_s = rendezvous.limit_s()
        leave_out_idle_network()
        with rendezvous.watchdog("MPI_Init", self._limit_s):
            from mpi4py import MPI

        self._mpi = MPI
        self._world = MPI.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()
        self.library = MPI.Get_library_version().split(",")[0].splitlines()[0].strip()
        is_threaded = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._rendezvous = rendezvous.Rendezvous(
            self._world, self._limit_s, is_threaded, self.abort
        )
        self._rendezvous.call_the_roll()

    @property
    def is_root(self) -> bool:
        """See :class:`Comm`."""
        return self.rank == 0

    def from_root(self, function: Callable[[], T]) -> T:
        """See :class:`Comm`.

        A :class:`BpruneError` of the function, or an ``OSError`` (a file that may not be
        read, a name that is too long), becomes :class:`EndedByRoot` on every rank, so that all
        end in good order and the message is printed once.
        """
        outcome: Any = None
        failure: tuple[int, str] | None = None
        if self.is_root:
            try:
                outcome = function()
            except (BpruneError, OSError) as error:
                failure = (status_of(error), message_of(error))
            except SystemExit as end:  # --help has been answered
                failure = (int(end.code or 0), "")
        with self._rendezvous.all_at("a decision of rank 0"):
            failure, outcome = self._world.bcast((failure, outcome))
        if failure is not None:
            raise EndedByRoot(*failure)
        return outcome

    def bcast_arrays(self, arrays: Arrays | None) -> dict[str, NDArray[Any]]:
        """See :class:`Comm`."""
        layout = [(k, a.shape, a.dtype.str) for k, a in (arrays or {}).items()]
        out = {}
        with self._rendezvous.all_at("arrays of rank 0"):
            for name, shape, dtype in self._world.bcast(layout):
                if self.is_root:
                    assert arrays is not None
                    array = np.ascontiguousarray(arrays[name]).reshape(shape)
                else:
                    array = np.empty(shape, dtype)
                flat = array.reshape(-1).view(np.uint8)
                for start in range(0, flat.size, _MESSAGE_BYTES):
                    self._world.Bcast(flat[start : start + _MESSAGE_BYTES])
                out[name] = array
        return out

    def add_to_root(
        self, parts: Mapping[int, Part], participants: Mapping[int, Sequence[int]]
    ) -> None:
        """See :class:`Comm`. Ranks that have no part return at once."""
        members = sorted({0}.union(*participants.values()))
        if self.rank not in members:
            return
        with self._rendezvous.all_at("sums over ranks", members):
            for key in sorted(participants):
                for sender, receiver in messages(participants[key]):
                    if self.rank == sender:
                        self._send(parts[key], receiver)
                    elif self.rank == receiver:
                        self._receive(parts[key], sender)

    def gather(self, value: T) -> list[T] | None:
        """See :class:`Comm`."""
        with self._rendezvous.all_at("values of all ranks"):
            return self._world.gather(value)

    def any_of(self, flag: bool) -> bool:
        """See :class:`Comm`."""
        vote = np.array([flag], np.int8)
        with self._rendezvous.all_at("a vote of all ranks"):
            self._world.Allreduce(self._mpi.IN_PLACE, vote, op=self._mpi.MAX)
        return bool(vote[0])

    def exchange(self, bounds: exchange.Bounds) -> exchange.Exchange:
        """See :class:`Comm`."""
        with self._rendezvous.all_at("memory of a training"):
            return exchange.exchange(self._mpi, self._world, self._rendezvous.inside, bounds)

    def gather_shares(self, array: NDArray[np.float32], bounds: Sequence[int]) -> None:
        """See :class:`Comm`."""
        whole = [array, (exchange.sizes(bounds), list(bounds[:-1])), self._mpi.FLOAT]
        with self._rendezvous.inside("weights of all ranks"):
            self._world.Allgatherv(self._mpi.IN_PLACE, whole)

    def close(self) -> None:
        """See :class:`Comm`."""
        with self._rendezvous.all_at("the end"):
            pass
        # MPI is finalized when Python ends, after others that use it (Horovod) have let go.
        self._last_watchdog = rendezvous.start_watchdog("MPI_Finalize", self._limit_s)

    def abort(self, status: int) -> None:
        """See :class:`Comm`."""
        time.sleep(_LAST_WORDS_S)
        self._world.Abort(status)

    def _send(self, part: Part, receiver: int) -> None:
        for at in pieces(part):
            for array in part.arrays:
                self._world.Send(array[at], dest=receiver, tag=_PART_TAG)

    def _receive(self, part: Part, sender: int) -> None:
        room: list[NDArray[np.int64]] = []
        for at in pieces(part):
            if part.is_empty:
                came = [array[at] for array in part.arrays]
            else:
                room = room or [np.empty_like(array[at]) for array in part.arrays]
                came = [array[: at.stop - at.start] for array in room]
            for array in came:
                self._world.Recv(array, source=sender, tag=_PART_TAG)
            if not part.is_empty:
                part.add(at, came)
        part.is_empty = False


def world() -> SerialComm | MPIComm:
    """The communicator of this process: MPI where a launcher started it, else one process.

    Raises
    ------
    LaunchError
        If the launcher started several processes of which each believes to be alone, or mpi4py
        is missing: they would all write the same file.
    """
    started = launcher()
    if started is None:
        n_tasks = os.environ.get("SLURM_NTASKS", "1")
        if is_number(n_tasks) and int(n_tasks) > 1:
            logger.warning(
                "one process inside an allocation of %s tasks; start with srun or mpirun to use it",
                n_tasks,
            )
        return SerialComm()
    name, size, rank = started
    try:
        comm = MPIComm()
    except ImportError as error:
        if size == 1:
            return SerialComm()
        raise LaunchError(
            f"{name}: mpi4py cannot be loaded ({error}); pip install mpi4py and an MPI library"
        ) from error
    if comm.size == 1 and ((size or 1) > 1 or rank > 0):
        of = f" of {size}" if size else ""
        raise LaunchError(
            f"{name} started this as process {rank}{of}, but MPI sees one process alone and all "
            f"would write the same file; use the mpirun of mpi4py's MPI ({comm.library}), "
            "or another srun --mpi=..."
        )
    return comm


@contextmanager
def abort_on_error(comm: Comm) -> Iterator[None]:
    """End the whole job if this rank raises, with this rank's message, once.

    Without it the other ranks would wait for this one for ever.
    """
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        where = f"rank {comm.rank} on {socket.gethostname()}: " if comm.size > 1 else ""
        if is_bug(error):
            traceback.print_exc()
        sys.stderr.write(f"{where}error: {message_of(error)}\n")
        sys.stderr.flush()
        comm.abort(getattr(error, "exit_status", 1))


def _check_same_code(comm: Comm) -> None:
    """Refuse ranks whose packages differ: their parts would not be of one whole.

    Raises
    ------
    EndedByRoot
        With rank 0's LaunchError.
    """
    if comm.size == 1:
        return
    mine = sources.package_sha256(), f"{socket.gethostname()} ({sources.HOME})"
    everyone = comm.gather(mine)

    def compare() -> None:
        assert everyone is not None
        others = [rank for rank, (digest, _) in enumerate(everyone) if digest != mine[0]]
        if others:
            raise LaunchError(
                f"rank {others[0]} on {everyone[others[0]][1]} runs other code of bprune_hpc than "
                f"rank 0 on {mine[1]}; give all ranks one environment and one PYTHONPATH"
            )

    comm.from_root(compare)


def run(
    main: Callable[[Comm], int],
    ranks: Callable[[], Comm] = world,
    level: int = logging.INFO,
) -> int:
    """Run a command on all ranks and return its exit status.

    Errors in what the user gave, found by rank 0 for all, are printed once and end every rank
    normally; any other exception on any rank ends the whole job at once.

    Parameters
    ----------
    main : callable
        The command, which returns its exit status.
    ranks : callable, optional
        Makes the communicator.
    level : int, optional
        Of what is logged on rank 0.
    """
    streams.keep()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        comm = ranks()
    except LaunchError as error:
        # Each of the processes is here; the first one speaks for all.
        if (launcher() or ("", 0, 0))[2] == 0:
            sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    tag = f"[rank {comm.rank}] " if comm.size > 1 else ""
    logging.basicConfig(
        level=level if comm.is_root else logging.WARNING,
        format=f"%(asctime)s {tag}%(levelname)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    with abort_on_error(comm):
        try:
            _check_same_code(comm)
            status = main(comm)
        except EndedByRoot as end:
            if comm.is_root and end.message:
                sys.stderr.write(f"error: {end.message}\n")
            status = int(end.code or 0)
        comm.close()
        return status
    raise AssertionError("abort has ended this process")
