"""The choice of a threshold: the sequence of tests, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from bprune_hpc.metrics.asymptotic_test import AsymptoticTest
from bprune_hpc.metrics.estimates import Metric
from bprune_hpc.metrics.threshold_selection import (
    STEPS,
    Choice,
    CostTest,
    ExactDropTest,
    ExactRiseTest,
    Limit,
    choose,
    last_passed,
    sentences,
)

ACCURACY, NLL = Limit("accuracy_drop", 0.01), Limit("nll_rise", 0.02)
CUTS = ["SNR <= 0", "SNR <= 0.5", "SNR <= 1", "SNR <= 2", "SNR <= 3"]


@dataclass
class Given:
    """A test of which the p-values are given, and that tells which were asked for."""

    p_values: list[float]
    value: np.ndarray = field(init=False)
    asked: list[int] = field(default_factory=list)
    mode: str = "exact"
    n_examples: int = 100

    def __post_init__(self) -> None:
        self.value = np.array(self.p_values)

    def p_value(self, index: int) -> float:
        self.asked.append(int(index))
        return self.p_values[index]

    def examples_for(self, index: int, level: float) -> int:
        return 1000 + int(index)

    def fewest(self, level: float) -> int:
        return round(10 / level)


def asymptotic(
    limit: Limit, value: list[float], se: list[float], se_data: list[float], n_examples: int
) -> AsymptoticTest:
    difference = Metric(*(np.array(column, float) for column in (value, se, se_data)))
    step, skewness = STEPS[limit.metric], np.zeros(len(value))
    return AsymptoticTest(difference, limit.value, n_examples, 20, step, skewness)


def said(choice: Choice, test: CostTest, cost: str = "NLL rise") -> str:
    n = len(test.value)
    return sentences(choice, test, cost, CUTS[:n], np.arange(n) / 10)


def test_the_first_threshold_that_fails_ends_the_choice() -> None:
    test = Given([0.001, 0.05, 0.051, 0.001])
    choice = choose(test, NLL)
    assert choice.index == 1 and choice.confidence == 0.95 and choice.n_examples_needed == 1002
    assert test.asked == [0, 1, 2]  # no test is made that is not reached
    np.testing.assert_array_equal(choice.p_value, [0.001, 0.05, 0.051, np.nan])
    everything = choose(Given([0.01] * 4), NLL)
    assert everything.index == 3 and everything.n_examples_needed is None


def test_comparisons_share_the_level() -> None:
    p_values = [0.001, 0.02, 0.03]
    assert choose(Given(p_values), NLL).index == 2
    divided = choose(Given(p_values), NLL, n_comparisons=2)
    assert divided.index == 1 and divided.confidence == 0.975
    three = choose(Given(p_values), NLL, n_comparisons=3)
    assert three.index == 0 and three.confidence == pytest.approx(1 - 0.05 / 3)
    assert "98.33 % confidence (exact; 5 % divided by 3)" in said(three, Given(p_values))
    # What a file keeps is enough to divide further.
    for n_comparisons in (1, 2, 3, 60):
        again = choose(Given(p_values), NLL, n_comparisons=n_comparisons).index
        stored = choose(Given(p_values), NLL).p_value
        assert last_passed(stored, np.zeros(3, bool), 0.05 / n_comparisons) == again


def test_what_failed_is_left_out() -> None:
    nan = np.nan
    test = Given([0.001, 0.01, nan, 0.02, nan])
    failed = np.isnan(test.value)
    choice = choose(test, NLL, failed)
    assert choice.index == 3 and test.asked == [0, 1, 3]
    text = said(choice, test)
    assert text.startswith("choice: SNR <= 2, 30.00 % pruned")
    assert text.endswith("Left out, as it failed: SNR <= 1, SNR <= 3.")
    assert last_passed(choice.p_value, failed, 0.05) == 3
    # What comes next is the next that did not fail.
    strict = Given([0.001, 0.01, nan, 0.2, nan])
    choice = choose(strict, Limit("nll_rise", 0.1), failed)
    assert choice.index == 1 and "At SNR <= 2 it is estimated at 0.2" in said(choice, strict)
    # Not by chance: without the mask the first that is not a number ends it.
    assert choose(test, NLL).index == 1


def test_nothing_is_chosen_where_the_reference_failed() -> None:
    test = Given([np.nan] * 2)
    choice = choose(test, NLL, failed=np.array([True, False]))
    assert choice.index == -1 and choice.n_examples_needed is None and not test.asked
    assert said(choice, test) == (
        "choice: none. SNR <= 0 failed, and all others are compared with it."
    )


def test_an_asymptotic_choice_in_words() -> None:
    test = asymptotic(NLL, [0, 0.001, 0.03, 0.001], [0] * 4, [0, 0.001, 0.001, 0.001], 500)
    choice = choose(test, NLL)
    assert choice.index == 1
    assert said(choice, test) == (
        "choice: SNR <= 0.5, 10.00 % pruned: NLL rise below 0.02 at 95 % confidence (asymptotic; "
        "estimated: 0.001; single losses above 3.2 that this test set lacks could undo it). At "
        "SNR <= 1 it is estimated at 0.03."
    )


@pytest.mark.parametrize("se", [[0, 0, 0, 0], [0, 0.001, 0.001, 0.003]])
def test_no_bound_is_printed_that_was_looked_at_first(se: list[float]) -> None:
    """Only the limit was there before the numbers: bounds of the chosen one are picked by them."""
    test = asymptotic(NLL, [0, 0.001, 0.002, 0.019], se, [0, 0.001, 0.001, 0.002], 500)
    choice = choose(test, NLL)
    assert choice.index == 2
    text = said(choice, test)
    for bound in test.upper_bound(0.05)[1:]:
        assert f"{bound:.2g}" not in text
    assert f"below {NLL.value:g} at 95 % confidence" in text


def test_it_says_how_many_examples_would_do() -> None:
    test = asymptotic(NLL, [0, 0.01], [0, 0.001], [0, 0.01], 100)
    choice = choose(test, NLL)
    assert choice.index == 0
    needed = choice.n_examples_needed
    assert needed is not None and needed == test.examples_for(1, 0.05)
    text = said(choice, test)
    assert "no pruning" in text and "(100; about " in text and "nine times in ten" in text
    about = int(text.rpartition("about ")[2].split()[0])
    assert needed <= about < 1.1 * needed


def test_draws_can_be_what_is_missing() -> None:
    test = asymptotic(NLL, [0, 0.01], [0, 0.01], [0, 0.001], 100)
    choice = choose(test, NLL)
    assert choice.index == 0 and choice.n_examples_needed is None
    assert "more draws (--num_monte_carlo) are needed" in said(choice, test)


def test_a_test_set_that_is_too_small_for_anything() -> None:
    test = asymptotic(ACCURACY, [0, 0], [0, 0], [0, 0], 64)
    choice = choose(test, ACCURACY)
    assert choice.index == -1
    assert choice.n_examples_needed == 334  # 3.33 / 0.01: a bit more than the rule of three
    text = said(choice, test)
    assert "64 test examples are too few" in text and "334 or more could" in text
    for n_examples, index in ((334, 1), (333, -1)):
        again = asymptotic(ACCURACY, [0, 0], [0, 0], [0, 0], n_examples)
        assert choose(again, ACCURACY).index == index


def test_one_example_is_said_to_tell_nothing() -> None:
    test = asymptotic(NLL, [0, 0], [0, 0], [np.nan, np.nan], 1)
    assert said(choose(test, NLL), test).endswith("even of the unpruned network against itself.")


def test_an_exact_choice_of_counts_in_words() -> None:
    n_lost, n_won = np.array([0, 1, 2, 40]), np.array([0, 1, 3, 0])
    test = ExactDropTest(n_lost, n_won, 1000, 0.01)
    choice = choose(test, ACCURACY)
    assert choice.mode == "exact" and choice.index == 2
    text = said(choice, test, "accuracy drop of this ensemble of 8 networks")
    assert text == (
        "choice: SNR <= 1, 20.00 % pruned: accuracy drop of this ensemble of 8 networks below 0.01 "
        "at 95 % confidence (exact; estimated: -0.001). At SNR <= 2 it is estimated at 0.04."
    )
    short = ExactDropTest(np.zeros(2, int), np.zeros(2, int), 298, 0.01)
    choice = choose(short, ACCURACY)
    assert choice.index == -1 and choice.n_examples_needed == 299
    enough = ExactDropTest(np.zeros(2, int), np.zeros(2, int), 299, 0.01)
    assert choose(enough, ACCURACY).index == 1
    assert "299 or more could." in said(choice, short)


def test_an_exact_choice_of_rises_in_words() -> None:
    loss = np.zeros((3, 700))
    loss[2, ::7] = 0.5
    test = ExactRiseTest(loss, 5.0, 0.03, seed=0)
    choice = choose(test, Limit("nll_rise", 0.03))
    np.testing.assert_allclose(test.value, [0, 0, 0.5 / 7])
    assert choice.index == 1
    assert said(choice, test, "nll_rise_softened").startswith(
        "choice: SNR <= 0.5, 10.00 % pruned: nll_rise_softened below 0.03 at 95 % confidence (exact"
    )
    few = ExactRiseTest(loss[:, :350], 5.0, 0.03, seed=0)
    choice = choose(few, Limit("nll_rise", 0.03))
    assert choice.index == -1
    needed = choice.n_examples_needed
    assert needed is not None and 3 * 5 / 0.03 < needed < 3.6 * 5 / 0.03
    text = said(choice, few, "nll_rise_softened")
    assert f"{needed} or more could (3.3 times the largest rise" in text


def test_a_limit_that_nothing_can_exceed_needs_no_test() -> None:
    drop = ExactDropTest(np.array([0, 50]), np.array([0, 0]), 50, 1.5)
    assert choose(drop, Limit("accuracy_drop", 1.5)).index == 1
    at_one = ExactDropTest(np.array([0, 50]), np.array([0, 0]), 50, 1.0)
    assert choose(at_one, Limit("accuracy_drop", 1.0)).index == -1
    rise = ExactRiseTest(np.stack([np.zeros(5), np.full(5, 2.0)]), 2.0, 2.5, 0)
    assert choose(rise, Limit("brier_change", 2.5)).index == 1
