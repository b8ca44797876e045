from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc.metrics.jackknife import jackknife, with_correction


def groups_of(values: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(values, np.cumsum(sizes)[:-1])


def deleted(values: np.ndarray, sizes: list[int], statistic) -> np.ndarray:  # type: ignore[no-untyped-def]
    parts = groups_of(values, sizes)
    return np.array(
        [statistic(np.concatenate(parts[:j] + parts[j + 1 :])) for j in range(len(sizes))]
    )


def test_for_a_mean_it_is_the_classical_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30)
    sizes = [1] * 30
    corrected, se = jackknife(np.float64(values.mean()), deleted(values, sizes, np.mean), sizes)
    assert corrected == pytest.approx(values.mean())
    assert se == pytest.approx(values.std(ddof=1) / np.sqrt(30))


def test_equal_groups_give_the_ordinary_formulas() -> None:
    values = np.random.default_rng(1).exponential(size=100)
    sizes = [5] * 20
    left_out = deleted(values, sizes, np.var)
    corrected, se = jackknife(np.float64(np.var(values)), left_out, sizes)
    assert corrected == pytest.approx(20 * np.var(values) - 19 * left_out.mean())
    assert se == pytest.approx(np.sqrt(19 / 20 * ((left_out - left_out.mean()) ** 2).sum()))


def test_bias_of_order_one_over_n_goes_away() -> None:
    # The variance with divisor n is biased by -1/n; the jackknife is exact with one replicate a
    # group.
    values = np.random.default_rng(2).normal(size=12)
    sizes = [1] * 12
    corrected, _ = jackknife(np.float64(np.var(values)), deleted(values, sizes, np.var), sizes)
    assert corrected == pytest.approx(np.var(values, ddof=1))


@pytest.mark.parametrize("sizes", [[3] * 20, [4] * 7 + [3] * 13, [2] * 5 + [1] * 15])
def test_intervals_cover_also_with_groups_of_unequal_size(sizes: list[int]) -> None:
    generator = np.random.default_rng(3)
    n, repeats, inside = sum(sizes), 2000, 0
    for _ in range(repeats):
        values = generator.exponential(size=n)
        theta = np.float64(np.log(values.mean()))
        corrected, se = jackknife(theta, deleted(values, sizes, lambda v: np.log(v.mean())), sizes)
        inside += abs(corrected) < 1.96 * se
    # 93 % is what 20 groups give with a normal quantile; 5 binomial standard errors around it.
    assert 0.93 - 5 * np.sqrt(0.93 * 0.07 / repeats) < inside / repeats < 0.97


def test_arrays_are_taken_element_by_element() -> None:
    values = np.random.default_rng(4).normal(size=(40, 3))
    sizes = [2] * 20
    parts = np.split(values, 20)
    left_out = np.array(
        [np.concatenate(parts[:j] + parts[j + 1 :]).mean(axis=0) for j in range(20)]
    )
    corrected, se = jackknife(values.mean(axis=0), left_out, sizes)
    for column in range(3):
        one = jackknife(np.float64(values[:, column].mean()), left_out[:, column], sizes)
        assert (corrected[column], se[column]) == pytest.approx(one)


def test_one_group_tells_nothing() -> None:
    corrected, se = jackknife(np.ones(2), np.ones((1, 2)), [5])
    assert np.isnan(corrected).all() and np.isnan(se).all()


def test_what_never_varies_has_an_error_of_exactly_zero() -> None:
    _, se = jackknife(np.full(1, 1 / 3), np.full((7, 1), 1 / 3), [3, 3, 3, 3, 3, 3, 2])
    assert se.tolist() == [0.0]


def test_where_nothing_differs_the_estimate_is_exact_and_has_no_error() -> None:
    estimate = np.array([0.1, 0.2])
    left_out = np.stack([estimate] * 7)
    left_out[3, 1] += 1e-3
    corrected, se = jackknife(estimate, left_out, [3] * 7)
    assert corrected[0] == estimate[0] and se[0] == 0
    with_it = with_correction(estimate, corrected, se)
    assert with_it[0] == 0 and with_it[1] == np.hypot(se[1], corrected[1] - 0.2) > se[1] > 0


def test_rare_large_terms_are_covered_better_with_the_correction_counted() -> None:
    """The entropy of a mean of draws, most of which say nothing: what a few draws decide."""
    generator = np.random.default_rng(6)
    n_replicates, n_groups, held = 100, 20, np.zeros(2)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p) + (1 - p) * np.log1p(-p))

    def draws(shape: tuple[int, ...]) -> np.ndarray:
        return 1e-6 + 0.9 * (generator.random(shape) < 0.02)

    truth = entropy(np.full(60, 1e-6 + 0.9 * 0.02)).mean()
    for _ in range(400):
        sums = draws((n_groups, n_replicates // n_groups, 60)).sum(axis=1)
        estimate = entropy(sums.sum(axis=0) / n_replicates).mean()
        size = n_replicates // n_groups
        left_out = entropy((sums.sum(axis=0) - sums) / (n_replicates - size)).mean(axis=1)
        corrected, se = jackknife(np.float64(estimate), left_out, [size] * n_groups)
        errors = np.array([se, with_correction(np.float64(estimate), corrected, se)])
        held += abs(corrected - truth) <= stats.t.ppf(0.975, n_groups - 1) * errors
    plain, counted = held / 400
    assert counted > plain and 0.9 <= counted <= 0.99, (plain, counted)
