"""Sums repeated to full size against sums to which the same was really added again and again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bprune_hpc.config import sweep_config
from bprune_hpc.evaluators.graph import GraphEvaluator
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.draws import MEAN
from bprune_hpc.runner.datasets import Part, lay_out
from bprune_hpc.runner.evaluation import evaluate
from bprune_hpc.runner.state import SweepState
from bprune_hpc.runner.statistics import SweepStatistics
from bprune_hpc.runner.synthetic_state import fill, repeated_labels
from bprune_hpc.runner.work_split import Partition
from tests.helpers import fake_problem

THRESHOLDS = (0.0, 0.5, 1.0)
KINDS = ("fake", "fake:regression")


def parts_of(kind: str) -> tuple[list[Part], list[pruning.Cut]]:
    asked = sweep_config.parse([f"--model_dir={kind}", "--num_monte_carlo=88", "--batch_size=10"])
    problem = fake_problem.problem(asked)
    cuts = pruning.cuts(problem.posterior, "threshold", THRESHOLDS)
    return lay_out(asked, problem, len(cuts)), cuts


def full(kind: str) -> tuple[list[Part], SweepState]:
    """A full sweep state whose sums are those of ten examples at two thresholds."""
    parts, cuts = parts_of(kind)
    plan, task = parts[0].plan, parts[0].problem.task
    draws = task.draw_sums(2, len(plan.units[0]))
    sums: dict = {}
    evaluate(
        GraphEvaluator(fake_problem.Network()), parts[0].problem, cuts[:2], plan,
        Partition((MEAN, 0), 2, 0, 4), range(10), sums, draws, {}, seed=0, advance=lambda n: None,
    )  # fmt: skip
    sweep_state = SweepState((0, 1, 2))
    fill(sweep_state, parts, [0, 1, 1], sums[MEAN], sums[0], draws)
    return parts, sweep_state


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_has_its_number_of_units(kind: str) -> None:
    (part, *_), sweep_state = full(kind)
    _, cuts = parts_of(kind)
    plan, task = part.plan, part.problem.task
    # The same unit once more for each that the group has, under numbers that follow.
    size, group = len(plan.units[0]), 3
    n_units = plan.group_sizes[group]
    units = tuple(
        tuple(replace(draw, index=draw.index + number * size) for draw in plan.units[0])
        for number in range(n_units)
    )
    sums: dict = {}
    evaluate(
        GraphEvaluator(fake_problem.Network()), part.problem, cuts[:2], replace(plan, units=units),
        Partition(tuple(range(n_units)), 2, 0, 2 * n_units), range(10), sums,
        task.draw_sums(2, size * n_units), {}, seed=0, advance=lambda n: None,
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
    parts, sweep_state = full(kind)
    plan = parts[0].plan
    assert sweep_state.progress == (0, len(plan.units))
    assert set(sweep_state.sums[0]) == {MEAN, *range(len(plan.group_sizes))}
    findings = SweepStatistics(repeated_labels(parts, 10), sweep_state, False)
    assert findings.n_draws == 88
    assert all(np.isfinite(metric.value).all() for metric in findings.metrics.values())
    assert findings.draw_sums.nll(45).shape == (3, 88)
