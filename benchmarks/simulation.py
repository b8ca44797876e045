"""Made-up networks whose draws cost nothing, and what statistics of them find.

Examples of a large population are given classes, or numbers, by functions of a few Gaussian
factors, which are the draws. Test sets and draws can be taken anew as often as is wanted, and what
infinitely many of both give is known closely. NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bprune_hpc.accumulators.classification import GroupSums, Predictions, bytes_per_cell
from bprune_hpc.accumulators.regression import MOMENTS, expected_distance
from bprune_hpc.metrics.classification import Statistics
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.ood import ood_metrics
from bprune_hpc.metrics.regression import RegressionStatistics
from bprune_hpc.posterior.draws import MEAN, group_of
from bprune_hpc.runner.work_split import Plan, make_plan

N_CLASSES, N_FACTORS = 5, 6

CLASSES = {
    "uncertain": {"spread": 2.0, "loading": 0.7},
    "accurate": {"spread": 12.0, "loading": 0.8},
    "overconfident": {"spread": 9.0, "loading": 0.5, "temperature": 2.0, "mislabelled": 0.02},
}
"""Networks that classify: right in 64, 94 and 82 % without pruning; of the last one's errors many
cost several nats."""

NUMBERS = {
    "calibrated": {"noise": "normal"},
    "heavy tails": {"noise": "laplace"},
    "skewed": {"noise": "exponential"},
}
"""Networks of a regression, by the noise of the targets, which all take to be normal."""


@dataclass
class ClassPopulation:
    """A population of labelled examples and one of others, at several thresholds.

    Attributes
    ----------
    spread, temperature, mislabelled : float
        Of the logits; what they are divided by in the labels' distribution; share of labels at
        random.
    loading : float
        Of the draws on the logits.
    """

    spread: float
    loading: float
    temperature: float = 1.0
    mislabelled: float = 0.0
    n_examples: int = 20_000
    n_thresholds: int = 2

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        shape = (self.n_thresholds, self.n_examples, N_CLASSES)
        step = generator.normal(0, self.spread, shape)
        step[1:] *= 0.3 / np.sqrt(max(self.n_thresholds - 1, 1))
        share = 0.2 / max(self.n_thresholds - 1, 1)
        fade = 1 - share * np.arange(self.n_thresholds)
        self._centre = step.cumsum(axis=0) * fade[:, None, None]
        loading = generator.normal(0, 1, (*shape, N_FACTORS))
        loading[1:] = np.sqrt(0.7) * loading[:1] + np.sqrt(0.3) * loading[1:]
        self._loading = self.loading * loading
        chance = special.softmax(self._centre[0] / self.temperature, axis=1)
        chance = (1 - self.mislabelled) * chance + self.mislabelled / N_CLASSES
        chosen = generator.random((self.n_examples, 1)) > chance.cumsum(axis=1)
        self._label = chosen.sum(axis=1).clip(0, N_CLASSES - 1)

    def statistics(self, rows: np.ndarray, n_draws: int, seed: int) -> Statistics:
        """Statistics of some examples with draws of a seed, as of a sweep."""
        plan = make_plan(
            n_draws=n_draws, pairing="antithetic", n_thresholds=self.n_thresholds,
            n_examples=len(rows), bytes_per_cell=bytes_per_cell(N_CLASSES), batch_size=10_000,
            limit_bytes=1e12,
        )  # fmt: skip
        factors = np.random.default_rng(seed).normal(size=(n_draws // 2, N_FACTORS))
        label, shape = self._label[rows], (self.n_thresholds, len(rows), N_CLASSES)
        n_groups = len(plan.group_sizes)
        sums = {group: GroupSums(*shape) for group in (MEAN, *range(n_groups))}
        for t in range(self.n_thresholds):
            centre = self._centre[t, rows].T
            loading = self._loading[t, rows].transpose(1, 0, 2)

            def add(group: int, logits: np.ndarray, t: int = t) -> None:
                found = Predictions.from_logits(logits.astype(np.float32), label)
                sums[group].add(t, slice(None), found)

            add(MEAN, centre[None])
            for pair in range(0, len(factors), n_groups * 8):
                for group in range(n_groups):
                    some = factors[pair + group : pair + n_groups * 8 : n_groups]
                    if len(some):
                        linear = np.tensordot(some, loading, axes=(1, 2))
                        curved = centre + 0.1 * (linear**2 - 1)
                        add(group, np.concatenate([curved + linear, curved - linear]))
        statistics = Statistics(plan)
        statistics.add_block(sums, label)
        return statistics


@dataclass
class Classifier:
    """A classifier's metrics, those of telling other examples from the test set among them.

    Attributes
    ----------
    name : str
        One of :data:`CLASSES`.
    """

    name: str
    n_examples: int = 20_000
    n_thresholds: int = 2
    n_draws: int = 100

    def __post_init__(self) -> None:
        size = {"n_examples": self.n_examples, "n_thresholds": self.n_thresholds}
        self._test = ClassPopulation(**CLASSES[self.name], **size)  # type: ignore[arg-type]
        self._other = ClassPopulation(spread=0.8, loading=0.7, **size)

    def metrics_of_test(
        self, n: int | None, seed: int, n_draws: int | None = None
    ) -> dict[str, Metric]:
        """As :meth:`metrics`, without other examples."""
        rows = self._rows(n, np.random.default_rng(seed))
        return self._test.statistics(rows, n_draws or self.n_draws, seed + 1).metrics()

    def metrics(self, n: int | None, seed: int, n_draws: int | None = None) -> dict[str, Metric]:
        """Of ``n`` examples drawn anew (None: all of the population), with draws of their own."""
        generator = np.random.default_rng(seed)
        pair = [self._rows(n, generator), self._rows(n, generator)]
        n_draws = n_draws or self.n_draws
        test = self._test.statistics(pair[0], n_draws, seed + 1)
        other = self._other.statistics(pair[1], n_draws, seed + 1)
        sizes = test.plan.group_sizes
        return test.metrics() | ood_metrics(test.scores(), other.scores(), sizes)

    def metrics_of_one_set(self, n: int, seed: int, n_draws: int) -> dict[str, Metric]:
        """Of the first ``n`` examples, with draws of the seed: Monte Carlo errors alone."""
        return self._test.statistics(np.arange(n), n_draws, seed).metrics()

    def _rows(self, n: int | None, generator: np.random.Generator) -> np.ndarray:
        everything = np.arange(self.n_examples)
        return everything if n is None else generator.choice(everything, n)


class _FloatSums:
    """Sums of a group's Normals, in floating point: what ``GroupValues`` asks for."""

    n_targets = 1

    def __init__(self, moments: np.ndarray) -> None:
        self._moments = moments
        self.sums = self

    def value(self) -> np.ndarray:
        return self._moments

    def log(self, index: Any) -> np.ndarray:
        found: np.ndarray = np.log(self._moments[index])
        return found


@dataclass
class Regressor:
    """A regression's metrics.

    Attributes
    ----------
    name : str
        One of :data:`NUMBERS`.
    """

    name: str
    n_examples: int = 20_000
    n_thresholds: int = 2
    n_draws: int = 100

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        shape = (self.n_thresholds, self.n_examples)
        self._centre = generator.normal(0, 1, shape)
        self._centre[1:] = 0.9 * self._centre[0] + 0.2 * self._centre[1:]
        self._loading = generator.normal(0, 0.25, (*shape, N_FACTORS))
        noise = {
            "normal": lambda: generator.normal(0, 0.8, self.n_examples),
            "laplace": lambda: generator.laplace(0, 0.55, self.n_examples),
            "exponential": lambda: generator.exponential(0.8, self.n_examples) - 0.8,
        }[str(NUMBERS[self.name]["noise"])]
        self._target = self._centre[0] + noise()

    def metrics(self, n: int | None, seed: int, n_draws: int | None = None) -> dict[str, Metric]:
        """Of ``n`` examples drawn anew (None: all of the population), with draws of their own."""
        generator = np.random.default_rng(seed)
        rows = np.arange(self.n_examples)
        rows = rows if n is None else generator.choice(rows, n)
        plan = make_plan(
            n_draws=n_draws or self.n_draws, pairing="antithetic", n_thresholds=self.n_thresholds,
            n_examples=len(rows), bytes_per_cell=8, batch_size=10_000, limit_bytes=1e12,
            noises_per_replicate=2,
        )  # fmt: skip
        statistics = RegressionStatistics(plan)
        statistics.add_block(self._sums(plan, rows, generator), self._target[rows])  # type: ignore[arg-type]
        return statistics.metrics()

    def _sums(
        self, plan: Plan, rows: np.ndarray, generator: np.random.Generator
    ) -> dict[int, _FloatSums]:
        target, centre, loading = self._target[rows], self._centre[:, rows], self._loading[:, rows]
        shape = (self.n_thresholds, len(rows), len(MOMENTS))
        sums = {group: np.zeros(shape) for group in (MEAN, *range(len(plan.group_sizes)))}
        sums[MEAN] += self._moments(centre, np.full(centre.shape, 0.7), target)
        for index in range(len(plan.replicates)):
            factors = generator.normal(size=(2, N_FACTORS))
            linear = np.tensordot(factors, loading, axes=(1, 2))
            linear = np.stack([linear[0], -linear[0], linear[1], -linear[1]])
            loc = centre + linear + 0.15 * (linear**2 - 0.4)
            scale = 0.7 * np.exp(0.2 * np.sin(linear))
            moments = self._moments(loc, scale, target).sum(axis=0)
            for one in (0, 1):
                for other in (2, 3):
                    between = np.hypot(scale[one], scale[other])
                    moments[..., 5] += expected_distance(loc[one] - loc[other], between)
            sums[group_of(index)] += moments
        return {group: _FloatSums(moments) for group, moments in sums.items()}

    @staticmethod
    def _moments(loc: np.ndarray, scale: np.ndarray, target: np.ndarray) -> np.ndarray:
        error = loc - target
        density = np.exp(-0.5 * (error / scale) ** 2) / (scale * np.sqrt(2 * np.pi))
        columns = (
            error, error**2, scale**2, special.ndtr(-error / scale),
            expected_distance(error, scale), np.zeros(error.shape), density,
        )  # fmt: skip
        return np.stack(columns, axis=-1)
