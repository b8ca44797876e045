"""What a pilot run measures, on clocks that run as they are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.estimate import pilot_run
from bprune_hpc.estimate.pilot_run import PilotRun, rehearse
from bprune_hpc.job.environment import Stopwatch, describe_run
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner.preparation import PreparedSweep
from tests.helpers import fake_problem


def sweep_of(*flags: str, costs: Sequence[int] = ()) -> PreparedSweep:
    asked = sweep_config.parse(
        ["--model_dir=fake", "--num_monte_carlo=100", "--batch_size=10", *flags]
    )
    return fake_problem.prepared(asked, costs=costs)


def rehearsed(sweep: PreparedSweep) -> PilotRun:
    comm = SerialComm()
    run = describe_run(comm, Stopwatch(), 1, 1)
    return rehearse(comm, sweep, 1, run)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have every draw on a batch take so long by the clock and so long on the processor."""
    now = {"clock": 100.0, "processor": 10.0}
    call = fake_problem.Network.__call__

    def start(clock_s: float, processor_s: float) -> None:
        def slow_call(self: Any, *arguments: Any) -> Any:
            now["clock"] += clock_s
            now["processor"] += processor_s
            return call(self, *arguments)

        monkeypatch.setattr(fake_problem.Network, "__call__", slow_call)
        monkeypatch.setattr(time, "perf_counter", lambda: now["clock"])
        monkeypatch.setattr(time, "process_time", lambda: now["processor"])

    return start


@pytest.mark.parametrize(("clock_s", "processor_s"), [(0.02, 0.02), (0.07, 0.02), (0.02, 0.05)])
@pytest.mark.parametrize("kind", ["fake", "fake:regression"])
def test_a_draw_takes_what_the_clock_or_the_processor_says(
    ticking: Callable[[float, float], None], clock_s: float, processor_s: float, kind: str
) -> None:
    sweep = sweep_of(f"--model_dir={kind}", "--thresholds=0,0.5,1")
    ticking(clock_s, processor_s)
    rates = rehearsed(sweep).rates
    draws_per_replicate = 4 if kind == "fake:regression" else 2
    assert rates.noise_s == 0
    for one in rates.draws:
        assert one.seconds(17, 5) == pytest.approx(17 * 5 * draws_per_replicate * 0.02)


def test_one_slow_draw_is_enough(ticking: Callable[[float, float], None]) -> None:
    sweep = sweep_of("--thresholds=0,0.5,1")
    ticking(60.0, 60.0)
    begin = time.perf_counter()
    found = rehearsed(sweep)
    assert found.n_replicates == 1
    assert time.perf_counter() - begin <= 10 * 60.0
    assert found.rates.draws[0].seconds(10, 5) == pytest.approx(10 * 5 * 2 * 60.0)


@pytest.mark.parametrize("n_draws", [2, 20])
def test_a_sweep_of_few_draws(n_draws: int) -> None:
    found = rehearsed(sweep_of(f"--num_monte_carlo={n_draws}"))
    assert 1 <= found.n_replicates <= n_draws // 2


def test_thresholds_of_different_work_are_timed() -> None:
    falling = sweep_of(
        "--thresholds=0:2:12", costs=[100, 60, 50, 40, 30, 25, 20, 15, 12, 11, 10, 9]
    )
    timed = pilot_run.Trial.of(falling).thresholds
    assert {0, 11} <= set(timed) and len(timed) <= 6
    costs = sorted(falling.costs[index] for index in timed)
    assert max(after - before for before, after in pairwise(costs)) <= 40
    assert pilot_run.Trial.of(sweep_of("--thresholds=0:2:12")).thresholds == (0,)


def test_it_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot_run.tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert rehearsed(sweep_of()).file_bytes > 0
    assert list(tmp_path.iterdir()) == []
