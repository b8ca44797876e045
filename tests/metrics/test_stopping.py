from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.stopping import Target, parse_target


def metrics(*errors: float) -> dict[str, Metric]:
    zeros = np.zeros(len(errors))
    return {"nll": Metric(zeros, np.array(errors), zeros)}


@pytest.mark.parametrize(
    ("errors", "is_reached"),
    [
        ((0.1, 0.05), True),
        ((0.05, 0.11), False),
        ((0.0, 0.0), True),
        ((0.05, np.nan), False),
    ],
)
def test_every_threshold_has_to_reach_it(errors: tuple[float, ...], is_reached: bool) -> None:
    fine = np.zeros(len(errors), bool)
    assert Target("nll", 0.1).is_reached(metrics(*errors), fine) is is_reached
    assert Target("nll", 0.1).is_settled(metrics(*errors), fine) is is_reached


def test_thresholds_that_failed_do_not_count() -> None:
    target, found = Target("nll", 0.1), metrics(0.05, np.nan, 0.02)
    second = np.array([False, True, False])
    assert target.is_reached(found, second) and target.is_settled(found, second)
    assert "is at most 0.05 (asked for: 0.1); thresholds that failed do not" in target.sentence(
        found, second, 50
    )
    assert not target.is_settled(metrics(0.05, np.nan, np.nan), second)
    # With nothing left, more draws are of no use; nor is a difference to what failed.
    everything = np.ones(3, bool)
    assert target.is_settled(found, everything) and not target.is_reached(found, everything)
    assert "not reached: no threshold has a nll" in target.sentence(found, everything, 50)
    rise = {"nll_rise": Metric(*np.full((3, 3), np.nan))}
    first = np.array([True, False, False])
    assert Target("nll_rise", 0.1).is_settled(rise, first)
    assert not Target("nll_rise", 0.1).is_reached(rise, first)


def test_what_it_says() -> None:
    both = np.zeros(2, bool)
    said = Target("nll", 0.1).sentence(metrics(0.02, 0.0834), both, 100)
    assert said == "target: reached with 100 draws: nll_se is at most 0.083 (asked for: 0.1)."
    assert "not reached with 8 draws" in Target("nll", 0.01).sentence(metrics(0.02), both[:1], 8)


def test_reading() -> None:
    assert parse_target(" nll = 1e-3", ["nll"]) == Target("nll", 0.001)
    with pytest.raises(ConfigError, match="no metric 'rmse' .* there are nll, brier$"):
        parse_target("rmse=1", ["nll", "brier"])
