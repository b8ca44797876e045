"""Real ranks: collectives, and jobs that end when one rank fails."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bprune_hpc import sweep
from bprune_hpc.mpi.comm import SerialComm
from tests.helpers import fake_problem
from tests.helpers.bits import all_bits
from tests.helpers.launch import LIMIT_S, ROOT, MpiRun, find_mpirun, run_group
from tests.helpers.sweeps import KINDS

PROGRAM = str(ROOT / "tests/programs/mpi_program.py")


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_collectives(mpirun: MpiRun, n_ranks: int) -> None:
    done = mpirun(n_ranks, [PROGRAM, "collectives"])
    assert done.returncode == 0, done.stderr
    assert f"all collectives hold on {n_ranks} ranks" in done.stdout


@pytest.mark.parametrize(("n_ranks", "rank"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["bug", "known"])
def test_an_exception_on_any_rank_ends_the_job(
    mpirun: MpiRun, n_ranks: int, rank: int, kind: str
) -> None:
    done = mpirun(n_ranks, [PROGRAM, "fault", str(rank), kind])
    assert done.returncode != 0
    message = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(message) == 1 and f"planted on {rank}" in message[0], done.stderr
    if n_ranks > 1:
        assert f"rank {rank} on " in message[0]
    assert done.stderr.count("Traceback") == (1 if kind == "bug" else 0)


@pytest.mark.parametrize(("n_ranks", "rank"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_the_machine_lacks_is_one_line(
    mpirun: MpiRun, n_ranks: int, rank: int, kind: str
) -> None:
    done = mpirun(n_ranks, [PROGRAM, "fault", str(rank), kind], timeout=LIMIT_S)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert ("out of memory" in message) == (kind == "memory") and f"planted on {rank}" in message
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_fault_in_a_sweep_ends_it_and_leaves_the_old_results(
    mpirun: MpiRun, tmp_path: Path, rank: int
) -> None:
    output = tmp_path / "sweep.h5"
    output.write_bytes(b"what was there before")
    arguments = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=20", f"--output={output}"]
    arguments += ["--overwrite"]
    done = mpirun(3, [PROGRAM, "sweep_fault", str(rank), *arguments])
    assert done.returncode != 0
    message = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(message) == 1 and f"planted on {rank}" in message[0], done.stderr
    assert output.read_bytes() == b"what was there before"
    # Killed by another rank's fault, rank 0 leaves its lock, which the next job takes over.
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= ({"sweep.h5"} if rank == 0 else {"sweep.h5", "sweep.h5.lock"})


def test_bad_input_is_said_once_and_ends_every_rank_with_status_2(mpirun: MpiRun) -> None:
    done = mpirun(3, [PROGRAM, "bad_input"])
    assert done.returncode == 2
    assert done.stderr.count("data.npz: broken; mend it") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("n_ranks", [2, 3, 7])
def test_stops_anywhere_on_any_number_of_ranks_do_not_change_a_bit(
    mpirun: MpiRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_ranks: int
) -> None:
    flags = ["--thresholds=0,0.5,1", "--num_monte_carlo=84", "--batch_size=10"]
    arguments: list[str] = []
    for number, kind in enumerate(KINDS.values()):
        output = f"--output={tmp_path / f'{number}.h5'}"
        if "--state_limit_gb" not in " ".join(kind):  # then the others catch up
            arguments += ["-", *kind, *flags, "--thresholds=0.5", output]
        arguments += ["-", *kind, *flags, output]
    done = mpirun(n_ranks, [PROGRAM, "stopped", *arguments[1:]])
    assert done.returncode == 0, done.stderr
    fake_problem.install(monkeypatch.setattr)
    for number, kind in enumerate(KINDS.values()):
        alone = tmp_path / f"alone{number}.h5"
        assert sweep.sweep(SerialComm(), [*kind, *flags, f"--output={alone}"]) == 0
        assert all_bits(tmp_path / f"{number}.h5") == all_bits(alone), kind


@pytest.mark.mpi
def test_processes_that_mpi_does_not_join_are_refused() -> None:
    # What a process sees that another MPI's launcher has started as one of four.
    said = {}
    for rank in "02":
        done = run_group([sys.executable, PROGRAM, "collectives"], 30, PMI_SIZE="4", PMI_RANK=rank)
        assert done.returncode == 2
        said[rank] = done.stderr.splitlines()
    assert len(said["0"]) == 1 and "PMI launcher started this as process 0 of 4" in said["0"][0]
    assert said["2"] == []  # the first process speaks for all


@pytest.mark.mpi
def test_ranks_with_other_code_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bprune_hpc", tmp_path / "bprune_hpc")
    with (tmp_path / "bprune_hpc/report.py").open("a") as file:
        file.write("# one line more\n")
    output = tmp_path / "x.h5"
    program = [
        sys.executable, "-m", "bprune_hpc.sweep", "--model_dir=embedded:digits_fc",
        "--thresholds=0,1", "--num_monte_carlo=4", f"--output={output}",
    ]  # fmt: skip
    here, there = (["-n", "1", "--wdir", str(place), *program] for place in (ROOT, tmp_path))
    done = run_group([str(find_mpirun()), *here, ":", *there], PYTHONPATH="")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(said) == 1 and "error: rank 1 on " in said[0]
    assert f"({tmp_path / 'bprune_hpc'}) runs other code of bprune_hpc than rank 0" in said[0]
    assert not output.exists()
