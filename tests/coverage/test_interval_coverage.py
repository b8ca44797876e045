"""Whether 95 % intervals hold what many draws and all of a population give.

The simulation of ``benchmarks/error_coverage.py``, which makes the tables of the docs, in small.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.error_coverage import held
from benchmarks.simulation import Classifier, Regressor
from bprune_hpc.metrics.definitions import CLASSIFICATION, OUT_OF_DISTRIBUTION, REGRESSION

N_REPEATS = 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accurate", "overconfident"])
def test_intervals_of_a_classifier_hold(name: str) -> None:
    model = Classifier(name, n_examples=5000)
    found = [model.metrics(100, seed) for seed in range(1, N_REPEATS + 1)]
    shares = held(found, model.metrics(None, 0, 1000))
    assert shares.keys() == (CLASSIFICATION | OUT_OF_DISTRIBUTION).keys()
    check(shares)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heavy tails", "skewed"])
def test_intervals_of_a_regression_hold(name: str) -> None:
    model = Regressor(name, n_examples=5000)
    found = [model.metrics(100, seed) for seed in range(1, N_REPEATS + 1)]
    shares = held(found, model.metrics(None, 0, 1000))
    assert shares.keys() == REGRESSION.keys()
    check(shares)


def check(shares: dict[str, float]) -> None:
    least = 0.93 - 3.5 * np.sqrt(0.93 * 0.07 / N_REPEATS)  # of a hundred shares the lowest
    assert {name: share for name, share in shares.items() if share < least} == {}


def test_a_few_intervals_are_not_empty_and_hold_the_number() -> None:
    for model in (Classifier("accurate", 300), Regressor("skewed", 300)):
        for name, metric in model.metrics(60, 1).items():
            assert metric.low is not None and metric.high is not None
            later = slice(1, None)
            assert (metric.low[later] < metric.high[later]).all(), name
            if not name.startswith("ece"):  # whose bias is taken off
                inside = (metric.low <= metric.value) & (metric.value <= metric.high)
                assert (inside | np.isnan(metric.value)).all(), name


@pytest.mark.parametrize("n_draws", [2, 4])
def test_an_interval_has_both_ends_or_none(n_draws: int) -> None:
    for name, metric in Classifier("accurate", 300).metrics(20, 1, n_draws).items():
        assert metric.low is not None and metric.high is not None
        assert (np.isnan(metric.low) == np.isnan(metric.high)).all(), name
        assert not (metric.low > metric.high).any(), name
