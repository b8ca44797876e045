"""Fixtures: ranks started for real, each job under a time limit, the real checkpoint, and the
processor's instructions."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bprune_hpc import compiled

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_ALL = os.environ.get("BPRUNE_REQUIRE_ALL") == "1"

LIMIT_S = 1800
"""After which a command is taken to have locked up, however busy the machine is."""

MpiRun = Callable[..., subprocess.CompletedProcess[str]]


def _reason_to_skip(item: pytest.Item) -> str | None:
    if item.get_closest_marker("mpi") and find_mpirun() is None:
        return "no mpirun beside this Python or on PATH"
    if item.get_closest_marker("horovod") and importlib.util.find_spec("horovod") is None:
        return "Horovod is not installed"
    if item.get_closest_marker("slurm") and not has_slurm():
        return "Slurm is not installed; apt-get install slurmctld slurmd slurm-client munge"
    if item.get_closest_marker("compiled") and compiled.module is None:
        return "the compiled module is not built; python setup.py build_ext --inplace"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _reason_to_skip(item)
    if reason and REQUIRE_ALL:
        pytest.fail(f"{reason}, and BPRUNE_REQUIRE_ALL allows no skip")
    if reason:
        pytest.skip(reason)


def has_slurm() -> bool:
    """Whether the tests can bring up a Slurm of their own."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    return all(
        shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged", "sbatch")
    )


def find_mpirun() -> str | None:
    """The ``mpirun`` beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def launch_environment() -> dict[str, str]:
    """Environment for ranks that outnumber the cores."""
    return {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def mpirun() -> MpiRun:
    """Start ranks: ``mpirun(2, ["-m", "bprune_hpc.sweep", ...])`` runs Python on two ranks."""

    def start(
        n_ranks: int, arguments: Sequence[str], timeout: float = LIMIT_S, cwd: Path = ROOT
    ) -> subprocess.CompletedProcess[str]:
        launcher = find_mpirun()
        assert launcher is not None
        command = [launcher, "-n", str(n_ranks), sys.executable, *map(str, arguments)]
        return run_group(command, timeout, cwd)

    return start


@pytest.fixture
def no_horovod(tmp_path: Path) -> Path:
    """A place on the path that makes Horovod look absent."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "horovod.py").write_text("raise ImportError('No module: horovod')\n")
    return tmp_path / "hidden"


def run_group(
    command: Sequence[str], timeout: float = LIMIT_S, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own; a time-out ends the group and fails."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**launch_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"no end within {timeout} s: {command}\n{out}\n{err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


TEST_DATA = Path(os.environ.get("BPRUNE_TEST_DATA", ROOT.parent / "shared" / "data"))
THETA_DIR = TEST_DATA / "theta_2rank_250"
"""The checkpoint that two Horovod ranks wrote on ALCF Theta in 2020."""
needs_theta = pytest.mark.skipif(
    not THETA_DIR.is_dir(), reason=f"no {THETA_DIR.name} in {TEST_DATA}; set BPRUNE_TEST_DATA"
)


COMPILED = [pytest.param(name, marks=pytest.mark.compiled) for name in compiled.supported()] or [
    pytest.param("not built", marks=pytest.mark.compiled)
]
"""Sets of instructions that the compiled module has here; where there is none, one that skips."""


@pytest.fixture(params=[compiled.NONE, *COMPILED])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with NumPy, and with each set of instructions that there is."""
    monkeypatch.setenv(compiled.VARIABLE, request.param)
    return str(request.param)


@pytest.fixture(params=COMPILED)
def compiled_instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with each set of instructions that there is."""
    monkeypatch.setenv(compiled.VARIABLE, request.param)
    return str(request.param)
