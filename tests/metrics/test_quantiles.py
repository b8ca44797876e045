"""Quantiles against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from bprune_hpc.metrics.quantiles import (
    gamma_quantile,
    normal_below,
    normal_quantile,
    t_quantile,
)

TAILS = [0.2, 0.05, 0.01, 1e-3, 1e-5]


@pytest.mark.parametrize("tail", TAILS)
def test_normals_and_students_t(tail: float) -> None:
    assert normal_quantile(tail) == pytest.approx(stats.norm.isf(tail / 2), rel=1e-9)
    freedom = np.array([1.0, 2, 2.5, 3, 4, 4.9, 7, 19, 23.7, 49, 99, 1e4, 1e9])
    exact = special.stdtrit(freedom, 1 - tail / 2)
    np.testing.assert_allclose(t_quantile(freedom, tail), exact, rtol=1e-3)
    np.testing.assert_allclose(t_quantile(freedom[4:], tail), exact[4:], rtol=1e-5)
    between = np.array([1.05, 1.3, 1.7])  # where it is known less well it is too large
    ratio = t_quantile(between, tail) / special.stdtrit(between, 1 - tail / 2)
    assert ((ratio > 1) & (ratio < 1.15)).all()


def test_the_normal_distribution() -> None:
    x = np.array([[-30.0, -2, 0], [0.5, 3, 9]])
    np.testing.assert_allclose(normal_below(x), stats.norm.cdf(x), rtol=1e-12)


def test_gamma_of_moderate_shapes() -> None:
    shape = np.array([1.0, 2, 5, 20, 300])
    for z in (1.96, 2.1, 2.8):
        exact = special.gammaincinv(shape, special.ndtr(z))
        np.testing.assert_allclose(gamma_quantile(shape, np.full(5, z)), exact, rtol=0.02)
        low = gamma_quantile(shape, np.full(5, -z))
        exact = special.gammaincinv(shape, special.ndtr(-z))
        assert (low <= exact * 1.0001).all()  # where it is not the same it is too small
        np.testing.assert_allclose(low[2:], exact[2:], rtol=0.05)
