"""Whether 95 % intervals made of the standard errors hold the truth as often as they say.

A synthetic classifier, whose draws cost nothing: 200 repetitions with other draws (Monte Carlo
error) or other test examples (test-set error), against many draws or a large population. The
quantiles are Student's, with as many degrees of freedom as groups less one.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from bprune_hpc.accumulators.classification import GroupSums, Predictions, bytes_per_cell
from bprune_hpc.metrics.classification import Statistics
from bprune_hpc.metrics.definitions import CLASSIFICATION
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.ood import ood_metrics
from bprune_hpc.posterior.draws import MEAN, group_of
from bprune_hpc.runner.work_split import make_plan
from tests.helpers.coverage import coverage

N_CLASSES, N_FACTORS, N_REPEATS = 5, 6, 200
SMOOTH = {name for name, definition in CLASSIFICATION.items() if definition.is_corrected}


class Population:
    """Examples whose logits are a function of a few Gaussian factors, at two thresholds."""

    def __init__(self, n_examples: int, seed: int = 0, spread: float = 2.0) -> None:
        generator = np.random.default_rng(seed)
        self.centre = generator.normal(0, spread, (2, n_examples, N_CLASSES))
        self.centre[1] = 0.8 * self.centre[0] + 0.3 * self.centre[1]
        shape = (2, n_examples, N_CLASSES, N_FACTORS)
        self.loading = 0.7 * generator.normal(0, 1, shape)
        chance = special.softmax(self.centre[0], axis=1).cumsum(axis=1)
        self.label = (generator.random((n_examples, 1)) > chance).sum(axis=1)

    def statistics(self, rows: np.ndarray, n_draws: int, seed: int) -> Statistics:
        """Statistics of some examples, as a sweep would find them; the seed is the draws'."""
        plan = make_plan(
            n_draws=n_draws, pairing="antithetic", n_thresholds=2, n_examples=len(rows),
            bytes_per_cell=bytes_per_cell(N_CLASSES), batch_size=10_000,
            limit_bytes=1e12,
        )  # fmt: skip
        generator = np.random.default_rng(seed)
        label = self.label[rows]
        groups = (MEAN, *range(len(plan.group_sizes)))
        sums = {group: GroupSums(2, len(rows), N_CLASSES) for group in groups}

        def add(group: int, factors: np.ndarray, sign: int) -> None:
            linear = self.loading[:, rows] @ (sign * factors)
            curved = 0.1 * ((self.loading[:, rows] @ factors) ** 2 - 1)
            logits = (self.centre[:, rows] + linear + curved).astype(np.float32)
            for t in range(2):
                sums[group].add(t, slice(None), Predictions.from_logits(logits[t].T[None], label))

        add(MEAN, np.zeros(N_FACTORS), 0)
        for unit, draws in enumerate(plan.replicates):
            factors = generator.normal(size=N_FACTORS)
            for draw in draws:
                add(group_of(unit), factors, draw.sign)
        statistics = Statistics(plan)
        statistics.add_block(sums, label)
        return statistics

    def metrics(self, rows: np.ndarray, n_draws: int, seed: int) -> dict[str, Metric]:
        """Metrics of the same."""
        return self.statistics(rows, n_draws, seed).metrics()


def check(found: dict[str, float], lowest_of_steps: float) -> None:
    for name, share in found.items():
        if name in SMOOTH:
            assert 0.90 <= share <= 0.99, (name, share)
        else:
            assert share >= lowest_of_steps, (name, share)


def test_monte_carlo_errors() -> None:
    population, other = Population(200), Population(100, seed=1, spread=0.8)

    def metrics(n_draws: int, seed: int) -> dict[str, Metric]:
        test = population.statistics(np.arange(200), n_draws, seed)
        of_other = other.statistics(np.arange(100), n_draws, seed)
        sizes = test.plan.group_sizes
        return test.metrics() | ood_metrics(test.scores(), of_other.scores(), sizes)

    truth = metrics(20_000, seed=1)
    repeats = [metrics(100, seed=100 + k) for k in range(N_REPEATS)]
    found = coverage(repeats, truth, "se", stats.t.ppf(0.975, 19))
    print("\n".join(f"{name} {share:.3f}" for name, share in sorted(found.items())))
    check(found, 0.80)


def test_test_set_errors() -> None:
    population = Population(20_000)
    truth = population.metrics(np.arange(20_000), 20, seed=1)
    generator = np.random.default_rng(2)
    repeats = [
        population.metrics(generator.choice(20_000, 400, replace=False), 20, seed=1)
        for _ in range(N_REPEATS)
    ]
    found = coverage(repeats, truth, "se_data", stats.t.ppf(0.975, 49))
    print("\n".join(f"{name} {share:.3f}" for name, share in sorted(found.items())))
    check(found, 0.80)


@pytest.mark.slow
def test_test_set_errors_of_other_examples() -> None:
    # As many of each in a sample as in the whole: AUPR depends on their ratio.
    population, other = Population(20_000), Population(20_000, seed=1, spread=0.8)

    def metrics(rows: np.ndarray, rows_of_other: np.ndarray) -> dict[str, Metric]:
        test = population.statistics(rows, 20, seed=1)
        of_other = other.statistics(rows_of_other, 20, seed=1)
        return ood_metrics(test.scores(), of_other.scores(), test.plan.group_sizes)

    truth = metrics(np.arange(20_000), np.arange(20_000))
    generator = np.random.default_rng(5)
    repeats = [
        metrics(*(generator.choice(20_000, 400, replace=False) for _ in range(2)))
        for _ in range(N_REPEATS)
    ]
    found = coverage(repeats, truth, "se_data", stats.t.ppf(0.975, 49))
    print("\n".join(f"{name} {share:.3f}" for name, share in sorted(found.items())))
    assert len(found) == 8
    check(found, 0.80)
