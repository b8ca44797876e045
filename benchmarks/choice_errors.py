"""How often a choice is wrong, and how often it sees what is there, by either test.

    python benchmarks/choice_errors.py
    python -m benchmarks.choice_errors --repeats 1000

Made-up test sets whose true cost is the limit (a pass is an error) or below it (a pass is power).
Each is tested once; a fixed sequence of thresholds is wrong no more often than that. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from bprune_hpc.metrics import exact_tests
from bprune_hpc.metrics.asymptotic_test import AsymptoticTest, skewness_of
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.threshold_selection import CostTest, ExactDropTest, ExactRiseTest

LEVEL, SOFTEN, N_CLASSES = 0.05, 0.01, 10
BOUND = exact_tests.largest_softened_rise(SOFTEN, N_CLASSES)
SEED = 0

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Rises of so many examples, or how many are lost and won."""


@dataclass(frozen=True)
class Case:
    """A distribution of test sets.

    Attributes
    ----------
    name : str
    n_examples : int
    limit : float
    draw : callable
    is_null : bool
        Whether the true cost is the limit or more.
    bound : float or None
        Of rises; None where examples are counted.
    """

    name: str
    n_examples: int
    limit: float
    draw: Draw
    is_null: bool
    bound: float | None = BOUND

    def tests(self, generator: np.random.Generator) -> tuple[CostTest, CostTest]:
        """A test set by the exact and by the asymptotic test, at its second threshold."""
        n, found = self.n_examples, self.draw(generator, self.n_examples)
        if self.bound is None:
            n_lost, n_won = np.array([0, found[0]]), np.array([0, found[1]])
            value = (n_lost - n_won) / n
            se = np.sqrt(((n_lost + n_won) / n - value**2) / (n - 1))
            exact: CostTest = ExactDropTest(n_lost, n_won, n, self.limit)
            return exact, self._asymptotic(value, se, 1.0, np.zeros(2))
        loss = np.stack([np.zeros(n), np.minimum(found, self.bound)])
        se = loss.std(axis=1, ddof=1) / np.sqrt(n)
        exact = ExactRiseTest(loss, self.bound, self.limit, SEED)
        return exact, self._asymptotic(loss.mean(axis=1), se, 0.0, skewness_of(loss))

    def _asymptotic(
        self, value: np.ndarray, se: np.ndarray, step: float, skewness: np.ndarray
    ) -> AsymptoticTest:
        found = Metric(value, np.zeros(2), se)
        return AsymptoticTest(found, self.limit, self.n_examples, 20, step, skewness)

    def passed(self, n_repeats: int, seed: int = 0) -> tuple[float, float]:
        """Shares of test sets that pass the exact, and the asymptotic, test."""
        generator = np.random.default_rng(seed)
        passed = np.zeros(2)
        for _ in range(n_repeats):
            exact, asymptotic = self.tests(generator)
            passed[0] += exact.p_value(1) <= LEVEL
            assert isinstance(asymptotic, AsymptoticTest)
            passed[1] += asymptotic.upper_bound(LEVEL)[1] < self.limit
        exact_share, asymptotic_share = passed / n_repeats
        return float(exact_share), float(asymptotic_share)


def rare_losses(loss: float, mean: float, sd: float = 0.02) -> Draw:
    """Rises N(0, sd), and a loss so rare that the mean is as given."""
    return lambda generator, n: (
        generator.normal(0, sd, n) + loss * (generator.random(n) < mean / loss)
    )


def normal(mean: float, sd: float) -> Draw:
    """Rises N(mean, sd)."""
    return lambda generator, n: generator.normal(mean, sd, n)


def lognormal(mean: float) -> Draw:
    """Rises of skewness 6."""
    return lambda generator, n: generator.lognormal(0, 1, n) * mean / np.exp(0.5)


def always(rise: float) -> Draw:
    """All examples rise alike."""
    return lambda generator, n: np.full(n, rise)


def by_class(draw: Draw) -> Draw:
    """The same examples, from the least rise to the largest, as a set sorted by class can be."""
    return lambda generator, n: np.sort(draw(generator, n))


def counts(lost: float, won: float) -> Draw:
    """Numbers lost and won, with those probabilities."""
    return lambda generator, n: generator.multinomial(n, [lost, won, 1 - lost - won])


@cache
def _digits_rises() -> np.ndarray:
    import bprune_hpc
    from bprune_hpc import data

    part = data.load("digits", split="test")
    network = bprune_hpc.load("embedded:digits_fc")
    losses = []
    for one in (network, network.prune(snr=0.5)):
        probability = one.predict(part.x, n_draws=200).mean_probability
        nll = -np.log(probability[np.arange(len(part.labels)), part.labels])
        losses.append(exact_tests.softened_nll(nll, SOFTEN, N_CLASSES))
    return losses[1] - losses[0]


def digits(mean: float) -> Draw:
    """The digits' own softened rises at SNR 0.5, drawn anew, shifted to a mean."""

    def draw(generator: np.random.Generator, n: int) -> np.ndarray:
        rises = _digits_rises()
        return generator.choice(rises, n) - rises.mean() + mean

    return draw


def _bound_of(loss: float) -> float:
    return max(BOUND, 1.02 * loss)


NULL_RISES = (
    *(
        Case(f"rare losses of {loss} nats", n, 0.02, rare_losses(loss, 0.02), True, _bound_of(loss))
        for loss in (5, 7, 15)
        for n in (359, 1000, 10_000)
    ),
    Case("rare losses of 0.5 nats", 1000, 0.02, rare_losses(0.5, 0.02), True),
    Case("rare losses of 6 nats", 100_000, 0.02, rare_losses(6, 0.02), True),
    *(
        Case("digits at SNR 0.5, shifted", n, limit, digits(limit), True, 2 * BOUND)
        for n, limit in ((100, 0.02), (359, 0.02), (1000, 0.02), (10_000, 0.02))
    ),
    Case("log-normal, skewness 6", 2000, 0.02, lognormal(0.02), True),
    Case("log-normal, skewness 6", 10_000, 0.05, lognormal(0.05), True),
    Case("normal, sd 0.1", 10_000, 0.02, normal(0.02, 0.1), True),
    Case("normal, sd 0.5", 10_000, 0.02, normal(0.02, 0.5), True),
    Case("the same, sorted", 5000, 0.02, by_class(normal(0.02, 0.5)), True),
    Case("rare losses of 5 nats, sorted", 5000, 0.02, by_class(rare_losses(5, 0.02)), True),
    Case("rare losses, few examples", 5, 0.5, rare_losses(5, 0.5), True),
    Case("rare losses, few examples", 20, 0.5, rare_losses(5, 0.5), True),
    Case("all alike, at the limit", 1000, 0.02, always(0.02), True),
    Case("all wrong", 1000, 0.02, always(BOUND), True),
)

NULL_DROPS = [
    (n, limit, won)
    for n, limit, shares in (
        (20, 0.2, (0.0, 0.02, 0.2)),
        (100, 0.05, (0.0, 0.002, 0.02, 0.3)),
        (359, 0.02, (0.0, 0.002, 0.02, 0.3)),
        (1000, 0.005, (0.0, 0.002, 0.02, 0.3)),
        (10_000, 0.005, (0.0, 0.002, 0.02, 0.3)),
        (100_000, 0.002, (0.0, 0.002, 0.02)),
    )
    for won in shares
]
"""Examples, limit, share won, where the true drop is the limit."""


def size_of_counts(n: int, limit: float, won: float) -> float:
    """Share of test sets that pass the exact test where the drop is the limit, to 1e-5.

    Without simulation: for each number won, up to how many lost the test passes.
    """
    far = 4.5 * np.sqrt(n * won * (1 - won)) + (10 if won else 0)
    numbers = np.arange(max(0, int(n * won - far)), min(n, int(n * won + far)) + 1)

    def passes(n_lost: int, n_won: int) -> bool:
        return n_lost < 0 or exact_tests.drop_p_value(n_lost, n_won, n, limit) <= LEVEL

    most_lost = []
    lost = int(numbers[0])  # hardly moves from one number won to the next
    for number in numbers:
        while passes(lost + 1, int(number)):
            lost += 1
        while not passes(lost, int(number)):
            lost -= 1
        most_lost.append(lost)
    of_rest = stats.binom.cdf(most_lost, n - numbers, (won + limit) / (1 - won))
    return float(stats.binom.pmf(numbers, n, won) @ of_rest)


POWER_RISES = (
    *(Case("identical networks", n, 0.02, always(0.0), False) for n in (1000, 1200)),
    *(Case("normal, sd 0.1", n, 0.02, normal(0.0, 0.1), False) for n in (1000, 1500, 3000)),
    *(
        Case("normal, mean 0.005, sd 0.3", n, 0.02, normal(0.005, 0.3), False)
        for n in (3000, 10_000)
    ),
    *(
        Case("rare losses of 5 nats, mean 0.005", n, 0.02, rare_losses(5, 0.005), False)
        for n in (2000, 5000, 10_000)
    ),
    *(
        Case("digits at SNR 0.5, shifted to 0", n, 0.05, digits(0.0), False, 2 * BOUND)
        for n in (500, 1000, 2000)
    ),
)

POWER_DROPS = tuple(
    Case(f"limit {limit:g}, {100 * lost:g} % lost, {100 * won:g} % won", n, limit,
         counts(lost, won), False, None)
    for n, limit, lost, won in (
        (359, 0.02, 0.0, 0.0),
        (359, 0.02, 0.003, 0.003),
        (1000, 0.01, 0.0, 0.0),
        (1000, 0.01, 0.003, 0.003),
        (1000, 0.02, 0.01, 0.01),
        (10_000, 0.005, 0.01, 0.01),
        (10_000, 0.01, 0.02, 0.015),
        (100_000, 0.002, 0.01, 0.01),
    )
)  # fmt: skip


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=4000, help="test sets (%(default)s)")
    n_repeats = parser.parse_args(argv).repeats
    for title, cases in (
        ("NLL, true rise at the limit: wrong", NULL_RISES),
        ("NLL, true rise below the limit: shown", POWER_RISES),
        ("accuracy, true drop below the limit: shown", POWER_DROPS),
    ):
        _print(f"| {title} | N | limit | exact | asymptotic |", "|---|---|---|---|---|")
        for case in cases:
            exact, asymptotic = (f"{100 * share:.1f} %" for share in case.passed(n_repeats))
            row = f"| {case.name} | {case.n_examples:,} | {case.limit:g} | {exact} | {asymptotic} |"
            _print(row)
        _print("")
    _print(
        "| accuracy, true drop at the limit: share won | N | limit | exact |", "|---|---|---|---|"
    )
    for n, limit, won in NULL_DROPS:
        size = f"{100 * size_of_counts(n, limit, won):.1f} %"
        _print(f"| {100 * won:g} % | {n:,} | {limit:g} | {size} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
