"""Ctrl-C and other SIGINTs: one asks a sweep to stop, and the same command goes on; two end it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bprune_hpc import results
from tests.helpers.bits import all_bits
from tests.helpers.launch import run_group
from tests.helpers.running_jobs import Bits, Job, whole_bits


def interruptible() -> None:
    """As in a terminal, also where the tests themselves run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def job(path: Path, n_ranks: int, **wishes: object) -> Job:
    return Job(path, n_ranks, before=interruptible, **wishes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bits:
    return whole_bits(tmp_path_factory.mktemp("whole"))


def goes_on(path: Path, n_ranks: int, whole: Bits) -> None:
    """The same command does the rest."""
    assert job(path, n_ranks, round_s=1e9).wait() == 0
    assert all_bits(path) == whole


@pytest.mark.parametrize(
    ("n_ranks", "rank"),
    [(1, 0), pytest.param(2, 0, marks=pytest.mark.mpi), pytest.param(3, 2, marks=pytest.mark.mpi)],
)
def test_a_sigint_to_a_rank_stops_all_in_good_order(
    tmp_path: Path, whole: Bits, n_ranks: int, rank: int
) -> None:
    path = tmp_path / "s.h5"
    stopped = job(path, n_ranks, strike=["draw", 30, rank, None, "SIGINT"], round_s=0.1)
    assert stopped.wait() == 3, stopped.errors()
    assert results.read(path).attrs["status"] == "partial"
    assert not path.with_name("s.h5.lock").exists()
    goes_on(path, n_ranks, whole)


@pytest.mark.parametrize("point", ["lock", "read", "image", "table"])
def test_a_sigint_at_any_other_time(tmp_path: Path, whole: Bits, point: str) -> None:
    path = tmp_path / "s.h5"
    stopped = job(path, 1, strike=[point, 1, 0, None, "SIGINT"], round_s=0.1)
    assert stopped.wait() == (0 if point == "table" else 3), stopped.errors()
    goes_on(path, 1, whole)


def test_a_second_sigint_ends_at_once(tmp_path: Path, whole: Bits) -> None:
    path = tmp_path / "s.h5"
    # A superstep of work that takes minutes.
    long = job(path, 1, strike=["draw", 2, 0, None, "SIGINT"], delay_s=3.0)
    while "SIGINT received" not in long.output():
        time.sleep(0.05)
        assert long.process.poll() is None
    time.sleep(0.7)
    long.process.send_signal(signal.SIGINT)
    assert long.wait() == -signal.SIGINT  # and not in good order, minutes later
    goes_on(path, 1, whole)


@pytest.mark.mpi
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["launcher", "terminal"])
def test_ctrl_c_at_a_launcher_loses_no_file(
    tmp_path: Path, whole: Bits, send: Callable[[int, int], None]
) -> None:
    path = tmp_path / "s.h5"
    struck = job(path, 2, delay_s=0.01, round_s=0.1)
    while not path.exists():
        time.sleep(0.05)
        assert struck.process.poll() is None
    send(struck.process.pid, signal.SIGINT)
    struck.wait()  # whatever the launcher says: Open MPI's kills the ranks, others wait for them
    assert results.read(path).attrs["status"] == "partial"
    goes_on(path, 2, whole)


@pytest.mark.parametrize("command", ["report FILE", "inspect --status FILE"])
def test_a_command_that_saves_nothing_ends_without_a_word(command: str) -> None:
    name, *arguments = command.split()
    program = (
        "import os, runpy, signal, sys, time\n"
        "from bprune_hpc import results\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "results.open_results = lambda path: (os.kill(os.getpid(), signal.SIGINT), time.sleep(9))\n"
        "results.file.open_results = results.open_results\n"
        f"sys.argv[1:] = {arguments}\n"
        f"runpy.run_module('bprune_hpc.{name}', run_name='__main__')\n"
    )
    done = run_group([sys.executable, "-c", program], 30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
