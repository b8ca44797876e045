"""Jobs of the fake network in a session of their own, for trials that kill, stop and fight them.

What belongs here: starting a job, finding its processes, and waiting for all of them. Only its own
processes are ever ended. What is done to a job belongs to the trials.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bprune_hpc.files.lock_owner import started_at
from tests.helpers.bits import all_bits
from tests.helpers.launch import ROOT, find_mpirun, launch_environment

JOB = str(ROOT / "tests/robustness/chaos_job.py")
FLAGS = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=240", "--batch_size=15"]
WAIT_LIMIT_MIN = "1"
END_S = 1800.0
"""A job that was struck has to have ended by then, as a rank waits 1.5 min for one that is gone; a
job whose processes stay longer hangs, however busy the machine is."""

Bits = dict[str, tuple[object, ...]]


@dataclass(frozen=True)
class Row:
    """What was tried, how many times, and what came of it."""

    kind: str
    tried: int
    wrong: int
    notes: str
    most_lost: int | None = None
    """Rounds, of any trial."""


class HangError(Exception):
    """A job has not ended in time."""


@dataclass(frozen=True)
class Process:
    """A process, told from later ones of the same number by when it began."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or is stopped."""
        return started_at(self.pid) == self.started

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.is_alive:
            os.kill(self.pid, number)


class Job:
    """A sweep on some ranks.

    Parameters
    ----------
    before : callable, optional
        Called in the child before it becomes the launcher.
    **wishes
        Of ``chaos_job.py``.
    """

    def __init__(
        self,
        output: Path,
        n_ranks: int,
        *flags: str,
        before: Callable[[], None] | None = None,
        **wishes: Any,
    ) -> None:
        self.own = tempfile.TemporaryDirectory(prefix="job", ignore_cleanup_errors=True)
        self.pids = Path(self.own.name, "pids")
        self.pids.mkdir()
        wishes |= {"pids": str(self.pids)}
        if "strike" in wishes:
            wishes["strike"] = [self._victim(part) for part in wishes["strike"]]
        command = [sys.executable, JOB, json.dumps(wishes), *FLAGS, f"--output={output}", *flags]
        if n_ranks > 1:
            command = [str(find_mpirun()), "-n", str(n_ranks), *command]
        self.n_ranks = n_ranks
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # Open MPI does not start where a launcher of the same process number was killed, as its
        # directory is still there.
        environment = {"BPRUNE_WAIT_LIMIT_MIN": WAIT_LIMIT_MIN, "TMPDIR": self.own.name}
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self.said, start_new_session=True,
            env=launch_environment() | environment, preexec_fn=before,
        )  # fmt: skip

    def _victim(self, part: object) -> object:
        """``rank 2`` as the file with the number of its process."""
        is_rank = isinstance(part, str) and part.startswith("rank ")
        return str(self.pids / str(part).removeprefix("rank ")) if is_rank else part

    def ranks(self) -> list[Process]:
        """The ranks that have begun, in order."""
        texts = [path.read_text().split() for path in sorted(self.pids.iterdir())]
        return [Process(int(text[0]), int(text[1])) for text in texts if len(text) == 2]

    @property
    def is_ready(self) -> bool:
        """Whether all ranks have come so far that they catch signals."""
        return len(self.ranks()) == self.n_ranks

    def wait(self) -> int:
        """Wait for the launcher and for every rank; the launcher's status.

        Raises
        ------
        HangError
            If they stay too long; they are killed then.
        """
        end = time.monotonic() + END_S
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.process.wait()
            self._kill_ranks()
            raise HangError(f"no end within {END_S:.0f} s: {self.errors()}") from error
        while any(rank.is_alive for rank in self.ranks()):
            if time.monotonic() > end:
                self._kill_ranks()
                raise HangError(f"ranks outlive their launcher by {END_S:.0f} s: {self.errors()}")
            time.sleep(0.02)
        return status

    def _kill_ranks(self) -> None:
        for rank in self.ranks():
            rank.send(signal.SIGKILL)

    def output(self) -> str:
        """What is on standard error so far."""
        return os.pread(self.said.fileno(), 10**8, 0).decode(errors="replace")

    def errors(self) -> list[str]:
        """Lines of standard error that are one; without any, the last lines."""
        lines = [line.strip() for line in self.output().splitlines()]
        return [line for line in lines if "error: " in line] or lines[-8:]


def whole_bits(directory: Path, *flags: str) -> Bits:
    """Bits of a sweep that nothing has happened to."""
    path = directory / "whole" / "s.h5"
    path.parent.mkdir(exist_ok=True)
    assert Job(path, 1, *flags, round_s=1e9).wait() == 0
    return all_bits(path)
