"""Bands that hold at all thresholds together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bprune_hpc.metrics.bands import group_deviations, simultaneous_tail


def test_one_threshold_needs_no_band_and_equal_ones_are_one() -> None:
    one = np.random.default_rng(0).normal(size=(60, 1))
    assert simultaneous_tail(one) == pytest.approx(0.05, abs=0.008)
    assert simultaneous_tail(np.repeat(one, 30, axis=1)) == simultaneous_tail(one)
    assert simultaneous_tail(np.zeros((5, 3))) == 0.05
    with_the_first = np.concatenate([np.zeros((60, 1)), one], axis=1)
    assert simultaneous_tail(with_the_first) == simultaneous_tail(one)


def test_independent_thresholds_need_sidaks_level() -> None:
    assert simultaneous_tail(np.eye(20)) == pytest.approx(1 - 0.95 ** (1 / 20), rel=0.2)


def test_groups_have_the_variance_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(size=(300, 250))
    found = np.sqrt((group_deviations(values) ** 2).sum(axis=0))
    ratio = found / stats.sem(values, axis=1)
    assert abs(np.mean(ratio**2) - 1) < 0.05
    few = group_deviations(values[:, :40])  # a group each
    np.testing.assert_allclose(np.sqrt((few**2).sum(axis=0)), stats.sem(values[:, :40], axis=1))


def test_bands_of_correlated_means_hold_together() -> None:
    """Means of a walk over 20 thresholds, 300 examples: one by one they hold in far fewer."""
    generator = np.random.default_rng(2)
    held, alone = 0, 0
    for _ in range(400):
        values = generator.normal(size=(20, 300)).cumsum(axis=0)
        away = np.abs(values.mean(axis=1)) / stats.sem(values, axis=1)
        held += (away <= stats.norm.isf(simultaneous_tail(group_deviations(values)) / 2)).all()
        alone += (away <= stats.norm.isf(0.025)).all()
    assert held / 400 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400) and alone / 400 < 0.9
