"""What the benchmark of common draws and pairs measures, and that common draws pay."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.common_draws import (
    METRICS,
    correlation,
    independent_over_common,
    independent_over_common_by_jackknife,
    none_over_pairs,
    repeat,
    with_error,
)
from bprune_hpc.metrics.definitions import CLASSIFICATION


@pytest.mark.parametrize(
    ("rho", "spread", "expected"),
    [(0.9, 1.0, 10**0.5), (0.0, 1.0, 1.0), (0.9, 2.0, (5 / 1.4) ** 0.5), (0.5, 1.0, 2**0.5)],
)
def test_ratios_of_correlated_normals(rho: float, spread: float, expected: float) -> None:
    """(σ₀² + σ²) / (σ₀² + σ² - 2 ρ σ₀ σ); 1 / (1 - ρ) where both are the same."""
    generator = np.random.default_rng(0)
    first, own = generator.normal(size=(2, 800))
    nll = np.stack([first, spread * (rho * first + np.sqrt(1 - rho**2) * own)], axis=1)
    ratio, error = with_error(independent_over_common, nll)
    assert abs(ratio[1] - expected) < 4 * error[1] < 0.5 and np.isinf(ratio[0])
    found, error = with_error(correlation, nll[:, :, None])
    assert abs(found[1] - rho) < 4 * error[1] and found[0] == pytest.approx(1)
    # From standard errors as a file has them, which here are exact.
    rise = np.sqrt(1 + spread**2 - 2 * rho * spread)
    errors = np.broadcast_to([[1, 0], [spread, rise]], (5, 2, 2))
    assert independent_over_common_by_jackknife(errors)[1] == pytest.approx(expected)


def test_the_gain_of_pairs_and_its_error() -> None:
    generator = np.random.default_rng(1)
    none, pairs = generator.normal(0, 3, (400, 1)), generator.normal(0, 1, (300, 1))
    ratio, error = with_error(none_over_pairs, none, pairs)
    # The relative error of a standard deviation of n normals is 1 / √(2 n).
    assert error == pytest.approx(3 * np.sqrt(1 / 800 + 1 / 600), rel=0.25)
    assert abs(ratio - 3) < 4 * error
    assert np.isnan(none_over_pairs(none, 1 + 1e-16 * pairs))


def test_common_draws_pay_on_the_digits_where_thresholds_correlate() -> None:
    flags = ["--model_dir=embedded:digits_fc", "--thresholds=0,0.02", "--num_monte_carlo=100"]
    pairs = repeat(flags, range(3))
    assert correlation(pairs.unit_nll)[1] > 0.9
    errors = np.stack([pairs.se["nll"], pairs.se["nll_rise"]], axis=2)
    assert independent_over_common_by_jackknife(errors)[1] > 3
    assert pairs.unit_nll.shape == (3, 2, 50)
    assert set(METRICS) <= set(CLASSIFICATION)
