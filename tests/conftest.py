"""Fixtures: ranks started for real, each job under a time limit, the real checkpoint, and the
processor's instructions."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bprune_hpc import compiled
from tests.helpers.launch import LIMIT_S, ROOT, MpiRun, find_mpirun, run_group

REQUIRE_ALL = os.environ.get("BPRUNE_REQUIRE_ALL") == "1"


def _reason_to_skip(item: pytest.Item) -> str | None:
    if item.get_closest_marker("mpi") and find_mpirun() is None:
        return "no mpirun beside this Python or on PATH"
    if item.get_closest_marker("horovod") and importlib.util.find_spec("horovod") is None:
        return "Horovod is not installed"
    if item.get_closest_marker("slurm") and not has_slurm():
        return "Slurm is not installed; apt-get install slurmctld slurmd slurm-client munge"
    if item.get_closest_marker("compiled") and compiled.module is None:
        return "the compiled module is not built; python setup.py build_ext --inplace"
    for needed in item.iter_markers("needs"):
        program, package = needed.args
        if shutil.which(program) is None:
            return f"{program} is not installed; {package}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts ranks, and the folder whose tests all take long."""
    for item in items:
        if "mpirun" in getattr(item, "fixturenames", ()):
            item.add_marker("mpi")
        if ROOT / "tests/coverage" in item.path.parents:
            item.add_marker("slow")


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
    hide = "import sys\n\nsys.modules['horovod'] = None\n"
    (tmp_path / "hidden" / "sitecustomize.py").write_text(hide)
    return tmp_path / "hidden"


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
