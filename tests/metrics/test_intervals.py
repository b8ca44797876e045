"""Intervals against statsmodels' formulas written out, and against what they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from bprune_hpc.metrics import intervals

T = stats.norm.isf(0.025)


def ends(interval: intervals.Interval) -> list[float]:
    return [float(np.asarray(end)) for end in interval]


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (3, 7), (180, 200), (1, 1)])
def test_a_share_without_draws_is_wilsons(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    found = ends(intervals.of_share(np.float64(k / n), n, np.float64(0), np.float64(T)))
    assert found == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_a_share_with_draws_solves_both_variances() -> None:
    share, n, variance, t = 0.93, 150, 0.02**2, 2.1

    def away(p: float) -> float:
        return (share - p) ** 2 - t * t * (p * (1 - p) / n + variance)

    expected = [optimize.brentq(away, 0.5, share), optimize.brentq(away, share, 1.2)]
    found = ends(intervals.of_share(np.float64(share), n, np.float64(variance), np.float64(t)))
    assert found == pytest.approx([expected[0], min(expected[1], 1)])
    wider = ends(intervals.of_share(np.float64(1), n, np.float64(variance), np.float64(t)))
    assert (
        wider[1] == 1
        and wider[0] < ends(intervals.of_share(np.float64(1), n, np.float64(0), np.float64(t)))[0]
    )


def test_a_paired_difference_is_that_of_bonett_and_price() -> None:
    n, lost, won = 100, 5, 2
    p12, p21 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = T * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    found = ends(
        intervals.of_share_difference(
            np.float64(lost - won), np.float64(lost + won), n, np.float64(0), np.float64(T)
        )
    )
    assert found == pytest.approx([p12 - p21 - half, p12 - p21 + half])
    none = ends(intervals.of_share_difference(*np.zeros(2), n, np.float64(0), np.float64(T)))
    assert none == pytest.approx([-0.0272, 0.0272], abs=1e-4)  # no example changed: no proof


def test_paired_shares_hold_where_few_examples_change() -> None:
    """The case that errors of zero width hold in half of the test sets."""
    generator = np.random.default_rng(0)
    n, lost, won = 100, 0.004, 0.002
    counts = generator.multinomial(n, [lost, won, 1 - lost - won], 4000)
    total, squares = counts[:, 0] - counts[:, 1], counts[:, 0] + counts[:, 1]
    low, high = intervals.of_share_difference(total, squares, n, np.zeros(4000), np.full(4000, T))
    held = ((low <= lost - won) & (lost - won <= high)).mean()
    assert held > 0.95
    assert (squares == 0).mean() > 0.4  # which are all alike, 0 ± 0 by their standard error


def test_a_mean_reaches_further_on_the_side_of_its_tail() -> None:
    one, of_both, of_data = np.float64(1), np.float64(9), np.float64(4)
    for lean in (0.3, -0.3, 0.0):
        low, high = ends(intervals.of_mean(one, of_both, of_data, np.float64(lean), one))
        further = abs(lean) * 4**1.5 / 9 * (1 + 2) / 6 + abs(lean) * 2  # skewness, and one more
        assert low == pytest.approx(-2 - (further if lean < 0 else 0))
        assert high == pytest.approx(4 + (further if lean > 0 else 0))


def test_a_mean_of_few_equal_losses_reaches_about_as_far_as_their_exact_number() -> None:
    """Of many examples k lose 1 and the others nothing: the upper end is near Garwood's."""
    for k in (1, 2, 4, 10, 30):
        number = np.float64(k)
        _, high = ends(intervals.of_mean(number, number, number, 1 / np.sqrt(number), T))
        assert high == pytest.approx(stats.chi2.isf(0.025, 2 * (k + 1)) / 2, rel=0.03)


def test_few_events() -> None:
    """Poisson counts over a unit of 1: Garwood's exact interval; none at all has an upper end."""
    for k in (1, 4, 30):
        low, high = ends(intervals.of_positive(np.float64(k), np.float64(k), 1.0, np.float64(T)))
        exact = stats.chi2.isf(0.025, 2 * (k + 1)) / 2
        assert high == pytest.approx(exact, rel=0.01) and 0 <= low < k
    none = ends(intervals.of_positive(np.float64(0), np.float64(0), 0.01, np.float64(T)))
    assert none == [0, pytest.approx(-0.01 * np.log(0.025), rel=0.01)]


def test_events_of_unknown_error_have_neither_end() -> None:
    for value in (0.0, 0.3):
        ends_of_one_pair = intervals.of_positive(np.array([value]), np.array([np.nan]), 0.1, T)
        assert np.isnan(ends_of_one_pair).all()


def test_what_agrees_everywhere_may_be_wrong_as_often_as_a_share_of_none() -> None:
    nothing, bias = np.zeros(1), (np.array([1e-8]), np.array([2e-8]))
    low, high = intervals.of_biased(nothing, nothing, bias, 30, np.array([T]))
    assert low == 0
    assert high == pytest.approx(stats.binomtest(0, 30).proportion_ci(method="wilson").high)


def test_differences_of_uncorrelated_and_of_equal_numbers() -> None:
    value = np.array([0.7, 0.8])
    interval = value - np.array([0.2, 0.1]), value + np.array([0.1, 0.15])
    low, high = intervals.of_difference(value, interval, np.zeros(2), 1.0)
    assert (low[0], high[0]) == (0, 0)  # of the first to itself
    assert low[1] == pytest.approx(0.1 - np.hypot(0.1, 0.1))
    assert high[1] == pytest.approx(0.1 + np.hypot(0.15, 0.2))
    same = intervals.of_difference(value, (value - 0.1, value + 0.1), np.ones(2), -1.0)
    np.testing.assert_allclose(same, [[0, -0.1], [0, -0.1]], atol=1e-8)


def test_degrees_of_freedom_are_welchs() -> None:
    found = intervals.freedom_of_sum(np.array([4.0, 0, 4, 0]), 19, np.array([9.0, 9, 0, 0]), 99)
    expected = (4 + 9) ** 2 / (4**2 / 19 + 9**2 / 99)
    np.testing.assert_allclose(found, [expected, 99, 19, 99])
