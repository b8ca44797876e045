"""How far to prune: the most-pruned threshold that is shown to cost no more than a limit.

Pure: paired differences to the unpruned network and their errors in, a choice and its sentence
out. How the differences are estimated does not belong here (``metrics.classification``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._typing import BoolArray, Float64Array
from .estimates import Metric

CONFIDENCE = 0.95
STEPS = {"accuracy_drop": 1.0, "nll_rise": 0.0}
"""Differences that a choice can rest on, and by how much one example can move N times each."""

_MOST_EXAMPLES = 10**9
_NAMES = {"accuracy_drop": "accuracy drop", "nll_rise": "NLL rise"}


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


@dataclass(frozen=True)
class Choice:
    """What a limit allows.

    Attributes
    ----------
    limit : Limit
    confidence : float
    upper_bound : float64 array, shape (n_thresholds,)
        One-sided bound of the difference at each threshold, at the confidence.
    index : int
        The chosen threshold: its bound and those of all thresholds before it are below the limit.
        0 is the unpruned network, -1 none: the test set cannot tell even that from itself.
    failed : bool array, shape (n_thresholds,)
        Those that are left out; the first stands for all, since there is no difference without it.
    n_examples_needed : int or None
        Test examples at which the bound at the next threshold would be below the limit, were the
        difference as estimated here; None if it is not below the limit, or only more draws help.
    """

    limit: Limit
    confidence: float
    upper_bound: Float64Array
    index: int
    failed: BoolArray
    n_examples_needed: int | None

    @property
    def is_below(self) -> BoolArray:
        """Whether each threshold's bound, taken alone, is below the limit."""
        return self.upper_bound < self.limit.value


def choose(
    difference: Metric,
    limit: Limit,
    n_examples: int,
    n_groups: int,
    skewness: Float64Array | None = None,
    failed: BoolArray | None = None,
) -> Choice:
    """Choose the most-pruned threshold whose difference is below a limit.

    Thresholds are tested in their order and the first that fails ends the choice (a fixed
    sequence of tests, which keeps the confidence however many thresholds there are).

    Parameters
    ----------
    difference : Metric, arrays of shape (n_thresholds,)
        Less is better; thresholds from the least that is pruned, the unpruned network, to the most.
    limit : Limit
    n_examples, n_groups : int
        Of the test set, and of the jackknife that gave ``difference.se``; at least 2.
    skewness : float64 array, shape (n_thresholds,), optional
        Of the differences over examples, where they do not merely count; taken as 0 without.
    failed : bool array, shape (n_thresholds,), optional
        Thresholds to leave out, whose numbers are NaN; without, none.

    References
    ----------
    W. Maurer, L. Hothorn, W. Lehmacher, "Multiple comparisons in drug clinical trials and
    preclinical assays: a-priori ordered hypotheses", Biometrie in der chemisch-pharmazeutischen
    Industrie 6 (1995) 3.
    """
    skew = np.zeros(len(difference.value)) if skewness is None else skewness
    columns = (difference.value, difference.se, difference.se_data, skew)
    thresholds = [
        _Threshold(*numbers, n_examples, n_groups, STEPS[limit.metric])
        for numbers in zip(*columns, strict=True)
    ]
    upper = np.array([threshold.upper_bound(n_examples) for threshold in thresholds])
    out = np.zeros(len(upper), bool) if failed is None else failed
    tested = np.flatnonzero(~out) if not out[0] else np.array([], int)
    n_passed = int(np.logical_and.accumulate(upper[tested] < limit.value).sum())
    index = int(tested[n_passed - 1]) if n_passed else -1
    needed = None
    if n_passed < len(tested):
        needed = thresholds[tested[n_passed]].n_examples_for(limit.value)
    return Choice(limit, CONFIDENCE, upper, index, out, needed)


@dataclass(frozen=True)
class _Threshold:
    """A difference at one threshold, and what its errors would be with more examples."""

    value: float
    se: float
    se_data: float
    skewness: float
    n_examples: int
    n_groups: int
    step: float

    def upper_bound(self, n_examples: int) -> float:
        """Bound with that many test examples.

        What counts examples moves in steps of 1/N, and where no example moved its error is 0.
        So one more is taken to be lost (Edwards 1948), and the variance to be that with one more
        each way (Bonett and Price 2012): 3.33/N where nothing moved, about the exact bound, 3/N.

        A few large losses among many small ones make both mean and error too small where they
        happen to be missing: the term in the skewness (Johnson 1978; Hall 1992) is for them.
        """
        if n_examples < 2:
            return math.nan
        data = self.se_data**2 * self.n_examples / n_examples + 2 * (self.step / n_examples) ** 2
        total = self.se**2 + data
        if total == 0:
            return self.value
        share = data / total  # Welch (1947)
        freedom = 1 / (share**2 / (n_examples - 1) + (1 - share) ** 2 / (self.n_groups - 1))
        t = _student(freedom)
        skewed = max(self.skewness, 0.0) * data**1.5 / total * (1 + 2 * t * t)
        shift = self.step / n_examples + skewed / (6 * math.sqrt(n_examples))
        return self.value + shift + t * math.sqrt(total)

    def n_examples_for(self, limit: float) -> int | None:
        """Number of examples, at least those there are, whose bound is below the limit."""
        low, high = self.n_examples, _MOST_EXAMPLES
        if not self.upper_bound(high) < limit:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.upper_bound(middle) < limit else (middle, high)
        return high


def _student(freedom: float) -> float:
    """Quantile of Student's distribution at the confidence."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, CONFIDENCE))


def sentences(
    choice: Choice,
    value: Float64Array,
    cuts: Sequence[str],
    pruned_fraction: Float64Array,
    n_examples: int,
) -> str:
    """The choice in words, one or two sentences.

    Parameters
    ----------
    value : float64 array, shape (n_thresholds,)
        The differences.
    cuts : sequence of str
        What each threshold is called: ``SNR <= 0.5``.
    pruned_fraction : float64 array, shape (n_thresholds,)
    n_examples : int
    """
    limit, name = choice.limit.value, _NAMES[choice.limit.metric]
    level = f"{100 * choice.confidence:g} % confidence"
    if choice.failed[0]:
        return f"choice: none. {cuts[0]}, which all others are compared with, failed."
    if choice.index < 0:
        enough = f"; {choice.n_examples_needed} or more could" if choice.n_examples_needed else ""
        return (
            f"choice: none. {n_examples} test examples are too few to show an {name} below "
            f"{limit:g} at {level}, even of the unpruned network against itself{enough}."
        )
    if choice.index:
        text = (
            f"choice: {cuts[choice.index]}, {100 * pruned_fraction[choice.index]:.2f} % pruned: "
            f"{name} below {limit:g} at {level} (estimated: {_signed(value[choice.index])})."
        )
    else:
        text = f"choice: no pruning. At no threshold is an {name} below {limit:g} shown at {level}."
    if choice.failed.any():
        left_out = [cut for cut, is_out in zip(cuts, choice.failed, strict=True) if is_out]
        text += f" Left out, as it failed: {', '.join(left_out)}."
    after = np.flatnonzero(~choice.failed[choice.index + 1 :])
    if not after.size:
        return text
    following = choice.index + 1 + int(after[0])
    return f"{text} {_why_not(choice, float(value[following]), cuts[following], n_examples)}"


def _why_not(choice: Choice, value: float, cut: str, n_examples: int) -> str:
    """Why the next threshold is not chosen; without its bound, which is no claim after looking."""
    estimate = f"At {cut} it is estimated at {_signed(value)}"
    if not value < choice.limit.value:
        return f"{estimate}."
    if choice.n_examples_needed is None:
        return f"{estimate}: more draws (--num_monte_carlo) are needed to tell."
    return (
        f"{estimate}: too few test examples to tell ({n_examples}; about "
        f"{_rounded_up(choice.n_examples_needed)} would do, if it stays at that)."
    )


def _rounded_up(number: int) -> int:
    """To two digits: an estimate is no better."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def skewness_of(values: Float64Array) -> Float64Array:
    """Skewness over the last axis; 0 where nothing differs.

    Parameters
    ----------
    values : float64 array, shape (n_thresholds, n_examples)
    """
    away = values - values.mean(axis=-1, keepdims=True)
    variance = (away**2).mean(axis=-1)
    return (
        np.where(variance > 0, (away**3).mean(axis=-1), 0.0)
        / np.where(variance > 0, variance, 1.0) ** 1.5
    )


def _signed(value: float) -> str:
    return f"{value + 0.0:.2g}" if value else "0"
