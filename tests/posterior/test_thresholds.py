from __future__ import annotations

import math

import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.posterior.thresholds import parse_grid, read_grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,0.1,0.5", (0, 0.1, 0.5)),
        ("0.5, 0,0.5", (0, 0.5)),
        ("1e-2", (0.01,)),
        ("0:2:5", (0, 0.5, 1, 1.5, 2)),
        ("3:3:1", (3,)),
        ("none,1", (0, 1)),
    ],
)
def test_thresholds(text: str, values: tuple[float, ...]) -> None:
    assert parse_grid(text, "threshold") == values


def test_log_grid() -> None:
    grid = parse_grid("0.01:10:4:log", "threshold")
    assert grid == pytest.approx((0.01, 0.1, 1, 10))


@pytest.mark.parametrize(
    ("criterion", "text", "values"),
    [
        ("bmr", "0,none,-2.5", (-math.inf, -2.5, 0)),
        ("bmr", "-1:1:3", (-1, 0, 1)),
        ("log_alpha", "0,none,3", (math.inf, 3, 0)),
        ("log_alpha", "-1:1:3", (1, 0, -1)),
        ("kl", "none,1", (0, 1)),
        ("random", "0.5,0", (0, 0.5)),
    ],
)
def test_thresholds_run_from_the_least_that_is_pruned_to_the_most(
    criterion: str, text: str, values: tuple[float, ...]
) -> None:
    assert parse_grid(text, "threshold", criterion) == values


def test_fractions_always_ascend() -> None:
    assert parse_grid("0.5,none,0.25", "fraction", "log_alpha") == (0, 0.25, 0.5)


@pytest.mark.parametrize("criterion", ["snr", "log_alpha"])
def test_auto_is_equal_steps_of_weights(criterion: str) -> None:
    assert read_grid("auto:4", "threshold", criterion) == ("fraction", (0, 0.25, 0.5, 0.75))
    assert read_grid("auto:1", "threshold", criterion) == ("fraction", (0,))


def test_every_criterion_has_a_default() -> None:
    assert read_grid(None, "threshold") == ("threshold", (0, 0.1, 0.25, 0.5, 1, 2, 3, 5))
    assert read_grid(None, "threshold", "bmr") == ("fraction", tuple(k / 10 for k in range(10)))


@pytest.mark.parametrize(
    ("criterion", "text", "message"),
    [
        ("snr", "auto:0", "--thresholds: 'auto:0' is not auto:N with N at least 1"),
        ("snr", "auto", "--thresholds: 'auto' is not auto:N"),
        ("snr", "auto:x", "--thresholds: 'auto:x' is not auto:N"),
        ("kl", "-1", "-1 is not allowed; values are finite and not negative"),
        ("snr", "-inf", "-inf is not allowed"),
        ("bmr", "inf", "inf is not allowed; values are finite, or none for the unpruned network"),
        ("log_alpha", "-inf", "-inf is not allowed"),
        ("bmr", "nan", "nan is not allowed"),
        ("bmr", "nothing", "'nothing' is neither numbers"),
    ],
)
def test_what_is_no_grid(criterion: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_grid(text, "threshold", criterion)
