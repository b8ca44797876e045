"""Balanced half-samples: their design, the classical error of a mean, and what moves in steps."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.metrics.half_samples import half_deviations, half_sample_error, half_samples
from bprune_hpc.metrics.jackknife import jackknife


def test_halves_of_twenty_are_balanced() -> None:
    signs = np.where(half_samples(20), 1, -1)
    assert signs.shape == (19, 20) and (signs.sum(axis=1) == 0).all()
    assert (signs @ signs.T == 20 * np.eye(19)).all()  # McCarthy 1969
    assert (signs.T @ signs == 20 * np.eye(20) - 1).all()


@pytest.mark.parametrize("n_groups", range(2, 21))
def test_no_half_is_empty_or_all(n_groups: int) -> None:
    halves = half_samples(n_groups)
    assert halves.shape == (len(halves), n_groups) and 1 <= len(halves) <= 19
    assert halves.any(axis=1).all() and not halves.all(axis=1).any()
    assert len(np.unique(halves, axis=0)) == len(halves)


def test_for_a_mean_it_is_the_jackknife() -> None:
    values = np.random.default_rng(0).normal(size=(20, 4, 3))
    means = np.array([values[half].mean(axis=(0, 1)) for half in half_samples(20)])
    left_out = np.array([np.delete(values, g, axis=0).mean(axis=(0, 1)) for g in range(20)])
    whole = values.mean(axis=(0, 1))
    expected = jackknife(whole, left_out, [4] * 20)[1]
    np.testing.assert_allclose(half_sample_error(whole, means, [4] * 20), expected)
    deviations = half_deviations(whole, means, [4] * 20)
    np.testing.assert_allclose((deviations**2).sum(axis=0), expected**2)


@pytest.mark.parametrize(
    "sizes", [[1, 1], [2, 1, 1], [1] * 7, [3] * 5 + [2] * 9, [2] * 3 + [1] * 17]
)
def test_for_means_of_unequal_groups_the_variance_is_right_on_average(sizes: list[int]) -> None:
    generator = np.random.default_rng(1)
    group = np.repeat(np.arange(len(sizes)), sizes)
    values = generator.normal(size=(len(group), 4000))
    halves = [values[half[group]].mean(axis=0) for half in half_samples(len(sizes))]
    error = half_sample_error(values.mean(axis=0), np.array(halves), sizes)
    variance = error**2
    expected, spread = 1 / len(group), variance.std() / np.sqrt(4000)
    assert abs(variance.mean() - expected) < 4 * spread


def test_steps_are_seen_that_the_jackknife_misses() -> None:
    """Share of 300 numbers whose mean over 100 draws is positive: many are near zero."""
    generator = np.random.default_rng(2)
    centre = generator.normal(0, 0.3, 300)
    group = np.arange(100) % 20
    found, truth = {"halves": [], "jackknife": []}, (centre > 0).mean()
    values = []
    for _ in range(300):
        draws = centre + generator.normal(size=(100, 300))
        whole = (draws.mean(axis=0) > 0).mean()
        halves = [(draws[half[group]].mean(axis=0) > 0).mean() for half in half_samples(20)]
        left = [(draws[group != g].mean(axis=0) > 0).mean() for g in range(20)]
        found["halves"].append(half_sample_error(whole, np.array(halves), [5] * 20))
        found["jackknife"].append(jackknife(whole, np.array(left), [5] * 20)[1])
        values.append(whole)
    deviation = np.sqrt(np.mean((np.array(values) - truth) ** 2))
    ratio = {
        name: np.sqrt(np.mean(np.square(errors))) / deviation for name, errors in found.items()
    }
    assert 0.85 < ratio["halves"] < 1.2
    assert ratio["jackknife"] > 1.4


def test_a_bias_in_one_over_draws_counts() -> None:
    """A squared mean of draws around 0 is too large by its variance, and never too small."""
    generator = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(2000):
        draws = generator.normal(size=20)
        halves = np.array([draws[half].mean() ** 2 for half in half_samples(20)])
        values.append(draws.mean() ** 2)
        errors.append(half_sample_error(np.float64(draws.mean() ** 2), halves, [1] * 20))
    assert np.mean(values) == pytest.approx(1 / 20, rel=0.1)
    assert np.sqrt(np.mean(np.square(errors))) > np.mean(values)


def test_rounding_is_no_error_and_one_group_has_none() -> None:
    halves = np.full((19, 1), 1 / 3)
    halves[::2] += 1e-16
    assert half_sample_error(np.array([1 / 3]), halves, [2] * 20) == 0
    assert np.isnan(half_sample_error(np.ones(2), np.zeros((0, 2)), [3])).all()
