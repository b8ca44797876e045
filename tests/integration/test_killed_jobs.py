"""Jobs that are killed at a chosen moment: the file is absent or whole, and the rest is done once.

``make chaos`` kills at a hundred random ones.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bprune_hpc import results
from tests.helpers import job_log
from tests.helpers.bits import all_bits
from tests.helpers.launch import ROOT, MpiRun, run_group

JOB = str(ROOT / "tests/robustness/chaos_job.py")
FLAGS = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=20", "--batch_size=20"]


def alone(output: Path, *flags: str, **wishes: object) -> subprocess.CompletedProcess[str]:
    """Run a job in one process."""
    arguments = [json.dumps({"round_s": 0.0, **wishes}), *FLAGS, f"--output={output}", *flags]
    return run_group([sys.executable, JOB, *arguments], 60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    """Bits of a sweep that was never killed."""
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    done = alone(path, round_s=60.0)
    assert done.returncode == 0, done.stderr
    return all_bits(path)


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("lock", 1), ("draw", 40), ("image", 3), ("write", 1), ("write", 4), ("backup rename", 2),
        ("rename", 1), ("rename", 6), ("after rename", 3), ("table", 1),
    ],
)  # fmt: skip
def test_a_kill_leaves_no_file_or_a_whole_one(
    tmp_path: Path, whole: dict[str, tuple[object, ...]], point: str, number: int
) -> None:
    path, log = tmp_path / "s.h5", tmp_path / "log"
    killed = alone(path, strike=[point, number, 0], log=str(log))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name in ("s.h5", "s.h5.bak"):
        if (tmp_path / name).exists():
            results.read(tmp_path / name)
    lines = job_log.read(log)
    assert job_log.mishaps(lines, 0, job_log.position(path)) == []
    assert job_log.rounds_lost(lines, job_log.position(path), 1e-9) <= 1
    is_locked = (tmp_path / "s.h5.lock").exists()
    assert is_locked == (point != "lock")
    done = alone(path, round_s=60.0)
    assert done.returncode == 0, done.stderr
    assert ("taken over from" in done.stderr) == is_locked
    assert all_bits(path) == whole
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left <= {"s.h5", "s.h5.bak", "log"}


@pytest.mark.parametrize(
    ("lines", "there", "lost"),
    [
        ([], 0, 0),
        ([["begun", 0]], 0, 1),
        ([["begun", 0], ["done", 4, 0.5]], 0, 1),
        ([["begun", 0], ["done", 4, 0.5], ["written", 4]], 4, 0),
        ([["begun", 0], ["done", 4, 0.5], ["begun", 4], ["done", 9, 0.5]], 0, 1),
        ([["begun", 0], ["done", 4, 1.0], ["begun", 4]], 0, 2),  # the file was due, not written
        ([["begun", 0], ["done", 4, 1.0], ["begun", 4]], 4, 1),
        ([["begun", 0], ["done", 4, 0.5], ["begun", 4], ["done", 9, 3.0], ["begun", 9]], 0, 2),
    ],
)  # fmt: skip
def test_a_write_left_out_is_a_second_round_lost(
    lines: list[list[object]], there: int, lost: int
) -> None:
    assert job_log.rounds_lost(lines, there, round_s=1.0) == lost
    assert job_log.mishaps(lines, 0, there) == []


def test_work_done_twice_and_old_files_are_mishaps() -> None:
    lines = [["begun", 0], ["done", 4, 1.0], ["begun", 2], ["written", 4], ["written", 3]]
    assert job_log.mishaps(lines, 0, 2) == [
        "unit 2 was begun when those before 4 were done", "3 units were written, 2 are there",
        "an older state was written: [0, 4, 3]",
    ]  # fmt: skip
    assert job_log.mishaps([["begun", 0]], 7, 7) == [
        "unit 0 was begun when those before 7 were done"
    ]


@pytest.mark.parametrize(("strike", "n_ranks"), [(["draw", 20, 1], 3), (["rename", 4, 0], 2)])
def test_killed_ranks_and_a_resume_on_other_ranks(
    mpirun: MpiRun, tmp_path: Path, whole: dict[str, tuple[object, ...]], strike: list, n_ranks: int
) -> None:
    path = tmp_path / "s.h5"
    flags = [*FLAGS, f"--output={path}"]
    killed = mpirun(n_ranks, [JOB, json.dumps({"round_s": 0.0, "strike": strike}), *flags])
    assert killed.returncode != 0
    assert results.read(path).attrs["status"] == "partial"
    done = mpirun(5 - n_ranks, [JOB, json.dumps({"round_s": 60}), *flags])
    assert done.returncode == 0, done.stderr
    assert all_bits(path) == whole


def test_a_full_disk_ends_the_job_and_leaves_the_last_round(
    tmp_path: Path, whole: dict[str, tuple[object, ...]]
) -> None:
    path = tmp_path / "s.h5"
    assert alone(path, "--num_monte_carlo=8").returncode == 0
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 1000, limit[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        full = alone(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    (error,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert "s.h5: cannot be written (File too large); what is there is as it was" in error
    assert path.read_bytes() == before and set(tmp_path.iterdir()) <= {path, tmp_path / "s.h5.bak"}
    assert alone(path).returncode == 0 and all_bits(path) == whole


def test_a_directory_that_goes_away_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "there" / "s.h5"
    gone = alone(path, remove=["image", 2, str(path.parent)])
    assert gone.returncode == 1 and "Traceback" not in gone.stderr
    (error,) = [line for line in gone.stderr.splitlines() if line.startswith("error: ")]
    assert "s.h5: cannot be written (No such file or directory)" in error
    assert not path.parent.exists()
