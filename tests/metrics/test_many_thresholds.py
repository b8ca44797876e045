"""What thousands of thresholds cost, in calls of functions: no busy machine changes those."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.results.contents import contents
from bprune_hpc.results.table import table
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.statistics import SweepStatistics
from bprune_hpc.runner.synthetic_state import fill
from tests.helpers import fake_problem


def n_calls(function: Callable[[], Any]) -> int:
    """Calls of functions, of Python's and others, that a call comes to."""
    number = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return number


def prepared(n_thresholds: int, *flags: str) -> Callable[[], Any]:
    """Statistics of a finished sweep, and the datasets made of them."""
    asked = sweep_config.parse(
        [f"--thresholds=0:2:{n_thresholds}", "--num_monte_carlo=12", "--output=x.h5", *flags]
    )
    sweep = fake_problem.prepared(asked)
    task, plan, label = sweep.network.task, sweep.plan, sweep.datasets[0].label
    n_examples = len(label)
    sums, draws = task.sums(1, n_examples, 2), task.draw_sums(1, len(plan.replicates[0]))
    rng = np.random.default_rng(0)
    outputs = rng.uniform(0.1, 2, (len(plan.replicates[0]), task.n_outputs, n_examples))
    of_group = [(0, draw) for draw in plan.replicates[0]]
    at = (0, slice(0, n_examples))
    task.add_up(outputs.astype(np.float32), label, of_group, at, {0: sums}, draws)
    sweep_state = SweepState(tuple(range(n_thresholds)))
    fill(sweep_state, sweep, [0] * n_thresholds, sums, sums, draws)

    def statistics() -> None:
        contents(sweep, SweepStatistics(sweep, sweep_state), {}, "complete")

    return statistics


@pytest.mark.parametrize(
    "flags",
    [
        ["--model_dir=fake", "--max_accuracy_drop=0.1"],
        ["--model_dir=fake", "--ood_dataset=digits"],
        ["--model_dir=fake:regression", "--max_nll_rise=0.1"],
    ],
)
def test_statistics_are_worked_out_for_all_thresholds_at_once(flags: list[str]) -> None:
    few, many = prepared(20, *flags), prepared(120, *flags)
    few()  # which loads what is loaded once
    assert n_calls(many) - n_calls(few) < 200 * 100  # so many for each threshold more


def test_the_table_works_errors_out_once_a_column() -> None:
    asked_for = []

    class Counted(Metric):
        @property
        def se_combined(self) -> np.ndarray:
            asked_for.append(len(self.value))
            return super().se_combined

    values = np.linspace(0.1, 0.9, 50)
    names = ("accuracy", "nll", "predictive_entropy", "expected_entropy", "mutual_information")
    metrics = {name: Counted(values, values, values) for name in names}
    text = table([f"{value:.4g}" for value in values], values, metrics)
    assert len(text.splitlines()) == 52
    assert asked_for == [50] * len(names)
