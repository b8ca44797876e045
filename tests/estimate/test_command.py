"""``--plan`` as users run it: what it says against the sweep itself, and what it leaves alone.

Times are not compared: tests run on busy machines. How far off they were is said in the docs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bprune_hpc.estimate.command import of_the_sweep
from tests.helpers.launch import MpiRun, run_group

CASE = ["--model_dir=embedded:digits_fc", "--dataset=digits", "--thresholds=0,0.5,1,3",
        "--num_monte_carlo=60"]  # fmt: skip


# The results file says a peak too, but that of before it was written for the last time.
PEAK = """
import sys
from bprune_hpc import sweep
from bprune_hpc.job import memory
status = sweep.main(sys.argv[1:])
sys.stderr.write(f"peak {memory.peak_mib()}\\n")
sys.exit(status)
"""


def run_sweep(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    return run_group([sys.executable, "-c", PEAK, *CASE, *map(str, flags)])


def sweep(*flags: str | Path, status: int = 0) -> str:
    done = run_sweep(*flags)
    assert done.returncode == status, done.stderr
    return done.stderr if status else " ".join(done.stdout.split())


def number(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    assert found, said
    return float(found[1].replace(",", ""))


def state_of(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a directory, with times and contents, and the directories' times."""
    found = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.stat()
        content = b"" if path.is_dir() else path.read_bytes()
        found[str(path)] = (status.st_ino, status.st_mtime_ns, content)
    return found


def peaks(said: str) -> list[float]:
    """Of each rank, MiB, the largest first."""
    return sorted((float(one) for one in re.findall(r"^peak (\S+)$", said, re.M)), reverse=True)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A results file, and the peak memory of its sweep, MiB."""
    path = tmp_path_factory.mktemp("swept") / "sweep.h5"
    done = run_sweep(f"--output={path}")
    assert done.returncode == 0, done.stderr
    return path, *peaks(done.stderr)


@pytest.mark.slow
def test_what_is_said_is_what_comes(tmp_path: Path, swept: tuple[Path, float]) -> None:
    path, peak = swept
    output = tmp_path / "below" / "sweep.h5"
    said = sweep("--plan", f"--output={output}")
    assert state_of(tmp_path) == {str(tmp_path): state_of(tmp_path)[str(tmp_path)]}
    assert "6,570 weights, 6,464 of them with a posterior" in said
    assert "4 thresholds x 60 draws x 359 examples = 86,160 evaluations" in said
    # 64 x 64 + 64 x 32 + 32 x 10 multiplications, each with an addition.
    assert number(r"operations ([\d,]+) an evaluation", said) == 2 * 6464
    assert "evaluator chain" in said
    assert number(r"memory ([\d,]+) MiB", said) == pytest.approx(peak, rel=0.15)
    size = path.stat().st_size / 1e6
    assert number(r"sweep\.h5: ([\d.]+) MB", said) == pytest.approx(size, rel=0.1)


@pytest.mark.slow
def test_an_output_is_read_and_not_touched(tmp_path: Path, swept: tuple[Path, float]) -> None:
    output = tmp_path / "sweep.h5"
    shutil.copy(swept[0], output)
    (tmp_path / "sweep.h5.lock").write_text("another job's")
    before = state_of(tmp_path)
    said = sweep("--plan", f"--output={output}")
    assert "complete, with 60 draws at 4 thresholds: nothing is left to be done" in said
    assert "0 s to draw" in said and "0 writes" in said
    said = sweep("--plan", f"--output={output}", "--num_monte_carlo=100")
    assert "with 60 draws at 4 thresholds: times are of what is left" in said
    anew = sweep("--plan", f"--output={output}", "--seed=7", "--overwrite")
    assert "begun anew" in anew
    refused = sweep("--plan", f"--output={output}", "--seed=7", status=2)
    assert "was made with seed 0, now 7" in refused
    assert state_of(tmp_path) == before


@pytest.mark.slow
def test_a_directory_that_may_not_be_written_is_enough(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        said = sweep(
            "--plan", f"--output={tmp_path}/sweep.h5", "--ranks=1000", "--num_monte_carlo=7"
        )
    finally:
        tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []
    assert "x 8 draws x" in said  # one more than was asked for: draws come in pairs
    n_cores = len(os.sched_getaffinity(0))  # of one node: a sweep of seconds asks for no more
    assert "on 1000 ranks" in said and "on one node, not 1000" in said
    assert f"mpirun -n {n_cores} " in said and "sbatch --nodes=1 " in said
    assert "1000 ranks are taken to have a core like those here" in said


@pytest.mark.slow
def test_examples_in_blocks_and_of_another_kind(tmp_path: Path) -> None:
    blocks = ["--state_limit_gb=0.001", "--batch_size=100"]
    said = sweep("--plan", f"--output={tmp_path}/a.h5", *blocks)
    with_ood = sweep("--plan", f"--output={tmp_path}/b.h5", "--ood_dataset=digits")
    assert "x 359 examples" in said and "x 718 examples" in with_ood
    sweep(f"--output={tmp_path}/a.h5", *blocks)
    size = (tmp_path / "a.h5").stat().st_size / 1e6
    assert number(r"a\.h5: ([\d.]+) MB", said) == pytest.approx(size, rel=0.1)


@pytest.mark.slow
def test_ranks_rehearse_together(mpirun: MpiRun, tmp_path: Path) -> None:
    flags = ["-c", PEAK, *CASE, f"--output={tmp_path}/sweep.h5"]
    planned = mpirun(2, [*flags, "--plan"])
    assert planned.returncode == 0, planned.stderr
    assert os.listdir(tmp_path) == []
    said = " ".join(planned.stdout.split())
    assert "as measured with 2 ranks here at the same time" in said and "mpirun -n 2 " in said
    done = mpirun(2, flags)
    assert done.returncode == 0, done.stderr
    root, other = peaks(done.stderr)
    assert number(r"([\d,]+) MiB on rank 0", said) == pytest.approx(root, rel=0.15)
    assert number(r"([\d,]+) MiB on each other", said) == pytest.approx(other, rel=0.15)


def test_ranks_are_planned_for_and_not_asked_for() -> None:
    assert "--ranks: needs --plan" in sweep("--ranks=4", status=2)
    assert "--ranks: 0 is not in" in sweep("--plan", "--ranks=0", status=2)


def test_arguments_of_the_sweep_itself() -> None:
    argv = ["--plan", "@file", "--ranks", "64", "--seed", "3", "--ranks=2"]
    assert of_the_sweep(argv) == ["@file", "--seed", "3"]
