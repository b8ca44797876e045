from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.metrics import Metric
from bprune_hpc.stopping import Target, parse_target


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
    assert Target("nll", 0.1).is_reached(metrics(*errors)) is is_reached


def test_what_it_says() -> None:
    said = Target("nll", 0.1).sentence(metrics(0.02, 0.0834), 100)
    assert said == "target: reached with 100 draws: nll_se is at most 0.083 (asked for: 0.1)."
    assert "not reached with 8 draws" in Target("nll", 0.01).sentence(metrics(0.02), 8)


def test_reading() -> None:
    assert parse_target(" nll = 1e-3", ["nll"]) == Target("nll", 0.001)
    with pytest.raises(ConfigError, match="no metric 'rmse' .* there are nll, brier$"):
        parse_target("rmse=1", ["nll", "brier"])
