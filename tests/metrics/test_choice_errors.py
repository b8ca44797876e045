"""How often a choice is wrong where the truth is the limit, and how often it sees what is there.

The cases and the table in the docs are those of ``benchmarks/choice_errors.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.choice_errors import (
    NULL_DROPS,
    NULL_RISES,
    POWER_DROPS,
    POWER_RISES,
    Case,
    size_of_counts,
)
from bprune_hpc.metrics.exact_tests import drop_p_value

FEW, MANY = 200, 4000
N_EXAMPLES = 1_500_000
"""Of all test sets of a case together; the table in the docs is of 4,000 sets each."""

SHORT = [
    case
    for case in NULL_RISES
    if (case.n_examples <= 1000 or "sorted" in case.name) and "digits" not in case.name
]


def named(case: Case) -> str:
    return f"{case.name}, {case.n_examples}"


def most_wrong(n_repeats: int) -> float:
    """5 %, and two binomial standard errors of it."""
    return 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_repeats)


@pytest.mark.parametrize("case", SHORT, ids=named)
def test_an_exact_choice_is_seldom_wrong(case: Case) -> None:
    exact, _ = case.passed(FEW, seed=1)
    assert exact <= most_wrong(FEW), exact


@pytest.mark.slow
@pytest.mark.parametrize("case", NULL_RISES, ids=named)
def test_an_exact_choice_is_seldom_wrong_many_times(case: Case) -> None:
    n_repeats = max(min(MANY, N_EXAMPLES // case.n_examples), 50)
    exact, _ = case.passed(n_repeats, seed=2)
    assert exact <= most_wrong(n_repeats), exact


def check_size(n: int, limit: float, won: float) -> None:
    size = size_of_counts(n, limit, won)
    print(f"{n} examples, limit {limit}, {won} won: {100 * size:.2f} %")
    assert 0.01 < size <= 0.05


@pytest.mark.parametrize("case", [case for case in NULL_DROPS if case[0] < 1000])
def test_the_size_of_the_test_of_counts(case: tuple[int, float, float]) -> None:
    check_size(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in NULL_DROPS if case[0] >= 1000])
def test_the_size_of_the_test_of_counts_of_many(case: tuple[int, float, float]) -> None:
    check_size(*case)


def test_all_wrong_after_pruning_is_never_shown_to_be_below() -> None:
    assert drop_p_value(1000, 0, 1000, 0.01) == 1


def test_rare_large_losses_deceive_the_asymptotic_test_alone() -> None:
    (case,) = [
        one
        for one in NULL_RISES
        if one.name.startswith("rare losses of 15") and one.n_examples == 359
    ]
    exact, asymptotic = case.passed(FEW)
    assert exact <= 0.05 < 0.5 < asymptotic


@pytest.mark.parametrize("case", POWER_DROPS[:-1], ids=named)
def test_an_exact_choice_by_counts_sees_as_much(case: Case) -> None:
    exact, asymptotic = case.passed(FEW)
    assert exact >= asymptotic - 0.03


def test_an_exact_choice_by_rises_needs_examples() -> None:
    for name, n_examples, least in (
        ("identical networks", 1000, None),
        ("identical networks", 1200, 1.0),
        ("normal, sd 0.1", 1500, 0.8),
        ("normal, sd 0.1", 3000, 0.99),
        ("rare losses of 5 nats, mean 0.005", 5000, 0.9),
    ):
        (case,) = [one for one in POWER_RISES if (one.name, one.n_examples) == (name, n_examples)]
        exact, _ = case.passed(100)
        assert exact == 0 if least is None else exact >= least
