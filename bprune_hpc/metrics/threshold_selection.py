"""How far to prune: the most-pruned threshold that is shown to cost no more than a limit.

Pure: a test of the cost at each threshold in, a choice and its sentences out. How a cost is
tested does not belong here (``metrics.exact_tests``, ``metrics.asymptotic_test``), nor how it is
estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from .._typing import BoolArray, Float64Array, Int64Array
from . import exact_tests
from .asymptotic_test import AsymptoticTest

LEVEL = 0.05
"""Share of test sets on which a choice may be wrong."""

STEPS = {"accuracy_drop": 1.0, "nll_rise": 0.0, "brier_change": 0.0}
"""Differences that a choice can rest on, and by how much one example can move N times each."""

MODES = ("auto", "exact", "asymptotic")

NAMES = {
    "accuracy_drop": "accuracy drop",
    "nll_rise": "NLL rise",
    "brier_change": "rise of the Brier score",
}
"""Of the differences, in words."""


@dataclass(frozen=True)
class Limit:
    """What pruning may cost.

    Attributes
    ----------
    metric : str
        A key of :data:`STEPS`.
    value : float
        What the metric has to be below, positive.
    """

    metric: str
    value: float


class CostTest(Protocol):
    """A way to test whether the cost is below the limit, threshold by threshold."""

    @property
    def mode(self) -> str:
        """``exact`` or ``asymptotic``."""

    @property
    def n_examples(self) -> int:
        """Of the test set."""

    @property
    def value(self) -> Float64Array:
        """The costs that are compared with the limit, shape (n_thresholds,)."""

    def p_value(self, index: int) -> float:
        """Least level at which the cost at a threshold is shown to be below the limit."""

    def examples_for(self, index: int, level: float) -> int | None:
        """Test examples that would show it nine times in ten, were the cost as it is here.

        None where it is not below the limit, or examples alone do not help.
        """

    def fewest(self, level: float) -> int | None:
        """Test examples without which nothing can be shown, even where no example changes."""


@dataclass(frozen=True)
class ExactDropTest:
    """Examples lost and won at each threshold, by the exact unconditional trinomial test.

    Attributes
    ----------
    n_lost, n_won : int64 array, shape (n_thresholds,)
        Right without pruning and wrong here, and the other way round.
    n_examples : int
    limit : float
    """

    n_lost: Int64Array
    n_won: Int64Array
    n_examples: int
    limit: float

    mode = "exact"

    @property
    def value(self) -> Float64Array:
        """The drop of accuracy."""
        return (self.n_lost - self.n_won) / self.n_examples

    def p_value(self, index: int) -> float:
        """See :func:`exact_tests.drop_p_value`; a limit of 1 or more is never reached."""
        if self.limit >= 1:
            return 0.0 if self.limit > 1 else 1.0
        return exact_tests.drop_p_value(*self._counts(index), self.n_examples, self.limit)

    def examples_for(self, index: int, level: float) -> int | None:
        """See :func:`exact_tests.examples_for_drop`."""
        if self.limit >= 1:
            return None
        return exact_tests.examples_for_drop(
            *self._counts(index), self.n_examples, self.limit, level
        )

    def fewest(self, level: float) -> int | None:
        """See :func:`exact_tests.fewest_for_drop`."""
        return exact_tests.fewest_for_drop(level, self.limit) if self.limit < 1 else None

    def _counts(self, index: int) -> tuple[int, int]:
        return int(self.n_lost[index]), int(self.n_won[index])


@dataclass(frozen=True)
class ExactRiseTest:
    """Losses of every example that cannot exceed a bound, by betting on their rises.

    Attributes
    ----------
    loss : float64 array, shape (n_thresholds, n_examples)
    bound : float
        By how much a loss can rise.
    limit : float
    seed : int
        Of the orders in which examples enter the bet.
    """

    loss: Float64Array
    bound: float
    limit: float
    seed: int

    mode = "exact"

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return self.loss.shape[1]

    @cached_property
    def value(self) -> Float64Array:
        """Mean rises."""
        return self.loss.mean(axis=1) - self.loss[0].mean()

    def p_value(self, index: int) -> float:
        """See :func:`exact_tests.rise_p_value`."""
        return exact_tests.rise_p_value(self._rise(index), self.bound, self.limit, self.seed)

    def examples_for(self, index: int, level: float) -> int | None:
        """See :func:`exact_tests.examples_for_rise`."""
        return exact_tests.examples_for_rise(self._rise(index), self.bound, self.limit, level)

    def fewest(self, level: float) -> int | None:
        """See :func:`exact_tests.fewest_for_rise`."""
        return exact_tests.fewest_for_rise(level, self.bound, self.limit)

    def _rise(self, index: int) -> Float64Array:
        return self.loss[index] - self.loss[0]


@dataclass(frozen=True)
class Choice:
    """What a limit allows.

    Attributes
    ----------
    limit : Limit
    mode : {"exact", "asymptotic"}
    n_comparisons : int
        Choices among which this one is, which share the 5 % at which any may be wrong.
    p_value : float64 array, shape (n_thresholds,)
        Of the test at each threshold that the sequence has reached; NaN at the others.
    index : int
        The chosen threshold: it and all thresholds before it have passed. 0 is the unpruned
        network, -1 none: the test set cannot tell even that from itself.
    failed : bool array, shape (n_thresholds,)
        Those that are left out; the first stands for all, since there is no difference without it.
    n_examples_needed : int or None
        Test examples with which the next threshold would pass, nine times in ten, were the
        difference as estimated here; without which nothing can pass, where even the unpruned
        network has not. None if the difference is not below the limit, or only more draws help.
    """

    limit: Limit
    mode: str
    n_comparisons: int
    p_value: Float64Array
    index: int
    failed: BoolArray
    n_examples_needed: int | None

    @property
    def confidence(self) -> float:
        """That of the whole choice."""
        return 1 - LEVEL / self.n_comparisons


def choose(
    test: CostTest, limit: Limit, failed: BoolArray | None = None, n_comparisons: int = 1
) -> Choice:
    """Choose the most-pruned threshold whose cost is shown to be below a limit.

    Thresholds are tested in their order and the first that fails ends the choice (a fixed
    sequence of tests, which keeps the confidence however many thresholds there are).

    Parameters
    ----------
    test : CostTest
        Thresholds from the least that is pruned, the unpruned network, to the most.
    limit : Limit
    failed : bool array, shape (n_thresholds,), optional
        Thresholds to leave out, whose numbers are NaN; without, none.
    n_comparisons : int
        Divides the 5 %.

    References
    ----------
    W. Maurer, L. Hothorn, W. Lehmacher, "Multiple comparisons in drug clinical trials and
    preclinical assays: a-priori ordered hypotheses", Biometrie in der chemisch-pharmazeutischen
    Industrie 6 (1995) 3.
    """
    level = LEVEL / n_comparisons
    out = np.zeros(len(test.value), bool) if failed is None else failed
    p_value, index, needed = np.full(len(out), np.nan), -1, None
    for at in np.flatnonzero(~out) if not out[0] else ():
        p_value[at] = test.p_value(at)
        if not p_value[at] <= level:
            needed = test.examples_for(at, level) if at else test.fewest(level)
            break
        index = int(at)
    return Choice(limit, test.mode, n_comparisons, p_value, index, out, needed)


def last_passed(p_value: Float64Array, failed: BoolArray, level: float) -> int:
    """Where a choice would end at another level: its index, given p-values as far as it went."""
    tested = np.flatnonzero(~failed)
    n_passed = int(np.logical_and.accumulate(p_value[tested] <= level).sum())
    return int(tested[n_passed - 1]) if n_passed else -1


def confidence_in_words(n_comparisons: int) -> str:
    """That of a choice among several, as it is printed."""
    return f"{100 * (1 - LEVEL / n_comparisons):.4g} % confidence"


def notes(mode: str, n_comparisons: int, *more: str) -> str:
    """How a claim was come to, in brackets."""
    divided = [f"{100 * LEVEL:g} % divided by {n_comparisons}"] if n_comparisons > 1 else []
    return f"({'; '.join([mode, *divided, *more])})"


def claim(
    cost: str, limit: float, n_comparisons: int, threshold: str, pruned_fraction: float
) -> str:
    """What is claimed of a threshold that is chosen, without notes and full stop.

    Parameters
    ----------
    cost : str
        What is below the limit.
    threshold : str
        What the threshold is called: ``SNR <= 0.5``.
    """
    return (
        f"choice: {threshold}, {100 * pruned_fraction:.2f} % pruned: {cost} below {limit:g} at "
        f"{confidence_in_words(n_comparisons)}"
    )


def no_claim(cost: str, limit: float, n_comparisons: int) -> str:
    """What is said where no threshold but the unpruned network passes, in the same way."""
    return (
        f"choice: no pruning. At no threshold is the {cost} shown to be below {limit:g} at "
        f"{confidence_in_words(n_comparisons)}"
    )


def sentences(
    choice: Choice,
    test: CostTest,
    cost: str,
    thresholds: Sequence[str],
    pruned_fraction: Float64Array,
) -> str:
    """The choice in words, a few sentences.

    Parameters
    ----------
    cost : str
        What is tested: of which numbers, under the name that they are stored with.
    thresholds : sequence of str
        What each threshold is called: ``SNR <= 0.5``.
    pruned_fraction : float64 array, shape (n_thresholds,)
    """
    limit, n, index = choice.limit.value, choice.n_comparisons, choice.index
    if choice.failed[0]:
        return f"choice: none. {thresholds[0]} failed, and all others are compared with it."
    if index < 0:
        enough = f"; {choice.n_examples_needed} or more could" if choice.n_examples_needed else ""
        if enough and isinstance(test, ExactRiseTest):
            enough += (
                f" (3.3 times the largest rise that there can be, {test.bound:.3g}, per limit)"
            )
        return (
            f"choice: none. {test.n_examples} test examples are too few to show that the {cost} is "
            f"below {limit:g} at {confidence_in_words(n)} {notes(choice.mode, n)}, even of the "
            f"unpruned network against itself{enough}."
        )
    if index:
        more = [f"estimated: {_signed(test.value[index])}"]
        if isinstance(test, AsymptoticTest) and not test.step:
            largest = float(test.largest_loss()[index])
            more.append(f"single losses above {largest:.2g} that this test set lacks could undo it")
        text = claim(cost, limit, n, thresholds[index], float(pruned_fraction[index]))
        text = f"{text} {notes(choice.mode, n, *more)}."
    else:
        text = f"{no_claim(cost, limit, n)} {notes(choice.mode, n)}."
    if choice.failed.any():
        failed = [thresholds[place] for place in np.flatnonzero(choice.failed)]
        text += f" Left out, as it failed: {', '.join(failed)}."
    after = np.flatnonzero(~choice.failed[index + 1 :])
    if not after.size:
        return text
    following = index + 1 + int(after[0])
    return f"{text} {_why_not(choice, test, following, thresholds[following])}"


def _why_not(choice: Choice, test: CostTest, index: int, threshold: str) -> str:
    """Why the next threshold is not chosen; without its bound, which is no claim after looking."""
    value, needed = float(test.value[index]), choice.n_examples_needed
    estimate = f"At {threshold} it is estimated at {_signed(value)}"
    if not value < choice.limit.value:
        return f"{estimate}."
    if needed is None and isinstance(test, AsymptoticTest):
        return f"{estimate}: more draws (--num_monte_carlo) are needed to tell."
    enough = ""
    if needed is not None:
        enough = f"; about {_rounded_up(needed)} would do nine times in ten, if it stays at that"
    return f"{estimate}: too few test examples to tell ({test.n_examples}{enough})."


def _rounded_up(number: int) -> int:
    """To two digits: an estimate is no better."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def _signed(value: float) -> str:
    return f"{value + 0.0:.2g}" if value else "0"
