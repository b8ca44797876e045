"""Starting commands and ranks: where mpirun is, its environment, limits of time, test data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LIMIT_S = 1800
"""After which a command is taken to have locked up, however busy the machine is."""

MpiRun = Callable[..., subprocess.CompletedProcess[str]]


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
