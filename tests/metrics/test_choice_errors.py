"""How often a choice is wrong where the truth is the limit, and how often it sees what is there.

The cases and the table in the docs are those of ``benchmarks/choice_errors.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.choice_errors import NULL_DROPS, NULL_RISES, POWER_DROPS, POWER_RISES, Case

FEW, MANY = 200, 4000
SHORT = [
    case
    for case in (*NULL_RISES, *NULL_DROPS)
    if (case.n_examples <= 1000 or "sorted" in case.name) and "digits" not in case.name
]


def named(case: Case) -> str:
    return f"{case.name}, {case.n_examples}"


def most_wrong(n_repeats: int) -> float:
    """5 %, and three binomial standard errors of it where there are so many cases."""
    return 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_repeats)


@pytest.mark.parametrize("case", SHORT, ids=named)
def test_an_exact_choice_is_seldom_wrong(case: Case) -> None:
    exact, _ = case.passed(FEW, seed=1)
    assert exact <= most_wrong(FEW), exact


@pytest.mark.slow
@pytest.mark.parametrize("case", [*NULL_RISES, *NULL_DROPS], ids=named)
def test_an_exact_choice_is_seldom_wrong_many_times(case: Case) -> None:
    n_repeats = MANY if case.n_examples <= 10_000 else FEW
    exact, _ = case.passed(n_repeats, seed=2)
    assert exact <= most_wrong(n_repeats), exact


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
