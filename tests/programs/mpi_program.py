"""Started by ``mpirun`` in the tests: collectives, a fault, or sweeps in another order of work."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from bprune_hpc import sweep
from bprune_hpc.errors import BpruneError, DataError
from bprune_hpc.metrics import tasks
from bprune_hpc.mpi import exchange
from bprune_hpc.mpi.comm import Comm, run
from bprune_hpc.runner import timing, work_split
from tests.helpers import fake_problem


def collectives(comm: Comm) -> int:
    """Check every collective; raises if one is wrong."""
    assert comm.from_root(lambda: ("from", comm.rank)) == ("from", 0)
    sent = {"a": np.arange(12.0).reshape(3, 4), "empty": np.zeros((0, 2), np.int8)}
    sent["scalar"], sent["many"] = np.array(7), np.arange(20_000_000, dtype=np.float32)
    got = comm.bcast_arrays(sent if comm.is_root else None)
    for name, array in sent.items():
        assert got[name].dtype == array.dtype and np.array_equal(got[name], array), name
    everyone = range(comm.size)
    sums(comm)
    ranks = comm.gather(comm.rank)
    assert ranks == (list(everyone) if comm.is_root else None)
    assert [comm.any_of(comm.rank == rank) for rank in everyone] == [True] * comm.size
    assert not comm.any_of(False)
    if comm.size > 1:
        exchanges(comm)
    if comm.is_root:
        print(f"all collectives hold on {comm.size} ranks")
    return 0


def exchanges(comm: Comm) -> None:
    """Check sums of shares, in memory of the host and by messages."""
    kinds, here = [], comm.from_root(lambda: tempfile.mkdtemp(dir=exchange.SHARED))
    for place in (here, "/where/nothing/is"):
        exchange.SHARED = place
        for size in (1, 3, 100_003):
            # Shares of different lengths; of a short array, some are empty.
            ends = [size * rank**2 // comm.size**2 for rank in range(comm.size + 1)]
            bounds = [ends, [size + end for end in ends]]
            at = exchange.slices_of(bounds, comm.rank)
            step = comm.exchange(bounds)
            kinds.append(type(step).__name__)
            numbers = np.arange(2 * size, dtype=np.float32)
            # Where rounding tells orders apart: the same bits each time, and on every rank.
            uneven = np.random.default_rng(comm.rank).normal(size=2 * size).astype(np.float32)
            found = []
            for summand in (numbers + comm.rank, uneven, uneven, uneven):
                step.summand[:] = summand
                for part, share in zip(at, step.add_up(), strict=True):
                    step.values[part] = share
                step.publish()
                found.append(step.values.copy())
            total, *others = found
            assert np.array_equal(total, comm.size * numbers + sum(range(comm.size)))
            assert all(one.tobytes() == others[0].tobytes() for one in others)
            whole = np.full(2 * size, np.nan, np.float32)
            for part, ends_of in zip(at, bounds, strict=True):
                whole[part] = others[0][part]
                comm.gather_shares(whole, ends_of)
            assert whole.tobytes() == others[0].tobytes()
            assert comm.from_root(lambda: whole.tobytes()) == whole.tobytes()  # noqa: B023
    assert kinds == 3 * ["HostMemory"] + 3 * ["Messages"]
    comm.from_root(lambda: Path(here).rmdir())  # which is empty again


class Integers:
    """An array of integers that is added to; it notes by how many messages."""

    def __init__(self, array: np.ndarray, is_empty: bool = False) -> None:
        self.arrays = (array, array.reshape(-1, 1)[:, :0])
        self.is_empty = is_empty
        self.n_messages = 0

    def add(self, at: slice, arrays: Sequence[np.ndarray]) -> None:
        self.arrays[0][at] += arrays[0]
        self.n_messages += 1


def sums(comm: Comm) -> None:
    """Check sums of several arrays, of which each has members of its own."""
    everyone = range(comm.size)
    participants = dict(
        enumerate(
            [everyone, everyone[1:], everyone[::2], everyone[-1:], everyone[:1], everyone]
            + 2 * [everyone[1:]]
        )
    )
    sizes = [15, 7, 3, 0, 1, 10_000_000, 3, 2_000_000]
    empty = {6, 7}
    parts = {
        key: Integers(np.full(sizes[key], 2**61 // comm.size + comm.rank * (key + 1), np.int64))
        for key, members in participants.items()
        if comm.rank in members
    }
    if comm.is_root:
        for key in participants.keys() - parts.keys():
            parts[key] = Integers(np.full(sizes[key], 5, np.int64), key in empty)
    comm.add_to_root(parts, participants)
    if comm.is_root:
        for key, members in participants.items():
            expected = sum(2**61 // comm.size + rank * (key + 1) for rank in members)
            expected += 0 if 0 in members or (key in empty and members) else 5
            assert (parts[key].arrays[0] == expected).all(), key
        if comm.size > 1:
            assert parts[1].n_messages == 1, "the others' sum has to come as one"
            assert parts[7].n_messages == 0, "what is empty is filled"


def fault(comm: Comm, rank: int, kind: str) -> int:
    """Raise on one rank while the others wait for it."""
    comm.from_root(lambda: None)
    if comm.rank == rank:
        kinds = {"bug": ZeroDivisionError, "known": BpruneError, "memory": MemoryError}
        raise {**kinds, "disk": OSError}[kind](f"planted on {rank}")
    comm.from_root(lambda: None)
    time.sleep(3600)  # until the job is ended
    return 0


def bad_input(comm: Comm) -> int:
    """Find bad input on rank 0."""

    def read() -> None:
        raise DataError("data.npz: broken; mend it")

    comm.from_root(read)
    return 0


def sweep_fault(comm: Comm, rank: int, arguments: list[str]) -> int:
    """Run a sweep in which one rank fails at its second batch."""
    whole = tasks.Classification.add_up
    calls = []

    def failing(*given: object) -> object:
        calls.append(given)
        if comm.rank == rank and len(calls) == 2:
            raise ZeroDivisionError(f"planted on {rank}")
        return whole(*given)

    tasks.Classification.add_up = failing
    return sweep.sweep(comm, arguments)


def shuffled_sweeps(comm: Comm, arguments: list[str]) -> int:
    """Run sweeps, one for each run of arguments between dashes; ranks shuffle their cells."""
    in_order = work_split.Partition.__iter__
    generator = np.random.default_rng(comm.rank)

    def shuffled(partition: work_split.Partition) -> Iterator[tuple[int, range]]:
        cells = list(in_order(partition))
        return iter([cells[index] for index in generator.permutation(len(cells))])

    work_split.Partition.__iter__ = shuffled
    runs = [list(run) for is_dash, run in groupby(arguments, "-".__eq__) if not is_dash]
    return max([sweep.sweep(comm, one) for one in runs])


def stopped_sweeps(comm: Comm, arguments: list[str]) -> int:
    """Run sweeps to their end, one for each run of arguments between dashes, by chance.

    How much is done at a time, when results are written, and after how much a sweep is stopped and
    begun again, are drawn by lot: the same on every rank where all have to know it.
    """
    common, of_root = random.Random(5), random.Random(7)
    fake_problem.install(round_s=1e9)
    timing.Timing.n_items = lambda _: of_root.choice([None, 150, 500])
    timing.Timing.is_due = property(lambda one: one.unsaved_s > 0 and of_root.random() < 0.2)
    runs = [list(run) for is_dash, run in groupby(arguments, "-".__eq__) if not is_dash]
    n_stops = 0
    for one in runs:
        status = None
        while status != 0:
            left = [common.randint(1, 6)]

            def after_some(_: timing.Timing, left: list[int] = left) -> str | None:
                left[0] -= 1
                return None if left[0] >= 0 else "test"

            status = sweep.sweep(comm, one, after_some)
            n_stops += status == sweep.STOPPED
            assert status in (0, sweep.STOPPED)
    assert n_stops > len(runs)
    return 0


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "collectives":
        sys.exit(run(collectives))
    if command == "fault":
        sys.exit(run(lambda comm: fault(comm, int(arguments[0]), arguments[1])))
    if command == "sweep_fault":
        sys.exit(run(lambda comm: sweep_fault(comm, int(arguments[0]), arguments[1:])))
    if command == "stopped":
        sys.exit(run(lambda comm: stopped_sweeps(comm, arguments)))
    if command == "shuffled":
        sys.exit(run(lambda comm: shuffled_sweeps(comm, arguments)))
    sys.exit(run(bad_input))
