"""What writes are foretold to take: on a clock that statistics alone move."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.runner import write_cost
from bprune_hpc.runner.preparation import PreparedSweep
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.write_cost import BYTES_PER_S, WriteCost
from tests.helpers import fake_problem


def sweep_of(n_thresholds: int, *flags: str, n_examples: int = 45) -> PreparedSweep:
    asked = sweep_config.parse([f"--thresholds=0:2:{n_thresholds}", "--output=x.h5", *flags])
    return fake_problem.prepared(asked, n_examples)


def sweep_state(n_thresholds: int, *position: int) -> SweepState:
    return SweepState(tuple(range(n_thresholds)), *position)


@pytest.mark.parametrize("kind", ["fake", "fake:regression"])
@pytest.mark.parametrize("ood", [False, True])
@pytest.mark.parametrize(("n_thresholds", "n_examples"), [(1, 1), (3, 45), (5000, 800)])
def test_a_small_part_tells_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, kind: str, ood: bool, n_thresholds: int, n_examples: int
) -> None:
    clock = [0.0]

    class TimedStatistics(write_cost.SweepStatistics):
        """Statistics that take 3 µs a threshold and example, and 2 µs for each group."""

        def __init__(self, sweep: PreparedSweep, sweep_state: SweepState) -> None:
            super().__init__(sweep, sweep_state)
            n_cells = sum(len(one.label) for one in self.statistics) * len(sweep_state.thresholds)
            clock[0] += n_cells * (3e-6 + 2e-6 * len(self.statistics[0].plan.group_sizes))

    monkeypatch.setattr(write_cost, "SweepStatistics", TimedStatistics)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    flags = [f"--model_dir={kind}", "--num_monte_carlo=100", "--state_limit_gb=1000"]
    ood_flags = ["--ood_dataset=digits"] if ood and kind == "fake" and n_examples > 20 else []
    sweep = sweep_of(n_thresholds, *flags, *ood_flags, n_examples=n_examples)
    found = WriteCost.measure(sweep)
    file_s = sweep.network.task.bytes_per_cell / BYTES_PER_S
    assert found.cell_s - file_s == pytest.approx(
        3e-6 + 2e-6
    )  # with one group that is always there
    assert found.group_s - file_s == pytest.approx(2e-6)
    n_all = sum(map(len, sweep.datasets)) * n_thresholds
    whole = found.seconds(sweep, [sweep_state(n_thresholds, 0, len(sweep.plan.replicates))])
    assert whole == pytest.approx(n_all * (found.cell_s + 20 * found.group_s))


def test_a_file_grows_with_groups_of_draws_and_then_no_more() -> None:
    sweep, cost = sweep_of(3, "--model_dir=fake", "--num_monte_carlo=200"), WriteCost(2.0, 0.5)
    for n_replicates, n_more, n_groups in ((0, 1, 1), (1, 2, 3), (19, 5, 20), (60, 0, 20)):
        found = cost.seconds(sweep, [sweep_state(3, 0, n_replicates)], n_more)
        assert found == pytest.approx(3 * 45 * (2.0 + 0.5 * n_groups))
    behind = SweepState((1,), 0, 0)  # a threshold that is caught up: what is more is drawn for it
    both = cost.seconds(sweep, [SweepState((0, 2), 0, 30), behind], 4)
    assert both == pytest.approx(45 * (2 * (2.0 + 0.5 * 20) + (2.0 + 0.5 * 4)))


def test_finished_examples_are_written_too_and_ends_of_passes_take_time() -> None:
    flags = ["--model_dir=fake", "--num_monte_carlo=20", "--batch_size=10", "--state_limit_gb=1e-9"]
    sweep, cost = sweep_of(3, *flags), WriteCost(2.0, 0.5)
    assert [len(block) for block in sweep.plan.blocks] == [10, 10, 10, 10, 5]
    full = 2.0 + 0.5 * 10
    assert cost.seconds(sweep, [sweep_state(3, 0, 10)]) == pytest.approx(3 * 10 * full)
    assert cost.seconds(sweep, [sweep_state(3, 2, 0)], 10) == pytest.approx(
        3 * (20 + 2 * 10) * full
    )
    assert cost.seconds(sweep, [sweep_state(3, 5, 0)]) == pytest.approx(3 * 45 * full)


@pytest.mark.parametrize("flags", [
    ["--model_dir=fake"], ["--model_dir=fake", "--ood_dataset=digits", "--save_probabilities"],
    ["--model_dir=fake:regression"], ["--model_dir=fake", "--num_monte_carlo=2"],
    ["--model_dir=fake", "--batch_size=10", "--state_limit_gb=1e-9"],
])  # fmt: skip
def test_it_can_be_measured_of_any_sweep(flags: list[str]) -> None:
    cost: Any = WriteCost.measure(sweep_of(7, *flags))
    assert cost.cell_s > 0 and cost.group_s > 0
