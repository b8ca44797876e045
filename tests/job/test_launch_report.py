from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bprune_hpc.job import launch_report
from bprune_hpc.job.deadline import Deadline
from bprune_hpc.job.launch_report import Place, crowding, disagreements, summary
from bprune_hpc.mpi.comm import SerialComm

N1 = Place("n1", frozenset(range(8)), frozenset({"avx", "avx2"}), {"tensorflow": "2.18.1"})
N2 = replace(N1, host="n2")


def pinned(place: Place, *cores: int) -> Place:
    return replace(place, cores=frozenset(cores))


@pytest.mark.parametrize(
    ("places", "n_threads", "expected"),
    [
        ([N1], 1, "1 rank on 1 host, 1 thread each, 8 cores seen"),
        ([N1, N2, N2], 4, "3 ranks on 2 hosts, 4 threads each, 2 x 8 cores seen"),
        ([N1, pinned(N2, 1, 2)], 1, "2 ranks on 2 hosts, 1 thread each, 8 + 2 cores seen"),
        ([pinned(N1, 0), pinned(N1, 1)], 1, "2 ranks on 1 host, 1 thread each, 2 cores seen"),
    ],
)
def test_the_line(places: list[Place], n_threads: int, expected: str) -> None:
    assert summary(places, n_threads) == expected


def test_ranks_that_have_room_are_not_warned_of() -> None:
    assert crowding([N1] * 8, 1) == []
    assert crowding([N1] * 4 + [N2] * 4, 2) == []
    assert crowding([pinned(N1, 0), pinned(N1, 1), pinned(N2, 0)], 1) == []


def test_more_threads_than_cores() -> None:
    (line,) = crowding([N1] * 9 + [N2] * 8, 1)
    assert line.startswith("more threads than cores, ranks x threads: n1 (9 x 1 on 8); start fewer")
    (line,) = crowding([N1] * 4, 3)
    assert "n1 (4 x 3 on 8)" in line
    (line,) = crowding([pinned(N1, 0)], 2)
    assert "n1 (1 x 2 on 1)" in line


def test_all_ranks_of_a_host_on_one_core() -> None:
    (line,) = crowding([pinned(N1, 3)] * 4 + [N2] * 4, 1)
    assert line.startswith("all ranks share one core: n1 (4 on core 3); look at")


def test_many_hosts_are_cut_short() -> None:
    places = [pinned(replace(N1, host=f"n{i}"), 0) for i in range(5) for _ in range(2)]
    (line,) = crowding(places, 1)
    assert "n0 (2 on core 0), n1 (2 on core 0), n2 (2 on core 0) and 2 more;" in line


def test_hosts_that_agree_are_not_warned_of() -> None:
    assert disagreements([N1, N2, N1]) == []


def test_packages_and_processors_that_differ() -> None:
    other = replace(N2, versions={"tensorflow": "2.19.1", "numpy": "2.0.2"})
    lines = disagreements([N1, other])
    assert [line.split(";")[0] for line in lines] == [
        "hosts disagree on numpy: none on n1",
        "hosts disagree on tensorflow: 2.18.1 on n1",
    ]
    assert "; 2.19.1 on n2; the last bits" in lines[1]
    newer = replace(N2, cpu_features=N2.cpu_features | {"avx512f"})
    (line,) = disagreements([N1, newer])
    assert line.startswith("hosts disagree on CPU features: less on n1; avx512f on n2; the last")


def test_features_are_read() -> None:
    text = "processor : 0\nflags\t\t: fpu sse2 avx2 fma hypervisor\nprocessor : 1\nflags : none\n"
    assert launch_report.cpu_features(text) == {"sse2", "avx2", "fma"}
    assert launch_report.cpu_features("Features : asimd crc32\n") == {"asimd"}
    assert launch_report.cpu_features("") == frozenset()


def test_the_line_is_logged_with_what_this_process_sees(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_report, "launcher", lambda: ("Slurm srun", 1, 0))
    monkeypatch.setattr(launch_report.time, "time", lambda: 1000.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5})
    with caplog.at_level(logging.INFO):
        launch_report.report(SerialComm(), 3, Deadline(1600.0, "squeue"))
    line, warning = caplog.messages
    assert line == (
        "1 rank on 1 host, 3 threads each, 2 cores seen, MPI: none, launcher: Slurm srun, "
        "ends in 10.0 min (squeue)"
    )
    assert warning.startswith("more threads than cores")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        launch_report.report(SerialComm(), 2, None)
    assert caplog.messages[0].endswith("no time limit")
    caplog.clear()
    monkeypatch.setattr(launch_report.compiled, "missing", "no module of this name")
    with caplog.at_level(logging.INFO):
        launch_report.report(SerialComm(), 2, None)
    assert caplog.messages[1] == (
        "the compiled module is missing; networks take longer (docs/clusters.md): no module "
        "of this name"
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [("prterun", "kill -USR1 77"), ("prted", "SIGUSR1 to mpirun"), (None, "SIGUSR1 to mpirun")],
)
def test_how_to_stop_ranks_of_open_mpi_is_said_where_there_is_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    command: str | None, said: str,
) -> None:  # fmt: skip
    if command is not None:
        (tmp_path / "77").mkdir()
        (tmp_path / "77" / "comm").write_text(f"{command}\n")
    line = launch_report.how_to_stop(77, str(tmp_path))
    assert line.startswith(
        f"to stop and keep all results: {said}; on Ctrl-C mpirun kills all ranks"
    )
    for launcher, has_terminal in (("Open MPI mpirun", True), ("Slurm srun", True),
                                   ("Open MPI mpirun", False)):  # fmt: skip
        monkeypatch.setattr(launch_report, "launcher", lambda name=launcher: (name, 1, 0))
        monkeypatch.setattr(launch_report, "_has_terminal", lambda there=has_terminal: there)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            launch_report.report(SerialComm(), 1, None)
        is_said = any("to stop and keep all results" in line for line in caplog.messages)
        assert is_said == (has_terminal and launcher == "Open MPI mpirun")
