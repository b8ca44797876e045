"""A sweep of the fake network that can be told what is to happen to it; for the tests and chaos.py.

mpirun -n 2 python tests/robustness/chaos_job.py \
        '{"round_s": 0.2, "strike": ["rename", 2, 0]}' FLAGS...
"""

from __future__ import annotations

from bprune_hpc.job import startup

if __name__ == "__main__":
    startup.begin(saves=True)  # as the sweep's own command does, before others make threads

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bprune_hpc import sweep
from bprune_hpc.files import atomic_write
from bprune_hpc.files.lock_owner import started_at
from bprune_hpc.mpi.launchers import launcher
from bprune_hpc.results import file as results_file
from bprune_hpc.results import output
from bprune_hpc.runner import coordinator as coordinators
from bprune_hpc.runner import timing, worker
from bprune_hpc.runner.scheduler import Superstep
from tests.helpers import fake_problem

POINTS: dict[str, tuple[object, str]] = {
    "lock": (output, "hold"),
    "read": (output.resume, "read"),
    "draw": (fake_problem.Network, "__call__"),
    "reduce": (worker, "reduce_groups"),
    "image": (results_file, "_image"),
    "write": (atomic_write.os, "fsync"),
    "backup": (atomic_write, "_back_up"),
    "backup rename": (atomic_write.os, "link"),
    "rename": (Path, "replace"),
    "after rename": (atomic_write, "_sync_directory"),
    "table": (output, "read_table"),
}
"""Where something can be told to happen: the functions that are called there."""


def at(point: str, number: int, what: Callable[[], None]) -> None:
    """Let something happen just before the so-many-th call of a function."""
    owner, name = POINTS[point]
    whole, calls = getattr(owner, name), []

    def then(*given: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            what()
        return whole(*given, **more)

    setattr(owner, name, then)


def strike(say: Callable[..., None], victim: str | None = None, how: str = "SIGKILL") -> None:
    """Send a signal to a process of this job.

    Parameters
    ----------
    victim : str, optional
        A file with the process number of a rank, or ``launcher``; without, this rank.
    """
    pid = os.getpid()
    if victim == "launcher":
        pid = os.getsid(0)  # who started this job has given it a session, which that one leads
    elif victim is not None:
        pid = int(Path(victim).read_text().split()[0])
    say("struck", time.time())
    os.kill(pid, signal.Signals[how])


def meet(place: Path, number: int) -> None:
    """Wait for other jobs before the lock is asked for; who gets it keeps it for a while."""

    def wait() -> None:
        place.mkdir(exist_ok=True)
        (place / str(os.getpid())).touch()
        while len(list(place.iterdir())) < number:
            time.sleep(0.001)

    at("lock", 1, wait)
    at("read", 1, lambda: time.sleep(1.0))


def tell(say: Callable[..., None]) -> None:
    """Say which replicates of draws are begun and done, how long they took, and what is written."""
    took = [0.0]
    whole = {
        "worked": timing.Timing.worked,
        "next": coordinators.Coordinator.next, "done": coordinators.Coordinator.worked,
        "write": output.Output.write,
    }  # fmt: skip

    def worked(self: timing.Timing, seconds: float, *more: float) -> None:
        took[0] = seconds
        whole["worked"](self, seconds, *more)

    def begin(self: coordinators.Coordinator, is_stopping: bool) -> Any:
        step = whole["next"](self, is_stopping)
        if isinstance(step, Superstep):
            say("begun", step.replicates.start)
        return step

    def done(self: coordinators.Coordinator, *given: Any) -> None:
        whole["done"](self, *given)
        say("done", self.sweep_states[0].n_replicates, took[0])

    def write(self: output.Output, coordinator: coordinators.Coordinator) -> None:
        whole["write"](self, coordinator)
        say("written", coordinator.sweep_states[0].n_replicates)

    timing.Timing.worked, coordinators.Coordinator.next = worked, begin  # type: ignore[method-assign]
    coordinators.Coordinator.worked, output.Output.write = done, write  # type: ignore[method-assign]


def main() -> int:
    """Set up what was asked for, and run the sweep."""
    wishes, flags = json.loads(sys.argv[1]), sys.argv[2:]
    rank = (launcher() or ("", 1, 0))[2]
    pids = Path(wishes.get("pids", os.devnull))

    def say(*line: object) -> None:
        if "log" in wishes:
            with open(wishes["log"], "a") as file:
                file.write(json.dumps(line) + "\n")

    if "pids" in wishes:
        Path(pids, str(rank)).write_text(f"{os.getpid()} {started_at(os.getpid())}")
    fake_problem.install(
        round_s=wishes.get("round_s", 0.2),
        write_share=wishes.get("write_share", float("inf")),
        delay_s=wishes.get("delay_s", 0.0),
    )
    tell(say)
    if "strike" in wishes:
        point, number, on_rank, *how = wishes["strike"]
        if rank == on_rank:
            at(point, number, lambda: strike(say, *how))
    if "meet" in wishes:
        place, number = wishes["meet"]
        meet(Path(place), number)
    if "remove" in wishes:
        point, number, directory = wishes["remove"]
        at(point, number, lambda: shutil.rmtree(directory))
    return sweep.main(flags)


if __name__ == "__main__":
    sys.exit(main())
