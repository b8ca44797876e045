"""Kills at random moments, each followed by a resume on some other number of ranks."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from bprune_hpc.errors import ResultsError
from tests.helpers import job_log
from tests.helpers.bits import all_bits
from tests.helpers.running_jobs import Bits, HangError, Job, Row, whole_bits

KINDS = {
    "kill -9 of a rank": "SIGKILL",
    "kill -9 of the launcher": "SIGKILL",
    "SIGTERM to the launcher": "SIGTERM",
    "SIGUSR1 to the launcher": "SIGUSR1",
    "end of the job's time": "",
}
MOMENTS: dict[str, list[tuple[str, int]]] = {
    "start-up": [],  # from outside, in the first 0.8 s
    "draws": [],  # from outside, later
    "reduce": [("reduce", 8)],
    "write": [("image", 8), ("write", 8), ("backup", 7)],
    "rename": [("backup rename", 7), ("rename", 14), ("after rename", 8)],
}
"""Functions on rank 0 at whose so-many-th call, at most, it happens."""

_ROUND_S = 0.2
_DELAY_S = 0.002


@dataclass
class Trial:
    """One job, and what is done to it."""

    kind: str
    moment: str
    chance: random.Random

    is_struck: bool = False
    is_graceful: bool = False
    """Whether all ranks can be asked to stop, so that nothing at all may be lost."""
    ended_s: float = 0.0

    def run(self, path: Path, log: Path) -> tuple[int, Job]:
        """Start it, strike it, wait for its end; its status."""
        n_ranks = self.chance.randint(2 if self.moment == "reduce" else 1, 4)
        wishes = {"round_s": _ROUND_S, "delay_s": _DELAY_S, "log": str(log)}
        after_s = self.chance.uniform(0.0, 0.8)
        if self.moment != "start-up":
            after_s = self.chance.uniform(0.8, 4.5)
        flags, points = [], MOMENTS[self.moment]
        if not KINDS[self.kind]:
            flags = [f"--time_limit_min={(after_s + 0.5) / 60}", "--stop_margin_s=0.5"]
        elif points:
            point, most = self.chance.choice(points)
            victim = f"rank {self.chance.randrange(n_ranks)}"
            if self.kind != "kill -9 of a rank":
                victim = "launcher"
            number = self.chance.randint(1, most)
            wishes["strike"] = [point, number, 0, victim, KINDS[self.kind]]
        job = Job(path, n_ranks, *flags, **wishes)
        is_asked = not KINDS[self.kind] or self.kind.startswith("SIGUSR1")
        self.is_graceful = is_asked or (self.kind.startswith("SIGTERM") and n_ranks == 1)
        began = time.time()
        if flags:
            began, self.is_struck = began + after_s, True
        elif not points:
            self._strike_from_outside(job, after_s)
            began = time.time()
        status = job.wait()
        struck = [line[1] for line in job_log.read(log) if line[0] == "struck"]
        self.is_struck |= bool(struck)
        self.ended_s = max(time.time() - max([began, *struck]), 0.0)
        return status, job

    def _strike_from_outside(self, job: Job, after_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.process.wait(after_s)
        self.is_struck = job.process.poll() is None
        if not self.is_struck:
            return
        self.is_graceful &= job.is_ready
        ranks = job.ranks()
        if self.kind == "kill -9 of a rank" and ranks:
            self.chance.choice(ranks).send(signal.SIGKILL)
        else:
            job.process.send_signal(signal.Signals[KINDS[self.kind]])


def kills(directory: Path, number: int) -> list[Row]:
    """Kill jobs at random moments, and go on on another number of ranks."""
    whole, chance = whole_bits(directory), random.Random(1)
    tried, wrong, moments = Counter[str](), Counter[str](), defaultdict[str, Counter[str]](Counter)
    rounds, replicates, slowest = Counter[str](), Counter[str](), Counter[str]()
    path, log = directory / "kills" / "s.h5", directory / "log"
    path.parent.mkdir()
    while tried.total() < number:
        at = tried.total()
        kind, moment = list(KINDS)[at % 5], list(MOMENTS)[at // 5 % 5]
        trial = Trial(kind, moment, chance)
        before = job_log.position(path)
        problems, is_complete, there = [], False, before
        try:
            status, job = trial.run(path, log)
            there, is_complete = job_log.position(path), _is_complete(path)
            problems = _problems(trial, status, job, log, before, there, is_complete)
        except (HangError, ResultsError) as error:
            problems, trial.is_struck = [str(error)], True
        if is_complete and all_bits(path) != whole:
            problems.append("bits differ")
        if trial.is_struck:
            lines = job_log.read(log)
            tried[kind] += 1
            moments[kind][moment] += 1
            rounds[kind] = max(rounds[kind], job_log.rounds_lost(lines, there, _ROUND_S))
            replicates[kind] = max(replicates[kind], job_log.units_lost(lines, there))
            slowest[kind] = max(slowest[kind], round(trial.ended_s, 1))  # type: ignore[type-var]
        if problems:
            tried[kind] += not trial.is_struck
            wrong[kind] += 1
            print(f"{kind}, {moment}: {'; '.join(problems)}", flush=True)
        log.unlink(missing_ok=True)
        if is_complete or problems:
            shutil.rmtree(path.parent)
            path.parent.mkdir()
    rows = []
    for kind in KINDS:
        when = ", ".join(f"{moment} {n}" for moment, n in moments[kind].items())
        notes = (
            f"{replicates[kind]} draw pairs at most; ended within {slowest[kind]:.1f} s; in {when}"
        )
        rows.append(Row(kind, tried[kind], wrong[kind], notes, rounds[kind]))
    return [*rows, _rest(path, whole)]


def _is_complete(path: Path) -> bool:
    from bprune_hpc import results

    if not path.exists():
        return False
    return str(results.read(path).attrs["status"]) == "complete"


def _problems(
    trial: Trial, status: int, job: Job, log: Path, before: int, there: int, is_complete: bool
) -> list[str]:
    """What is wrong with what a job has left."""
    lines = job_log.read(log)
    found = job_log.mishaps(lines, before, there)
    rounds = job_log.rounds_lost(lines, there, _ROUND_S)
    if rounds > 1:
        found.append(f"{rounds} rounds lost")
    if trial.is_struck and trial.is_graceful:
        if status not in (0, 3):
            found.append(f"was asked to stop, and ended with {status}: {job.errors()}")
        elif job_log.units_lost(lines, there):
            found.append(f"was asked to stop, and lost {job_log.units_lost(lines, there)} pairs")
    if not trial.is_struck and not is_complete:
        found.append(f"ended by itself with status {status}: {job.errors()}")
    return found


def _rest(path: Path, whole: Bits) -> Row:
    """Whether the last of the killed jobs is brought to its end."""
    status, problem = 0, ""
    if not _is_complete(path):
        job = Job(path, 2, round_s=_ROUND_S)
        status = job.wait()
        problem = str(job.errors()) if status else ""
    if not problem and all_bits(path) != whole:
        problem = "bits differ"
    return Row("the last one, to its end", 1, int(bool(problem)), problem or "same bits")
