"""Sums repeated to full size against sums to which the same was really added again and again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.posterior.draws import MEAN
from bprune_hpc.runner import synthetic_state
from bprune_hpc.runner.evaluation import evaluate
from bprune_hpc.runner.preparation import PreparedSweep
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.statistics import SweepStatistics
from bprune_hpc.runner.synthetic_state import fill, repeated_labels
from bprune_hpc.runner.work_split import Partition
from tests.helpers import fake_problem

KINDS = ("fake", "fake:regression")


def full(kind: str) -> tuple[PreparedSweep, SweepState]:
    """A full sweep state whose sums are those of ten examples at two thresholds."""
    flags = [f"--model_dir={kind}", "--num_monte_carlo=88", "--batch_size=10"]
    sweep = fake_problem.prepared(sweep_config.parse([*flags, "--thresholds=0,0.5,1"]))
    draws = sweep.network.task.draw_sums(2, len(sweep.plan.replicates[0]))
    sums: dict = {}
    evaluate(
        sweep.evaluator, sweep.network, sweep.masks[:2], sweep.datasets[0],
        Partition((MEAN, 0), 2, 0, 4), range(10), sums, draws, {}, seed=0, advance=lambda n: None,
    )  # fmt: skip
    sweep_state = SweepState((0, 1, 2))
    fill(sweep_state, sweep, [0, 1, 1], sums[MEAN], sums[0], draws)
    return sweep, sweep_state


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_has_its_number_of_replicates(kind: str) -> None:
    sweep, sweep_state = full(kind)
    plan, task = sweep.plan, sweep.network.task
    # The same replicate once more for each that the group has, under numbers that follow.
    size, group = len(plan.replicates[0]), 3
    n_replicates = plan.group_sizes[group]
    replicates = tuple(
        tuple(replace(draw, index=draw.index + number * size) for draw in plan.replicates[0])
        for number in range(n_replicates)
    )
    sums: dict = {}
    evaluate(
        sweep.evaluator, sweep.network, sweep.masks[:2],
        replace(sweep.datasets[0], plan=replace(plan, replicates=replicates)),
        Partition(tuple(range(n_replicates)), 2, 0, 2 * n_replicates), range(10), sums,
        task.draw_sums(2, size * n_replicates), {}, seed=0, advance=lambda n: None,
    )  # fmt: skip
    filled = sweep_state.sums[0][group]
    rows = np.arange(45) % 10
    for row, like in enumerate([0, 1, 1]):
        if kind == "fake":
            by_adding = sum(one.packed[like] for one in sums.values())
            np.testing.assert_array_equal(filled.packed[row], by_adding[rows])
        else:
            by_adding = sum(one.sums.value()[like] for one in sums.values())
            np.testing.assert_allclose(filled.sums.value()[row], by_adding[rows], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_size_of_a_finished_one_and_finite_statistics(kind: str) -> None:
    sweep, sweep_state = full(kind)
    plan = sweep.plan
    assert sweep_state.progress == (0, len(plan.replicates))
    assert set(sweep_state.sums[0]) == {MEAN, *range(len(plan.group_sizes))}
    sweep_statistics = SweepStatistics(repeated_labels(sweep, 10), sweep_state)
    assert sweep_statistics.n_draws == 88
    assert all(np.isfinite(metric.value).all() for metric in sweep_statistics.metrics.values())
    assert sweep_statistics.draw_sums.nll(45).shape == (3, 88)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_more_examples_are_longer_along_these_alone(kind: str) -> None:
    sweep, sweep_state = full(kind)
    columns = SweepStatistics(sweep, sweep_state).statistics[0].columns()
    assert any(name.startswith("halves/") for name in columns)
    for name, column in columns.items():
        longer = synthetic_state._repeated_column(name, column, 90, 9)
        sizes = dict(zip(column.shape, longer.shape, strict=True))
        assert {number: sizes[number] for number in sizes if number in (45, 5)} in (
            {45: 90}, {5: 9},
        ), name  # fmt: skip
        assert all(new == old for old, new in sizes.items() if old not in (45, 5)), name
