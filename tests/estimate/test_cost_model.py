"""Forecasts against clocks that are counted by hand, and against a whole sweep on such a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bprune_hpc import results, sweep
from bprune_hpc.config import sweep_config
from bprune_hpc.estimate.cost_model import (
    LINK_BYTES_PER_S,
    MIB,
    DrawTime,
    Peaks,
    Rates,
    Timeline,
    between,
    memory,
    reduce_seconds,
    timeline,
)
from bprune_hpc.job.deadline import Deadline
from bprune_hpc.job.signals import StopSignals
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.results import output
from bprune_hpc.runner import write_cost
from bprune_hpc.runner.coordinator import Coordinator
from bprune_hpc.runner.loop import StopVote
from bprune_hpc.runner.scheduler import Step
from bprune_hpc.runner.state import SweepState
from tests.helpers import fake_problem

TRUE = DrawTime(0.3, 0.05, 0.2, 0.011)


def seconds_of(k: int, m: int) -> float:
    return 0.3 + 0.05 * k + 0.2 * m + 0.011 * k * m


@pytest.mark.parametrize(
    "sizes", [[(1, 1), (25, 1), (1, 4), (25, 4)], [(2, 3), (9, 3), (2, 8), (9, 8), (5, 5)]]
)
def test_times_are_found_again_from_what_they_add_up_to(sizes: list[tuple[int, int]]) -> None:
    found = DrawTime.fit({size: seconds_of(*size) for size in sizes})
    for size in [(1, 1), (25, 10), (7, 100)]:
        assert found.seconds(*size) == pytest.approx(seconds_of(*size), rel=1e-6)


def test_one_number_of_batches_tells_of_that_number() -> None:
    found = DrawTime.fit({(1, 1): 0.7, (11, 1): 1.7})
    assert found.seconds(21, 1) == pytest.approx(2.7)


def test_one_number_of_units_is_taken_to_be_for_each() -> None:
    found = DrawTime.fit({(1, 1): 0.7, (1, 3): 1.3})
    assert found.seconds(5, 4) == pytest.approx(5 * (0.4 + 4 * 0.3))


def test_no_time_is_negative() -> None:
    found = DrawTime.fit({(1, 1): 1.0, (10, 1): 0.9, (1, 5): 4.8, (10, 5): 5.1})
    assert min(found.once_s, found.replicate_s, found.batch_s, found.both_s) >= 0


def test_thresholds_between_timed_ones_are_on_a_line_in_their_cost() -> None:
    timed = {0: DrawTime(4, 0, 0, 10), 3: DrawTime(1, 0, 0, 2)}
    found = between([100, 60, 40, 20], timed)
    assert [one.both_s for one in found] == pytest.approx([10, 6, 4, 2])
    assert [one.once_s for one in found] == pytest.approx([4, 2.5, 1.75, 1])


def forecast(
    n_replicates: int, sweep_states: list[SweepState], n_ranks: int = 1, n_examples: int = 100,
    flags: tuple[str, ...] = (), **more: float,
) -> Timeline:  # fmt: skip
    """Batches of 50 take 0.5 s a replicate and threshold; its noise 0.1 s, a write 2 s."""
    n_thresholds = sum(len(one.thresholds) for one in sweep_states)
    asked = sweep_config.parse(
        [
            "--model_dir=fake",
            f"--thresholds=0:1:{n_thresholds}",
            f"--num_monte_carlo={2 * n_replicates}",
            "--batch_size=50",
            *flags,
        ]
    )
    sweep = fake_problem.prepared(asked, n_examples)
    rates = Rates(0.1, (DrawTime(0, 0, 0, 0.5),) * n_thresholds, **{"write_s": 2.0, **more})
    return timeline(sweep, rates, n_ranks, sweep_states)


def begun(n_thresholds: int, *progress: int) -> list[SweepState]:
    return [SweepState(tuple(range(n_thresholds)), *progress)]


def test_a_rank_alone_does_everything_one_after_the_other() -> None:
    found = forecast(50, begun(3))
    assert found.draw_s == pytest.approx(50 * (0.1 + 3 * 1.0) + 3 * 0.5)  # with the mean
    assert found.reduce_s == 0
    assert found.write_s == pytest.approx(2 * found.n_writes)


def test_what_is_done_is_not_done_again() -> None:
    found = forecast(50, begun(3, 0, 40))
    assert found.draw_s == pytest.approx(10 * (0.1 + 3 * 1.0))
    nothing = forecast(50, begun(3, 0, 50))
    assert nothing.seconds == nothing.n_writes == 0


def test_new_thresholds_are_caught_up_alone() -> None:
    found = forecast(50, [SweepState((0, 2), 0, 50), SweepState((1,))])
    assert found.draw_s == pytest.approx(50 * (0.1 + 1.0) + 0.5)


def test_ranks_share_and_no_rank_has_less_than_a_work_item() -> None:
    alone = forecast(399, begun(4))
    eight = forecast(399, begun(4), 8)
    assert eight.draw_s == pytest.approx(alone.draw_s / 8, rel=0.05)
    many = forecast(2, begun(4), 1000)
    assert many.draw_s >= 1.1  # one replicate at one threshold


def test_blocks_of_examples_are_passes_that_each_end_with_their_statistics() -> None:
    found = forecast(10, begun(1), n_examples=120, flags=("--state_limit_gb=1e-9",), block_s=7.0)
    assert found.draw_s == pytest.approx(3 * (10 * (0.1 + 0.5) + 0.25))
    assert found.write_s == pytest.approx(3 * 7.0 + 2.0 * found.n_writes)


def test_a_forecast_brings_sums_together_as_a_sweep_does() -> None:
    one, two = (forecast(400, begun(3), n_ranks) for n_ranks in (1, 2))
    assert one.reduce_s == 0 < two.reduce_s
    group_s = 100 * 3 * 8 * 9 / LINK_BYTES_PER_S
    assert two.reduce_s == pytest.approx(group_s * round(two.reduce_s / group_s))


def test_sums_travel_up_a_tree_of_the_ranks_that_have_them() -> None:
    # Each of two ranks; rank 0 then has one after the other.
    of_two = {-1: (0, 1), 0: (2, 3), 1: (4, 5)}
    assert reduce_seconds(of_two, 500) == pytest.approx(3 * 500 / LINK_BYTES_PER_S)
    assert reduce_seconds({0: (0,), 1: (0,)}, 500) == 0


def test_memory_is_what_was_measured_and_what_was_not_there() -> None:
    flags = ["--model_dir=fake", "--thresholds=0", f"--num_monte_carlo={2 * 40 * 20}"]
    of = fake_problem.prepared(sweep_config.parse(flags))
    # 3 or 4 groups on each of 8 ranks; a quarter more and three may be there from before.
    group_mib = 8 * 45 * (fake_problem.N_CLASSES + 5) / MIB
    found = memory(Peaks(300, 400, 450), Peaks(100, 200), 3 * MIB, of, 8)
    assert found.root_mib == 450
    assert found.other_mib == pytest.approx(203 + 8 * group_mib, abs=1e-9)
    assert found.together_mib == pytest.approx(450 + 7 * (203 + 8 * group_mib))
    alone = memory(Peaks(300, 460, 450), Peaks(100, 200), 3 * MIB, of, 1)
    assert alone.root_mib == alone.together_mib == 463
    reads_most = memory(Peaks(900, 400, 450), Peaks(800, 200), 0, of, 2)
    assert (reads_most.root_mib, reads_most.other_mib) == (900, 800)


class Clock:
    """Time that passes only when something is said to take some."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Every draw on a batch takes half a second, every write 3 s."""
    made, write = Clock(), output.Output.write
    fake_problem.install(monkeypatch.setattr)
    call = fake_problem.Network.__call__

    def slow_call(self: Any, *arguments: Any) -> Any:
        made.now += 0.5
        return call(self, *arguments)

    def slow_write(self: Any, coordinator: Any) -> None:
        made.now += 3.0
        write(self, coordinator)

    monkeypatch.setattr(fake_problem.Network, "__call__", slow_call)
    monkeypatch.setattr(output.Output, "write", slow_write)
    monkeypatch.setattr(time, "perf_counter", made)
    yield made


def noting(steps: list[Step | None]) -> Callable[[Coordinator, bool], Step | None]:
    """A coordinator's decisions, which are put down."""
    decide = Coordinator.next

    def next_(coordinator: Coordinator, is_stopping: bool) -> Step | None:
        steps.append(decide(coordinator, is_stopping))
        return steps[-1]

    return next_


@pytest.mark.parametrize(
    "flags",
    [(), ("--batch_size=10",), ("--ood_dataset=digits",),
     ("--batch_size=10", "--state_limit_gb=1e-9"),
     ("--batch_size=10", "--state_limit_gb=1e-9", "--elbo_dataset=digits", "--prior_scale=1")],
)  # fmt: skip
def test_a_sweep_on_that_clock_goes_as_forecast(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    path = tmp_path / "sweep.h5"
    argv = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=240", *flags,
            f"--output={path}"]  # fmt: skip
    asked = sweep_config.parse(argv)
    prepared = fake_problem.prepared(asked)
    assumed = Rates(0.0, (DrawTime(0, 0, 0, 2 * 0.5),) * 3, write_s=3.0)
    steps: list[Step | None] = []
    monkeypatch.setattr(Coordinator, "next", noting(steps))
    found = timeline(prepared, assumed, 1, begun(3))
    planned, steps[:] = list(steps), []

    begin = clock.now
    assert sweep.sweep(SerialComm(), argv) == 0
    took = clock.now - begin
    assert found.seconds == pytest.approx(took)
    assert planned == steps
    assert found.n_writes == results.read(path).groups["run"]["n_writes"].item()


@pytest.mark.parametrize("flags", [(), ("--batch_size=10", "--state_limit_gb=1e-9")])
@pytest.mark.parametrize("limit_s", [120.0, 250.0])
def test_a_sweep_whose_writes_take_long_ends_before_its_limit(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, limit_s: float,
    flags: tuple[str, ...],
) -> None:  # fmt: skip
    """Writes on that clock take 10 s a group of draws, for all examples, and 20 s besides."""
    path, ends_of_writes = tmp_path / "sweep.h5", []
    cost = write_cost.WriteCost(20.0 / (3 * 45), 10.0 / (3 * 45))
    slow_write = output.Output.write

    def slower_write(self: Any, coordinator: Any) -> None:
        clock.now += cost.seconds(coordinator.sweep, coordinator.sweep_states)
        slow_write(self, coordinator)
        ends_of_writes.append(clock.now - begin)

    monkeypatch.setattr(output.Output, "write", slower_write)
    monkeypatch.setattr(write_cost.WriteCost, "measure", lambda *_: cost)
    end = Deadline(clock.now + limit_s, "--time_limit_min")
    ask = StopVote(SerialComm(), end, None, StopSignals(), clock)
    argv = ["--model_dir=fake", "--thresholds=0,0.5,1", "--num_monte_carlo=2000", *flags,
            f"--output={path}"]  # fmt: skip
    begin = clock.now
    assert sweep.sweep(SerialComm(), argv, ask) == sweep.STOPPED
    assert results.read(path).attrs["status"] == "partial"
    assert ends_of_writes[-1] <= limit_s
