from __future__ import annotations

import logging

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError, LaunchError
from bprune_hpc.mpi import comm, launchers

LAUNCHER_VARIABLES = [name for entry in launchers.LAUNCHERS for name in entry[1:] if name]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*LAUNCHER_VARIABLES, "SLURM_NTASKS"]:
        monkeypatch.delenv(name, raising=False)


def test_alone_no_mpi_is_needed() -> None:
    assert isinstance(comm.world(), comm.SerialComm)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, ("Open MPI mpirun", 4, 1)),
        ({"PMI_SIZE": "3", "PMI_RANK": "2"}, ("PMI launcher", 3, 2)),
        ({"PALS_RANKID": "5"}, ("PALS mpiexec", None, 5)),
        ({"ALPS_APP_PE": "6"}, ("ALPS aprun", None, 6)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7"}, ("Slurm srun", 8, 7)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "1",
                "OMPI_COMM_WORLD_RANK": "0",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "1",
            },
            ("Open MPI mpirun", 1, 0),
        ),
    ],
)
def test_the_launcher_is_told_by_its_own_variables(
    variables: dict[str, str], expected: tuple[str, int | None, int] | None
) -> None:
    assert launchers.launcher(variables) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_LOCALID": "1"}, None),  # of a batch script, which is no rank
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3",
          "OMPI_COMM_WORLD_LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 1),
        ({"PALS_RANKID": "5", "PALS_LOCAL_RANKID": "1"}, 1),
        ({"PMI_SIZE": "3", "PMI_RANK": "2", "MPI_LOCALRANKID": "0"}, 0),
        ({"PMI_SIZE": "3", "PMI_RANK": "2", "PMI_LOCAL_RANK": "1"}, 1),
        ({"ALPS_APP_PE": "6"}, None),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "7", "SLURM_LOCALID": "3"}, 3),
    ],
)  # fmt: skip
def test_the_local_rank_is_told_by_the_launcher(
    variables: dict[str, str], expected: int | None
) -> None:
    assert launchers.local_rank(variables) == expected


@pytest.mark.parametrize(
    ("variables", "layer"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, "^ofi"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, None),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "OMPI_MCA_btl": "self,tcp",
            },
            "self,tcp",
        ),
    ],
)
def test_a_network_is_left_out_on_one_host_unless_the_user_has_chosen(
    variables: dict[str, str], layer: str | None
) -> None:
    launchers.leave_out_idle_network(variables)
    assert variables.get("OMPI_MCA_btl") == layer


class _Alone:
    """An MPI world that believes to be one process."""

    size, rank, library = 1, 0, "Open MPI v5"


@pytest.mark.parametrize(
    "variables",
    [
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
        {"PMI_SIZE": "2", "PMI_RANK": "0"},
        {"PMI_SIZE": "2", "PMI_RANK": "1"},
        {"PALS_RANKID": "1"},
        {"ALPS_APP_PE": "3"},
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},
    ],
)
def test_many_processes_that_each_believe_to_be_alone_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.setattr(comm, "MPIComm", _Alone)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match="MPI sees one process alone"):
        comm.world()


@pytest.mark.parametrize(
    "variables",
    [
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"PALS_RANKID": "0"},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
    ],
)
def test_one_process_by_any_launcher_is_fine(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.setattr(comm, "MPIComm", _Alone)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert isinstance(comm.world(), _Alone)


def test_plain_python_inside_an_allocation_only_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with caplog.at_level(logging.WARNING):
        assert isinstance(comm.world(), comm.SerialComm)
    assert "one process inside an allocation of 4 tasks" in caplog.text


def test_without_mpi4py_many_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("no libmpi")

    monkeypatch.setattr(comm, "MPIComm", missing)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(LaunchError, match=r"mpi4py cannot be loaded \(no libmpi\)"):
        comm.world()
    monkeypatch.setenv("PMI_SIZE", "1")
    assert isinstance(comm.world(), comm.SerialComm)


def test_serial_collectives_are_identities() -> None:
    alone = comm.SerialComm()
    array = np.arange(6).reshape(2, 3)
    assert alone.from_root(lambda: 5) == 5
    assert alone.bcast_arrays({"a": array})["a"] is array
    assert alone.any_of(True) and not alone.any_of(False)
    assert alone.gather("x") == ["x"]


def test_run_turns_errors_into_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    def bad_input(communicator: comm.Comm) -> int:
        def fail() -> int:
            raise ConfigError("--seed: x; y")

        return communicator.from_root(fail)

    assert comm.run(bad_input) == 2
    assert capsys.readouterr().err == "error: --seed: x; y\n"

    def short(communicator: comm.Comm) -> int:
        raise MemoryError("Unable to allocate 9 GiB")

    with pytest.raises(SystemExit) as end:
        comm.run(short)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith(
        "error: out of memory or of threads (MemoryError: Unable to allocate 9 GiB); start fewer"
    )

    def bug(communicator: comm.Comm) -> int:
        raise ZeroDivisionError("oh")

    with pytest.raises(SystemExit) as end:
        comm.run(bug)
    assert end.value.code == 1
    captured = capsys.readouterr().err
    assert "Traceback" in captured and captured.endswith("error: ZeroDivisionError: oh\n")
