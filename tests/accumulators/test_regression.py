"""Closed forms of Normals against scipy and against integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from bprune_hpc.accumulators.regression import expected_distance, log2_density, probability_below

GENERATOR = np.random.default_rng(0)
ERROR = np.concatenate([GENERATOR.normal(0, 3, 200), [0.0, 1e-30, -40.0, 1e6, -1e6, 3e38]])
SCALE = np.concatenate([np.exp(GENERATOR.normal(0, 1, 200)), [1.0, 1.0, 1.0, 1e-3, 1e3, 1e-30]])


def test_density_and_probability_are_scipys() -> None:
    with np.errstate(over="ignore"):
        expected = stats.norm.logpdf(-ERROR, scale=SCALE) / np.log(2)
        found = log2_density(ERROR, SCALE)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(
        probability_below(ERROR, SCALE), stats.norm.cdf(0, ERROR, SCALE), rtol=1e-13
    )


def test_distance_is_the_mean_of_the_folded_normal() -> None:
    ratio = np.abs(ERROR[:205] / SCALE[:205])
    expected = stats.foldnorm.mean(ratio, scale=SCALE[:205])
    np.testing.assert_allclose(expected_distance(ERROR[:205], SCALE[:205]), expected, rtol=1e-12)


@pytest.mark.parametrize(("error", "scale"), [(0.3, 1.2), (-2.0, 0.5), (0.0, 3.0)])
def test_crps_of_one_normal_is_its_integral(error: float, scale: float) -> None:
    def squared(z: float) -> float:
        return float((stats.norm.cdf(z, error, scale) - (z >= 0)) ** 2)

    parts = [(-40 * scale, 0), (0, 40 * scale)]
    integral = sum(integrate.quad(squared, *part, limit=200)[0] for part in parts)
    one, root = np.array([error]), np.sqrt(2)
    two = expected_distance(np.zeros(1), np.array([root * scale]))
    assert expected_distance(one, np.array([scale])) - two / 2 == pytest.approx(integral, abs=1e-9)


def test_extremes() -> None:
    far = np.array([3e38, -3e38, 0.0])
    tiny = np.array([1e-30, 1e-30, 1e-30])
    np.testing.assert_allclose(expected_distance(far, tiny)[:2], 3e38)
    assert expected_distance(far, tiny)[2] == pytest.approx(1e-30 * np.sqrt(2 / np.pi))
    assert probability_below(far, tiny).tolist() == [0, 1, 0.5]
