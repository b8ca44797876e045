"""Waits with an end, and signals that are seen while MPI blocks."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest

from bprune_hpc.errors import LaunchError
from bprune_hpc.mpi import rendezvous, watchdog
from tests.helpers.launch import LIMIT_S, ROOT, MpiRun, find_mpirun, run_group

PROGRAM = ROOT / "tests/programs/waits_program.py"
LIMIT_MIN = "0.1"


class Clock:
    """Time that passes when somebody sleeps; one long gap, as when a job is suspended."""

    def __init__(self, gap_at: float = math.inf, gap_s: float = 0.0) -> None:
        self.now, self.slept, self.gap_at, self.gap_s = 0.0, 0.0, gap_at, gap_s

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds
        if self.slept >= self.gap_at:
            self.now, self.gap_at = self.now + self.gap_s, math.inf


class Message:
    def __init__(self, clock: Clock, comes_at: float) -> None:
        self.clock, self.comes_at = clock, comes_at

    def Test(self) -> bool:
        return self.clock.slept >= self.comes_at


def missing(clock: Clock, limit_s: float, **comes_at: float) -> list[int]:
    pending = {int(name[1:]): Message(clock, at) for name, at in comes_at.items()}
    return rendezvous.still_missing(pending, limit_s, lambda: clock.now, clock.sleep)


def test_those_that_have_not_come_are_named_when_the_limit_is_over() -> None:
    clock = Clock()
    assert missing(clock, 60.0, r1=5.0, r4=math.inf, r2=70.0) == [2, 4]
    assert 60.0 <= clock.slept < 60.1


def test_no_longer_than_the_last_to_come() -> None:
    clock = Clock()
    assert missing(clock, math.inf, r1=5.0, r2=3.0) == []
    assert 5.0 <= clock.slept < 5.1
    assert missing(clock, 60.0) == []


def test_a_suspended_job_does_not_wait_meanwhile() -> None:
    clock = Clock(gap_at=5.0, gap_s=7200.0)
    assert missing(clock, 60.0, r1=50.0) == []


@pytest.mark.parametrize(
    ("text", "expected"), [("", 1800.0), ("0", math.inf), ("2.5", 150.0), (" 1 ", 60.0)]
)
def test_the_limit_is_read(text: str, expected: float) -> None:
    assert rendezvous.limit_s({rendezvous.LIMIT_VARIABLE: text}) == expected
    assert rendezvous.limit_s({}) == 1800.0


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_limit_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(LaunchError, match=f"{rendezvous.LIMIT_VARIABLE}: '{text}' is not a time"):
        rendezvous.limit_s({rendezvous.LIMIT_VARIABLE: text})


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("mishap", "status", "message"),
    [
        ("late 2", 1, r"^error: not heard of for 0.1 min: rank 2 on \S+ \(process \d+\); rank 0"),
        ("late 0", 1, r"^error: not heard of for 0.1 min: rank 0 on \S+ \(process \d+\); rank 1"),
        ("stuck 1", 1, r"^error: not heard of for 0.1 min: rank 1 on .*a vote of all ranks"),
        ("stuck 0", 1, r"^error: not heard of for 0.1 min: rank 0 on .*a vote of all ranks"),
        (
            "unsummed 1",
            1,
            r"^error: rank 0 on \S+ \(process \d+\) waited 0.1 min at: gradients of all",
        ),
        (
            "absent 1",
            137,
            r"^error: rank 0 on .* has waited 0.1 min in MPI_Init for rank 1 on \S+ "
            r"\(process \d+\); look for",
        ),
        ("absent 0", 137, r"^error: rank 1 on .* in MPI_Init for rank 0 on \S+ \(process \d+\); "),
        ("killed 1", 137, r"rank 1 .*\n*.*signal 9|RANK 1 .*KILLED BY SIGNAL: 9"),
    ],
)
def test_a_rank_that_does_not_come_ends_the_job_and_is_named(
    mishap: str, status: int, message: str
) -> None:
    launcher = find_mpirun()
    assert launcher
    done = run_group(
        [launcher, "-n", "3", sys.executable, str(PROGRAM), *mishap.split()],
        timeout=LIMIT_S, BPRUNE_WAIT_LIMIT_MIN=LIMIT_MIN,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert re.search(message, done.stderr, re.MULTILINE), done.stderr


def test_who_does_not_wait_is_told_from_other_launches_and_other_waits() -> None:
    def one(parent: int, rank: str, what: str = "", launch: str = "a") -> watchdog.Process:
        script = ["python", "-I", "-S", "/x/watchdog.py", "60", "7", "PMI_RANK", what, "message"]
        environ = {"PMI_RANK": rank, "PALS_APID": launch}
        return watchdog.Process(parent, script if what else ["python"], environ)

    found = {
        1: watchdog.Process(0, ["init"], {}), 5: watchdog.Process(1, ["launcher"], {}),
        10: one(5, "0"), 11: one(10, "0", "MPI_Init"),
        12: one(5, "1"), 13: one(12, "1"),  # started by a script
        15: one(5, "3"), 16: one(15, "3", "MPI_Finalize"),
        20: one(5, "x"), 21: one(5, "4", launch="b"), 22: one(6, "5"),
    }  # fmt: skip
    assert watchdog.missing(found, 10, "PMI_RANK", "MPI_Init") == ({1: 12, 3: 15}, 1)
    assert watchdog.missing(found, 13, "PMI_RANK", "MPI_Finalize") == ({0: 10, 1: 12}, 1)
    assert watchdog.missing(found, 21, "PMI_RANK", "MPI_Init") == ({4: 21}, 0)
    assert watchdog.missing(found, 99, "PMI_RANK", "MPI_Init") == ({}, 0)
    assert watchdog.who({3: 15, 1: 12}, 1, "n1") == (
        "rank 1 on n1 (process 12), rank 3 on n1 (process 15)"
    )
    assert watchdog.who(dict.fromkeys(range(8), 9), 1, "n1").endswith(
        "rank 4 on n1 (process 9) and 3 more"
    )
    assert watchdog.who({}, 4, "n1") == "ranks that have not come (all 4 of n1 are there)"


def test_a_rank_that_pauses_is_waited_for(mpirun: MpiRun) -> None:
    done = mpirun(3, [PROGRAM, "paused", "1"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sum [3 3 3]\n"


def test_a_signal_is_seen_while_mpi_blocks_and_all_ranks_agree(
    mpirun: MpiRun, tmp_path: Path
) -> None:
    done = mpirun(3, [PROGRAM, "signalled", "1", tmp_path / "seen"])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "SIGUSR1 seen before MPI came back", "votes [True, True, True]",
    ]  # fmt: skip
