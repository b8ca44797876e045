"""Exact tests of a cost: all outcomes enumerated, bets by their definition, advice by trying it."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from scipy import optimize, special, stats

from bprune_hpc.metrics import exact_tests
from bprune_hpc.metrics.exact_tests import drop_p_value, rise_p_value

LEFT_OUT, ERROR = 1e-4, 1e-5


def score(lost: int, won: int, n: int, limit: float) -> float:
    """Score statistic, the likelihood maximised under the limit by a search."""

    def loss(share: float) -> float:
        return -float(
            stats.multinomial.logpmf(
                [lost, won, n - lost - won], n, [share + limit, share, 1 - 2 * share - limit]
            )
        )

    most = (1 - limit) / 2
    found = optimize.minimize_scalar(loss, bounds=(0, most), options={"xatol": 1e-12})
    share = min((0.0, most, float(found.x)), key=loss)
    return (lost - won - n * limit) / math.sqrt(n * (2 * share + limit - limit**2))


def outcomes(n: int) -> list[tuple[int, int]]:
    return [(lost, won) for lost in range(n + 1) for won in range(n + 1 - lost)]


@pytest.mark.parametrize(("n", "limit"), [(1, 0.5), (7, 0.3), (12, 0.1), (20, 0.2)])
def test_p_values_against_all_outcomes_enumerated(n: int, limit: float) -> None:
    everything = outcomes(n)
    statistic = np.array([score(lost, won, n, limit) for lost, won in everything])
    counts = np.array([(lost, won, n - lost - won) for lost, won in everything])
    log_ways = special.gammaln(n + 1) - special.gammaln(counts + 1).sum(axis=1)
    for (lost, won), found in zip(everything, statistic, strict=True):
        p_value = drop_p_value(lost, won, n, limit)
        if lost - won >= n * limit:
            assert p_value == 1
            continue
        low = stats.beta.ppf(LEFT_OUT / 2, won, n - won + 1) if won else 0.0
        high = stats.beta.ppf(1 - LEFT_OUT / 2, won + 1, n - won) if won < n else 1.0
        q = np.linspace(*np.minimum([low, high], (1 - limit) / 2), 300)
        chances = np.stack([q + limit, q, np.maximum(1 - 2 * q - limit, 0)])
        chance = np.exp(log_ways + special.xlogy(counts, chances.T[:, None]).sum(axis=2))
        is_extreme = statistic <= found + 1e-6
        by_hand = float((chance @ is_extreme).max()) + LEFT_OUT
        # By hand the maximum is looked for on a coarser grid.
        assert p_value == pytest.approx(by_hand + ERROR, abs=2e-5), (lost, won)
        assert p_value >= by_hand


@pytest.mark.parametrize(("n", "limit"), [(5, 0.3), (15, 0.2), (30, 0.1), (60, 0.05)])
def test_its_size_is_its_level_under_any_truth(n: int, limit: float) -> None:
    everything = outcomes(n)
    p_values = np.array([drop_p_value(lost, won, n, limit) for lost, won in everything])
    counts = np.array([(lost, won, n - lost - won) for lost, won in everything])
    for level in (0.01, 0.05, 0.1):
        passed = counts[p_values <= level]
        for more in (0.0, 0.01, 0.1):
            most = (1 - limit - more) / 2
            for won in np.linspace(0, most, 40) if len(passed) else ():
                lost = won + limit + more
                truth = [lost, won, max(1 - lost - won, 0)]
                size = stats.multinomial.pmf(passed, n, truth).sum()
                assert size <= level, (level, more, won)


def test_no_example_moved_is_the_binomial_test() -> None:
    for n, limit in ((58, 0.05), (298, 0.01), (2990, 0.001)):
        by_hand = (1 - limit) ** n + LEFT_OUT + ERROR
        assert drop_p_value(0, 0, n, limit) == pytest.approx(by_hand, rel=1e-6)
    assert exact_tests.fewest_for_drop(0.05, 0.01) == 299
    for level, limit in ((0.05, 0.01), (0.01, 0.02), (0.005, 0.3)):
        fewest = exact_tests.fewest_for_drop(level, limit)
        assert fewest is not None
        assert drop_p_value(0, 0, fewest, limit) <= level < drop_p_value(0, 0, fewest - 1, limit)


def test_more_lost_or_fewer_won_is_less_significant() -> None:
    n, limit = 400, 0.03
    for won in (0, 3, 20):
        found = [drop_p_value(lost, won, n, limit) for lost in range(0, won + 12)]
        assert all(one <= other + 1e-9 for one, other in pairwise(found))
    assert drop_p_value(n, 0, n, limit) == 1


def test_many_examples_against_the_normal_distribution() -> None:
    n, lost, won, limit = 100_000, 25_300, 25_000, 0.005
    z = (lost - won - n * limit) / math.sqrt(lost + won - (lost - won) ** 2 / n)
    assert drop_p_value(lost, won, n, limit) == pytest.approx(stats.norm.cdf(z), rel=0.01)


@pytest.mark.parametrize("counts", [(0, 0), (400, 300), (25_000, 24_700), (33_000, 32_900)])
def test_a_hundred_thousand_examples_take_milliseconds(counts: tuple[int, int]) -> None:
    drop_p_value(1, 1, 100, 0.05)
    seconds = []
    for more in range(3):
        started = time.process_time()
        drop_p_value(counts[0], counts[1] + more, 100_000, 0.005)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05


def test_the_polynomial_is_right_between_its_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (0, 0, 359, 0.01),
        (3, 1, 359, 0.02),
        (120, 100, 10_000, 0.005),
        (4000, 3900, 10**5, 0.002),
    ]
    found = [drop_p_value(*case) for case in cases]
    monkeypatch.setattr(exact_tests, "_DEGREE", 70)
    drop_p_value.cache_clear()
    assert [drop_p_value(*case) for case in cases] == pytest.approx(found, abs=1e-6)
    drop_p_value.cache_clear()


def capital_by_hand(rises: np.ndarray, bound: float, limit: float) -> float:
    """One bet after the other, as it is written."""
    capital, seen = 1.0, []
    total_of_squares = bound * limit
    for at, rise in enumerate(rises):
        variance = total_of_squares / (at + 1)
        stake = min(
            math.sqrt(2 * math.log(1 / 0.05) / (len(rises) * variance)), 0.9 / (bound - limit)
        )
        capital *= 1 + stake * (limit - rise)
        mean = sum(seen) / (at + 1)
        total_of_squares += (rise - mean) ** 2
        seen.append(float(rise))
    return capital


@pytest.mark.parametrize(("n", "limit"), [(1, 0.1), (2, 1.0), (300, 0.1), (300, 0.5)])
def test_bets_against_their_definition_step_by_step(n: int, limit: float) -> None:
    generator = np.random.default_rng(n)
    for mean in (0.0, limit, 2 * limit):
        rises = np.minimum(generator.normal(mean, 0.4, n), 2.0)
        orders = list(exact_tests.orders(7, n))
        assert len(orders) == 20
        capital = np.mean([capital_by_hand(rises[order], 2.0, limit) for order in orders])
        assert rise_p_value(rises, 2.0, limit, 7) == pytest.approx(min(1, 1 / capital), rel=1e-9)


def test_orders_are_a_function_of_seed_and_number_alone() -> None:
    one, again = (list(exact_tests.orders(3, 50)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert all(sorted(order) == list(range(50)) for order in one)
    assert len({tuple(order) for order in one}) == 20
    others = [next(exact_tests.orders(4, 50)), next(exact_tests.orders(3, 51))[:50]]
    assert all((one[0] != other).any() for other in others)
    # They stay what they are: a claim can be made again.
    assert one[0][:6].tolist() == FIRST_OF_ORDER


FIRST_OF_ORDER = [21, 12, 36, 13, 40, 2]


def test_capital_of_fair_bets_is_one_on_average() -> None:
    """All test sets of four examples with two values, whose mean is the limit, enumerated."""
    bound, limit, chance = 2.0, 0.5, 0.3
    low = (limit - chance * bound) / (1 - chance)
    total = 0.0
    for code in range(2**4):
        is_high = np.array([code >> bit & 1 for bit in range(4)], bool)
        weight = np.prod(np.where(is_high, chance, 1 - chance))
        capital = np.exp(
            [
                exact_tests._log_capital(np.where(is_high, bound, low)[order], bound, limit)
                for order in exact_tests.orders(0, 4)
            ]
        ).mean()
        total += weight * capital
    assert total == pytest.approx(1)


def test_the_order_of_a_file_hardly_matters() -> None:
    generator = np.random.default_rng(0)
    rises = generator.normal(0.02, 0.5, 5000)
    found = [rise_p_value(values, 7.0, 0.05, 0) for values in (rises, np.sort(rises))]
    assert 0.5 < found[0] / found[1] < 2


def test_what_no_rise_can_exceed() -> None:
    rises = np.full(10, 2.0)
    assert rise_p_value(rises, 2.0, 2.5, 0) == 0
    assert rise_p_value(rises, 2.0, 2.0, 0) == 1


def test_fewest_examples_are_the_fewest() -> None:
    for bound, limit, level in ((6.9, 0.02, 0.05), (2.0, 0.1, 0.05), (4.5, 0.05, 0.01)):
        n = exact_tests.fewest_for_rise(level, bound, limit)
        assert 3 < n * limit / bound < 5.5
        assert rise_p_value(np.zeros(n), bound, limit, 0) <= level
        assert rise_p_value(np.zeros(n - 1), bound, limit, 0) > level


@pytest.mark.parametrize(("lost", "won", "limit"), [(0.002, 0.002, 0.01), (0.01, 0.004, 0.02)])
def test_advice_on_counts_holds_nine_times_in_ten(lost: float, won: float, limit: float) -> None:
    few = 500
    n = exact_tests.examples_for_drop(round(lost * few), round(won * few), few, limit, 0.05)
    assert n is not None and n > few
    found = np.random.default_rng(0).multinomial(n, [lost, won, 1 - lost - won], 1000)
    passed = [drop_p_value(int(a), int(b), n, limit) <= 0.05 for a, b, _ in found]
    assert 0.85 < np.mean(passed) < 0.97
    assert exact_tests.examples_for_drop(20, 0, 500, 0.04, 0.05) is None


@pytest.mark.parametrize(("mean", "sd"), [(0.005, 0.1), (0.02, 0.3)])
def test_advice_on_rises_holds_nine_times_in_ten(mean: float, sd: float) -> None:
    generator, bound, limit = np.random.default_rng(1), 5.0, 0.05
    few = generator.normal(size=200)
    few = mean + sd * (few - few.mean()) / few.std()
    n = exact_tests.examples_for_rise(few, bound, limit, 0.05)
    assert n is not None and n > 200
    passed = [
        rise_p_value(generator.normal(mean, sd, n), bound, limit, k) <= 0.05 for k in range(300)
    ]
    assert 0.82 < np.mean(passed) < 0.98
    assert exact_tests.examples_for_rise(few + limit, bound, limit, 0.05) is None


def test_a_softened_predictive() -> None:
    probability = np.array([1.0, 0.5, 0.0])
    nll = np.array([0.0, math.log(2), 104.0])
    found = exact_tests.softened_nll(nll, 0.1, 4)
    np.testing.assert_allclose(found, -np.log(0.9 * probability + 0.025), rtol=1e-12)
    assert found[2] - found[0] == pytest.approx(exact_tests.largest_softened_rise(0.1, 4))
