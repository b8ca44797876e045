"""Job scripts submitted to a real Slurm, which the tests bring up on this machine and end again.

Two virtual nodes; ranks by ``srun`` need an Open MPI that Slurm's PMIx fits, the distribution's.
Where it says so, what runs on the ranks stands in for a sweep (``tests/stand_in``).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import results
from tests.helpers.launch import LIMIT_S, ROOT, launch_environment

pytestmark = pytest.mark.slurm

STAND_IN = ROOT / "tests" / "stand_in"
SITE_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
SMALL = (
    "--model_dir=embedded:digits_fc", "--dataset=digits", "--thresholds=0,1",
    "--num_monte_carlo=20",
)  # fmt: skip


def free_port(n_ports: int) -> int:
    """First of so many ports in a row that nobody listens on."""
    for _ in range(100):
        first = random.randrange(20000, 30000)
        try:
            for port in range(first, first + n_ports):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports")


class Cluster:
    """A Slurm below a directory: what a user does with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        script = f". {root}/env.sh && env -0"
        told = subprocess.run(
            ["env", "-i", "bash", "-c", script], capture_output=True, text=True, check=True
        )
        slurm = dict(line.split("=", 1) for line in told.stdout.split("\0") if line)
        for name in ("PWD", "SHLVL", "_"):
            slurm.pop(name, None)
        # That of a login shell: no virtual environment, and nothing of the tests' own launcher.
        mpi = {
            name: value
            for name, value in launch_environment().items()
            if name.startswith(("OMPI_", "PRTE_")) and "mapping_policy" not in name
        }
        self.environment = {
            **mpi, **slurm, "PATH": SITE_PATH, "HOME": os.environ.get("HOME", "/"),
            "VENV": str(Path(sys.executable).parent.parent), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def call(self, *command: str | Path, cwd: Path = ROOT, **settings: str) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=cwd, env={**self.environment, **settings},
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, script: str, *flags: str, cwd: Path = ROOT, **settings: str) -> str:
        """Number of the new job."""
        return self.call("sbatch", "--parsable", *flags, cwd / "jobs" / script, cwd=cwd, **settings)

    def field(self, job: str, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", self.call("scontrol", "show", "job", "-o", job))
        assert found, name
        return found[1]

    def wait(self, job: str, *states: str, timeout_s: float = LIMIT_S) -> str:
        """State and exit code of a job, once it is in one of the states; by default, over."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        until = time.monotonic() + timeout_s
        state = "not known"
        while time.monotonic() < until:
            with contextlib.suppress(AssertionError):  # the controller may be too busy to answer
                state = self.field(job, "JobState")
            if state in (states or over):
                return f"{state} {self.field(job, 'ExitCode')}"
            time.sleep(0.1)
        pytest.fail(f"job {job} is still {state}")

    def last_job(self) -> int:
        """Number of the job that was submitted last."""
        return int(re.findall(r"JobId=(\d+)", self.call("scontrol", "show", "job", "-o"))[-1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    root = tmp_path_factory.mktemp("slurm")
    try:
        started = subprocess.run(
            [ROOT / "tests/slurm/up.sh", root, str(free_port(3)), "2"],
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        assert started.returncode == 0, started.stderr
        cluster = Cluster(root)
        cluster.call("srun", "--mpi=pmix", "true")  # some builds of Slurm need libpmix-dev for it
        yield cluster
    finally:
        subprocess.run([ROOT / "tests/slurm/down.sh", root], timeout=LIMIT_S, check=True)


@pytest.fixture
def site_mpi() -> dict[str, str]:
    """Settings for ranks by ``srun``: the distribution's Open MPI."""
    found = subprocess.run(
        [ROOT / "tools/find_libmpi.sh", "mpirun"], capture_output=True, text=True,
        env={"PATH": SITE_PATH}, timeout=LIMIT_S,
    )  # fmt: skip
    assert found.stdout, "no Open MPI of the distribution; apt-get install openmpi-bin"
    return {"MPI4PY_LIBMPI": found.stdout.strip()}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path has a blank, as far as the job scripts look."""
    directory = tmp_path / "a checkout"
    shutil.copytree(ROOT / "jobs", directory / "jobs")
    return directory


def arguments(directory: Path, *lines: str) -> str:
    path = directory / "My arguments.txt"
    path.write_text("\n".join(lines))
    return str(path)


def flags(n_nodes: int, log: Path, *more: str) -> list[str]:
    return [f"--nodes={n_nodes}", f"--ntasks-per-node={2 // n_nodes}", f"--output={log}", *more]


MPIRUN = {"LAUNCHER": "mpirun", "MPIRUN_FLAGS": "--bind-to none"}


def datasets(path: Path) -> dict[str, object]:
    """All that a results file promises the bits of."""
    found: dict[str, object] = {}

    def take(name: str, item: Any) -> None:
        if hasattr(item, "shape") and not name.startswith("run/"):
            array = np.asarray(item[()])
            found[name] = array.tolist() if array.dtype.hasobject else array.tobytes()

    with results.open_results(path) as file:
        file.visititems(take)
    return found


@pytest.mark.slow
def test_a_sweep_that_the_time_limit_stops_goes_on_to_the_same_bits(
    cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    parts, whole = checkout / "some results" / "parts.h5", checkout / "whole.h5"
    n_draws, margin_s = 5_000, 48
    # Slurm counts limits in minutes; the margin has the first job stop in the midst of its work.
    for _ in range(5):
        lines = [*SMALL[:2], "--thresholds=0,0.1,0.25,0.5,1,2,3,5", "--evaluator=graph",
                 f"--num_monte_carlo={n_draws}"]  # fmt: skip
        job = int(
            cluster.submit(
                "slurm.sh", *flags(2, checkout / "parts-%j.log", "--time=1", "--job-name=parts"),
                cwd=checkout, ARG_FILE=arguments(checkout, *lines, f"--stop_margin_s={margin_s}"),
                OUTPUT=str(parts), **site_mpi,
            )
        )  # fmt: skip
        log = checkout / f"parts-{job}.log"
        until = time.monotonic() + LIMIT_S
        while not log.exists() or "6464 weights" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        arguments(checkout, *lines)  # what the next job reads
        state = cluster.wait(str(job))
        if state == "COMPLETED 0:0":  # a fast machine
            n_draws *= 2
            parts.unlink()
        elif parts.exists():
            break
        else:  # a machine that is busy with other things, and needs longer to begin
            margin_s -= 11
    assert state == "FAILED 3:0", log.read_text()
    assert re.search(
        r"launcher: Slurm srun, ends in [01]\.\d min \(BPRUNE_END_TIME\)", log.read_text()
    )
    while state == "FAILED 3:0":
        job += 1
        state = cluster.wait(str(job))
    said = (checkout / f"parts-{job}.log").read_text()
    assert state == "COMPLETED 0:0" and "continuing from" in said, said

    log = checkout / "whole.log"
    last = cluster.submit(
        "slurm.sh", *flags(1, log), cwd=checkout, ARG_FILE=arguments(checkout, *lines),
        OUTPUT=str(whole), **MPIRUN,
    )  # fmt: skip
    assert int(last) == job + 1
    assert cluster.wait(last) == "COMPLETED 0:0", log.read_text()
    assert f"{whole}: complete" in log.read_text()
    assert datasets(parts) == datasets(whole)


@pytest.mark.parametrize(("n_nodes", "launcher"), [(1, "srun"), (2, "mpirun")])
def test_ranks_and_end_of_job_are_told(
    n_nodes: int, launcher: str, cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    log = checkout / "job.log"
    job = cluster.submit(
        "slurm.sh", *flags(n_nodes, log, "--time=7", "--cpus-per-task=3"), cwd=checkout,
        ARG_FILE=arguments(checkout, "--num_monte_carlo=3"), PYTHONPATH=str(STAND_IN),
        **(site_mpi if launcher == "srun" else MPIRUN),
    )  # fmt: skip
    assert cluster.wait(job) == "COMPLETED 0:0", log.read_text()
    told = re.search(r"2 ranks, 3 threads, (\d+) s left", log.read_text())
    assert told and 240 <= int(told[1]) <= 420, log.read_text()


@pytest.mark.parametrize(
    ("asked", "seen"), [("--gpus-per-task=1", "0 1 2"), ("--gpus-per-node=3", "0,1,2 0,1,2 0,1,2")]
)
def test_ranks_see_their_gpus_in_every_job_of_a_chain(
    cluster: Cluster, site_mpi: dict[str, str], checkout: Path, asked: str, seen: str
) -> None:
    """Bound by Slurm each sees its own; else all see all, and take that of their local rank."""
    first = int(
        cluster.submit(
            "slurm.sh", "--nodes=1", "--ntasks-per-node=3", asked, "--time=7",
            f"--output={checkout}/of-%j.log", cwd=checkout, PYTHONPATH=str(STAND_IN),
            ARG_FILE=arguments(checkout, "--num_monte_carlo=6", "--at_most=3"), **site_mpi,
        )
    )  # fmt: skip
    for job, state in ((first, "FAILED 3:0"), (first + 1, "COMPLETED 0:0")):
        assert cluster.wait(str(job)) == state
        assert f"GPUs of ranks: {seen}\n" in (checkout / f"of-{job}.log").read_text()


def test_a_plugin_that_does_not_join_the_ranks_is_refused(cluster: Cluster, checkout: Path) -> None:
    log = checkout / "job.log"
    job = cluster.submit(
        "slurm.sh", *flags(1, log), cwd=checkout, ARG_FILE=arguments(checkout, *SMALL),
        SRUN_MPI="pmi2",
    )  # fmt: skip
    assert cluster.wait(job).startswith("FAILED"), log.read_text()
    said = log.read_text()
    assert said.count("error: PMI launcher started this as process 0 of 2, but MPI sees") == 1
    assert "or another srun --mpi=" in said
    assert not (checkout / "results" / "sweep.h5").exists()


def test_a_sweep_that_is_not_done_goes_on_in_jobs_of_the_same_size(
    cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    log, output = checkout / "the logs" / "of %x-%j.log", checkout / "sweep.h5"
    log.parent.mkdir()
    first = int(
        cluster.submit(
            "slurm.sh", *flags(2, log, "--time=7", "--job-name=mine"), cwd=checkout,
            ARG_FILE=arguments(checkout, "--num_monte_carlo=25", "--at_most=10"),
            OUTPUT=str(output), PYTHONPATH=str(STAND_IN), **site_mpi,
        )
    )  # fmt: skip
    assert cluster.wait(str(first)) == "FAILED 3:0"
    assert cluster.wait(str(first + 1)) == "FAILED 3:0"
    assert cluster.wait(str(first + 2)) == "COMPLETED 0:0"
    assert output.read_text() == "complete 25/25 draws\n"
    assert cluster.last_job() == first + 2
    for name in ("JobName", "NumNodes", "NumTasks", "TimeLimit", "CPUs/Task"):
        assert len({cluster.field(str(first + i), name) for i in range(3)}) == 1, name
    logs = [log.parent / f"of mine-{first + i}.log" for i in range(3)]
    assert set(checkout.rglob("*.log")) == set(logs)  # each job its own, where they were asked for
    said = logs[-1].read_text()
    assert f"job 3 of at most 20 for {output} (partial 20/25 draws)" in said


def wait_for(path: Path, timeout_s: float = LIMIT_S) -> None:
    until = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.05)


@pytest.mark.parametrize("launcher", ["srun", "mpirun"])
def test_a_warning_reaches_the_ranks_and_the_sweep_goes_on_in_another_job(
    launcher: str, cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    output = checkout / "sweep.h5"
    more = site_mpi if launcher == "srun" else MPIRUN
    first = cluster.submit(
        "slurm.sh", *flags(1, checkout / "%j.log"), cwd=checkout,
        ARG_FILE=arguments(checkout, "--num_monte_carlo=40", "--draw_s=0.1"),
        OUTPUT=str(output), PYTHONPATH=str(STAND_IN), **more,
    )  # fmt: skip
    wait_for(output)
    cluster.call("scancel", "--batch", "--signal=USR1", first)  # what --signal=B:USR1@90 does
    assert cluster.wait(first) == "FAILED 3:0"
    assert cluster.wait(str(int(first) + 1)) == "COMPLETED 0:0"
    assert output.read_text() == "complete 40/40 draws\n"


def test_a_cancelled_job_leaves_its_results_and_no_other_job(
    cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    output = checkout / "sweep.h5"
    settings = {
        "ARG_FILE": arguments(checkout, "--num_monte_carlo=30", "--draw_s=0.1"),
        "OUTPUT": str(output), "PYTHONPATH": str(STAND_IN), **site_mpi,
    }  # fmt: skip
    log = checkout / "job.log"
    job = cluster.submit("slurm.sh", *flags(1, log), cwd=checkout, **settings)
    wait_for(output)
    cluster.call("scancel", job)
    assert cluster.wait(job).startswith("CANCELLED")
    assert output.read_text().startswith("partial")
    assert cluster.last_job() == int(job)
    job = cluster.submit("slurm.sh", *flags(1, log), cwd=checkout, **settings)
    assert cluster.wait(job) == "COMPLETED 0:0"
    assert "(partial " in log.read_text()


def test_a_requeued_job_goes_on(cluster: Cluster, site_mpi: dict[str, str], checkout: Path) -> None:
    log, output = checkout / "job.log", checkout / "sweep.h5"
    job = cluster.submit(
        "slurm.sh", *flags(1, log), cwd=checkout,
        ARG_FILE=arguments(checkout, "--num_monte_carlo=30", "--draw_s=0.1"),
        OUTPUT=str(output), PYTHONPATH=str(STAND_IN), **site_mpi,
    )  # fmt: skip
    wait_for(output)
    cluster.call("scontrol", "requeue", job)
    cluster.wait(job, "PENDING")
    # Slurm holds it for two minutes. Within the second in which it has revoked the job's credential
    # it would revoke a new one as well, and kill the job.
    time.sleep(2)
    cluster.call("scontrol", "update", f"jobid={job}", "StartTime=now")
    assert cluster.wait(job) == "COMPLETED 0:0"
    assert cluster.field(job, "Restarts") == "1"
    assert output.read_text() == "complete 30/30 draws\n"
    assert re.findall(r"sweep.h5 \((.*)/", log.read_text())[-1].startswith("partial ")


def test_an_array_sweeps_each_checkpoint(
    cluster: Cluster, site_mpi: dict[str, str], checkout: Path
) -> None:
    cases = checkout / "the cases"
    for case, step in (("dense", 100), ("dense", 200), ("le net", 100)):
        (cases / case).mkdir(parents=True, exist_ok=True)
        (cases / case / f"model.ckpt-{step}.index").touch()
    cluster.submit(
        "slurm_array.sh", "--array=0-2%2", *flags(1, checkout / "%a.log"), cwd=checkout,
        ARG_FILE=arguments(checkout, "--num_monte_carlo=4", "--at_most=3"),
        CASES="the cases", PYTHONPATH=str(STAND_IN), **site_mpi,
    )  # fmt: skip
    names = ("dense.model.ckpt-100", "dense.model.ckpt-200", "le net.model.ckpt-100")
    for name in names:
        output = checkout / "results" / f"{name}.h5"
        wait_for(output)
        until = time.monotonic() + LIMIT_S
        while output.read_text() != "complete 4/4 draws\n":
            assert time.monotonic() < until, output.read_text()
            time.sleep(0.1)
    said = (checkout / "2.log").read_text()
    assert f"  --model_dir={cases}/le net\n  --model_ckpt=model.ckpt-100\n" in said


@pytest.mark.slow
@pytest.mark.horovod
def test_training_and_then_a_sweep_of_what_was_trained(cluster: Cluster, checkout: Path) -> None:
    train = checkout / "train.txt"
    train.write_text("--dataset=digits\n--model=dense\n--hidden=8\n--epochs=1\n--seed=1\n")
    network = checkout / "a network"
    said = cluster.call(
        checkout / "jobs" / "pipeline.sh", "slurm", cwd=checkout,
        TRAIN_ARG_FILE=str(train), MODEL_DIR=str(network),
        ARG_FILE=arguments(checkout, *SMALL[1:]),
        TRAIN_FLAGS="--ntasks-per-node=2", SWEEP_FLAGS="--ntasks-per-node=2", **MPIRUN,
    )  # fmt: skip
    found = re.fullmatch(r"training: job (\d+); sweep: job (\d+)", said)
    assert found
    logs = [checkout / f"bprune-train-{found[1]}.log", checkout / f"bprune-{found[2]}.log"]
    assert cluster.wait(found[2]) == "COMPLETED 0:0", [
        log.read_text() for log in logs if log.exists()
    ]
    assert (checkout / "a network.h5").exists()
    assert f"{network}.h5: complete" in logs[1].read_text()


@pytest.mark.parametrize("fails", [False, True])
def test_a_sweep_comes_after_training_that_went_well(
    fails: bool, cluster: Cluster, checkout: Path
) -> None:
    train = checkout / "train.txt"
    train.write_text("--fail" if fails else "")
    said = cluster.call(
        checkout / "jobs" / "pipeline.sh", "slurm", cwd=checkout,
        TRAIN_ARG_FILE=str(train), ARG_FILE=arguments(checkout, "--num_monte_carlo=2"),
        MODEL_DIR="a network", TRAIN_FLAGS="--ntasks-per-node=2", SWEEP_FLAGS="--ntasks-per-node=2",
        PYTHONPATH=str(STAND_IN), **MPIRUN,
    )  # fmt: skip
    train_job, sweep_job = re.findall(r"job (\d+)", said)
    if fails:
        assert cluster.wait(train_job) == "FAILED 1:0"
        assert cluster.wait(sweep_job).startswith("CANCELLED")
        return
    assert cluster.wait(sweep_job) == "COMPLETED 0:0"
    assert cluster.field(train_job, "JobState") == "COMPLETED"
    assert "  --model_dir=a network\n" in (checkout / f"bprune-{sweep_job}.log").read_text()
    assert (checkout / "a network.h5").read_text() == "complete 2/2 draws\n"
