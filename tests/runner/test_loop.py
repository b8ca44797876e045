from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bprune_hpc.job.deadline import Deadline
from bprune_hpc.job.signals import StopSignals
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner.loop import StopVote
from bprune_hpc.runner.timing import Timing
from tests.helpers.launch import LIMIT_S, ROOT, find_mpirun, launch_environment, run_group


class TwoRanks(SerialComm):
    """Rank 0 of two; the other has its own reason, or none."""

    size = 2

    def __init__(self, other: str | None) -> None:
        self.other = other

    def any_of(self, flag: bool) -> bool:
        return flag or self.other is not None

    def gather(self, value: object) -> list[object]:
        return [value, self.other]


def vote(
    left_s: float | None, other: str | None = None, seen: str | None = None,
    margin_s: float | None = None, slowest_round_s: float = 60.0,
) -> str | None:  # fmt: skip
    signals = StopSignals()
    signals.seen = seen
    deadline = None if left_s is None else Deadline(1000.0 + left_s, "squeue")
    timing = Timing(slowest_round_s=slowest_round_s, slowest_write_s=2.0)
    asked = StopVote(TwoRanks(other), deadline, margin_s, signals, lambda: 1000.0)
    return asked(timing)


def test_no_superstep_of_work_is_planned_beyond_the_end() -> None:
    timing = Timing()
    timing.worked(10.0, 10.0, 100.0)
    timing.wrote(1.0)
    assert timing.n_items() == pytest.approx(150.0)
    vote = StopVote(SerialComm(), Deadline(1043.0, "squeue"), None, StopSignals(), lambda: 1000.0)
    assert vote(timing) is None
    assert timing.n_items() == pytest.approx(120.0)  # 43 s left, 1 for the write, 30 to spare


def test_without_a_reason_work_goes_on() -> None:
    assert vote(None) is None
    assert vote(93.0) is None
    assert vote(11.0, margin_s=10.0) is None


def test_the_end_is_near_when_no_round_fits_before_it() -> None:
    assert vote(92.0) == "the job ends in 1.5 min (squeue), and 92 s are kept for that"
    assert (
        vote(9.0, margin_s=10.0) == "the job ends in 0.1 min (squeue), and 10 s are kept for that"
    )


def test_the_first_write_is_kept_time_for_before_it_is_measured() -> None:
    for left_s, stops in ((49.0, True), (51.0, False)):
        end = Deadline(1000.0 + left_s, "squeue")
        asked = StopVote(SerialComm(), end, None, StopSignals(), lambda: 1000.0)
        assert (asked(Timing(foretold_s=20.0)) is not None) == stops


def test_a_job_that_is_too_short_from_the_start_is_said_to_be() -> None:
    said = vote(20.0, slowest_round_s=0.0)
    assert said is not None and said.endswith("; too short a job for one round")
    assert vote(33.0, slowest_round_s=0.0) is None


@pytest.mark.parametrize("left_s", [None, 5000.0])
def test_a_signal_on_any_rank_stops_all(left_s: float | None) -> None:
    assert vote(left_s, other="SIGTERM on rank 1") == "SIGTERM on rank 1"
    assert vote(left_s, seen="SIGUSR1") == "SIGUSR1 on rank 0"


@pytest.mark.slow
@pytest.mark.mpi
def test_a_signal_to_the_launcher_stops_a_sweep(tmp_path: Path) -> None:
    launcher = find_mpirun()
    assert launcher
    command = [
        launcher, "-n", "2", sys.executable, "-m", "bprune_hpc.sweep", "--dataset=digits",
        "--model_dir=embedded:digits_fc", "--thresholds=0,1", "--num_monte_carlo=80000",
        f"--output={tmp_path / 'sweep.h5'}",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env=launch_environment(), stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    ) as sweep:  # fmt: skip
        try:
            assert sweep.stderr
            for line in sweep.stderr:
                if "6464 weights" in line:
                    break
            sweep.send_signal(signal.SIGUSR1)
            said = sweep.communicate(timeout=LIMIT_S)[1]
        finally:
            sweep.kill()
    assert sweep.returncode == 3, said
    assert "SIGUSR1" in said


def test_an_end_that_is_over_is_refused_at_once() -> None:
    command = [sys.executable, "-m", "bprune_hpc.sweep", "--model_dir=embedded:digits_fc"]
    done = run_group(command, BPRUNE_END_TIME="1500000000")
    assert done.returncode == 2
    assert done.stderr.startswith("error: BPRUNE_END_TIME: 1500000000 was ")
