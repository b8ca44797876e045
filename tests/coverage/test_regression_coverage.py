"""Whether 95 % intervals of a regression's metrics hold the truth as often as they say.

As in ``test_error_coverage``: 200 repetitions of a made-up regression with other draws,
against many draws, or with other test examples, against a large population.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from bprune_hpc.metrics.definitions import REGRESSION
from bprune_hpc.metrics.estimates import Metric
from tests.helpers.coverage import coverage
from tests.helpers.regression_case import Normals, plan_of

N_FACTORS, N_REPEATS = 6, 200


class Population:
    """Examples whose predicted means are functions of a few Gaussian factors, at two thresholds."""

    def __init__(self, n_examples: int) -> None:
        generator = np.random.default_rng(0)
        self.centre = generator.normal(0, 1, (2, n_examples))
        self.centre[1] = 0.9 * self.centre[0] + 0.2 * self.centre[1]
        self.loading = generator.normal(0, 0.25, (2, n_examples, N_FACTORS))
        self.target = self.centre[0] + generator.normal(0, 0.8, n_examples)

    def metrics(self, rows: np.ndarray, n_draws: int, seed: int) -> dict[str, Metric]:
        """Metrics of some of the examples, as a sweep would find them."""
        plan = plan_of(n_draws, 2, len(rows))
        generator = np.random.default_rng(seed)
        noise = generator.normal(size=(n_draws, N_FACTORS))
        draws = [draw for unit in plan.replicates for draw in unit]
        factors = np.stack([draw.sign * noise[draw.noise] for draw in draws])
        linear = np.einsum("tnf,sf->stn", self.loading[:, rows], factors)
        loc = self.centre[:, rows] + linear + 0.15 * (linear**2 - 0.4)
        scale = 0.7 * np.exp(0.2 * np.sin(linear))
        case = Normals(plan, self.target[rows], self.centre[:, rows], loc, scale)
        return case.statistics().metrics()


def check(found: dict[str, float]) -> None:
    print("\n".join(f"{name} {share:.3f}" for name, share in sorted(found.items())))
    for name, share in found.items():
        if REGRESSION[name].is_discrete:
            assert share >= 0.80, (name, share)
        elif not name.startswith("rmse_mean_weights"):
            assert 0.90 <= share <= 0.99, (name, share)


def test_monte_carlo_errors() -> None:
    population, rows = Population(100), np.arange(100)
    truth = population.metrics(rows, 8_000, seed=1)
    repeats = [population.metrics(rows, 80, seed=100 + k) for k in range(N_REPEATS)]
    check(coverage(repeats, truth, "se", stats.t.ppf(0.975, 19)))


def test_test_set_errors() -> None:
    population = Population(20_000)
    truth = population.metrics(np.arange(20_000), 20, seed=1)
    generator = np.random.default_rng(2)
    repeats = [
        population.metrics(generator.choice(20_000, 400, replace=False), 20, seed=1)
        for _ in range(N_REPEATS)
    ]
    check(coverage(repeats, truth, "se_data", stats.norm.ppf(0.975)))
