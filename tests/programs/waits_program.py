"""Started by ``mpirun`` in the tests: a rank that does not come, stops, dies or gets a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bprune_hpc.job import signals

if __name__ == "__main__":
    signals.start()

import numpy as np

from bprune_hpc.mpi.comm import Comm, MPIComm, run


class Ones:
    """Three sums, of which every rank has a 1."""

    is_empty = False

    def __init__(self) -> None:
        self.arrays = (np.ones(3, np.int64),)

    def add(self, at: slice, arrays: Sequence[np.ndarray]) -> None:
        self.arrays[0][at] += arrays[0]


def late(comm: Comm, rank: int) -> int:
    """One rank does not come to a sum."""
    if comm.rank == rank:
        time.sleep(3600)
    comm.add_to_root({0: Ones()}, {0: range(comm.size)})
    return 0


def stuck(comm: Comm, rank: int) -> int:
    """One rank stops inside a vote, which all have begun."""
    if comm.rank == rank:

        class Stop:
            def __getattr__(self, name: str) -> object:
                os.kill(os.getpid(), signal.SIGSTOP)
                raise AttributeError(name)

        assert isinstance(comm, MPIComm)
        comm._mpi = Stop()
    comm.any_of(False)
    return 0


def unsummed(comm: Comm, rank: int) -> int:
    """One rank does not come to a sum of gradients, which has no roll call."""
    step = comm.exchange([range(comm.size + 1)])
    if comm.rank == rank:
        time.sleep(3600)
    step.add_up()
    return 0


def killed(comm: Comm, rank: int) -> int:
    """One rank is killed while the others wait for it."""
    if comm.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.any_of(False)
    return 0


def paused(comm: Comm, rank: int) -> int:
    """One rank is stopped for three seconds and goes on."""
    if comm.rank == rank:
        wake = "import os, sys, time; time.sleep(3); os.kill(int(sys.argv[1]), 18)"
        subprocess.Popen([sys.executable, "-S", "-c", wake, str(os.getpid())])
        os.kill(os.getpid(), signal.SIGSTOP)
    ones = Ones()
    comm.add_to_root({0: ones}, {0: range(comm.size)})
    if comm.is_root:
        print(f"sum {ones.arrays[0]}")
    return 0


def signalled(comm: Comm, rank: int) -> int:
    """One rank gets SIGUSR1 while it blocks in MPI, until it has seen it; the ranks vote."""
    from mpi4py import MPI

    seen = Path(sys.argv[3])
    assert not comm.any_of(False)
    if comm.rank == rank:
        send = "import os, sys, time; time.sleep(0.5); os.kill(int(sys.argv[1]), 10)"
        subprocess.Popen([sys.executable, "-S", "-c", send, str(os.getpid())])
        note = signals.signals.note

        def noted(number: int, now: float) -> bool:
            is_second = note(number, now)
            seen.touch()
            return is_second

        signals.signals.note = noted
        MPI.COMM_WORLD.recv(source=0)
        print(f"{signals.signals.seen} seen before MPI came back")
    elif comm.is_root:
        while not seen.exists():
            time.sleep(0.01)
        MPI.COMM_WORLD.send(None, dest=rank)
    votes = comm.gather(comm.any_of(signals.signals.seen is not None))
    if comm.is_root:
        print(f"votes {votes}")
    return 0


def main() -> int:
    """Run the asked-for mishap; ``absent`` is one before MPI."""
    mishaps: dict[str, Callable[[Comm, int], int]] = {
        "late": late, "stuck": stuck, "unsummed": unsummed, "killed": killed, "paused": paused,
        "signalled": signalled,
    }  # fmt: skip
    name, rank = sys.argv[1], int(sys.argv[2])
    if name != "absent":
        return run(lambda comm: mishaps[name](comm, rank))
    if os.environ["OMPI_COMM_WORLD_RANK"] == str(rank):
        time.sleep(3600)
    return run(lambda comm: 0)


if __name__ == "__main__":
    sys.exit(main())
