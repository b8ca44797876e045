from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.metrics import Metric
from bprune_hpc.pruning import Cut
from bprune_hpc.report import number_with_error, table


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.96875, 0.0219, "0.969 ± 0.022"),
        (1.39084, 0.13, "1.39 ± 0.13"),
        (0.00533, 0.000481, "0.00533 ± 0.00048"),
        (12.3, 4.56, "12.3 ± 4.6"),
        (123.0, 45.6, "123 ± 46"),
        (1.0, 0.0999, "1.00 ± 0.10"),
        (0.5, 0.0, "0.5000 ± 0"),
        (0.5, np.nan, "0.5000 ± n/a"),
        (np.nan, 0.1, "nan"),
    ],
)
def test_two_digits_of_the_error(value: float, error: float, text: str) -> None:
    assert number_with_error(value, error) == text


def test_the_table_has_a_line_for_each_threshold() -> None:
    cuts = [
        Cut(0.0, np.nan, {"a": np.ones(8, bool)}),
        Cut(0.5, np.nan, {"a": np.arange(8) > 1}),
    ]
    names = (
        "accuracy nll predictive_entropy expected_entropy mutual_information".split()
    )
    metric = Metric(np.array([0.25, 0.75]), np.array([0.03, 0.0]), np.array([0.04, 0.02]))
    lines = table(cuts, dict.fromkeys(names, metric)).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[:3] == ["0", "0.00", "%"]
    assert lines[3].split()[:3] == ["0.5", "25.00", "%"]
    assert lines[2].count("0.250 ± 0.050") == 5
    assert lines[3].count("0.750 ± 0.020") == 5
