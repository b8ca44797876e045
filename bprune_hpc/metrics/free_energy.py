"""Variational free energy along a sweep, and its minimum: how far the data say to prune.

Free energy = complexity - accuracy: the KL divergence of the weights that are left from the prior,
in closed form, and the expected negative log-likelihood of the training data, summed over examples,
which is a mean over draws. Pure. The closed forms do not belong here
(``posterior.model_reduction``).

The data are the ones that the posterior is of, and no sample of others: errors are of the draws
alone, which are independent pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._typing import BoolArray, Float64Array
from ..posterior.model_reduction import ClosedForm
from .estimates import number_with_error
from .threshold_selection import LEVEL, confidence_in_words, notes


@dataclass(frozen=True)
class Sum:
    """A sum over the training data, nats, with the Monte Carlo error that it has.

    Attributes
    ----------
    value, se : float64 array, shape (n_thresholds,)
        NaN where there is none: a threshold failed, or a single pair has no error.
    """

    value: Float64Array
    se: Float64Array


@dataclass(frozen=True)
class FreeEnergy:
    """The free energy at each threshold.

    Attributes
    ----------
    complexity : float64 array, shape (n_thresholds,), nats
    expected_nll, free_energy : Sum
    expected_nll_change, free_energy_change : Sum
        Less that of the same draws at the first threshold.
    predicted : Sum or None
        By Bayesian model reduction from the first threshold on: what is measured there, and the
        loss of evidence in closed form.
    p_value : float64 array, shape (n_thresholds,)
        Least level at which the free energy is shown to be lower than at the first threshold,
        whichever threshold is picked after looking: multiplied by their number (Bonferroni).
    may_be_minimum : bool array, shape (n_thresholds,)
        Those that no other threshold is shown to lie below, at 95 % for all together.
    """

    complexity: Float64Array
    expected_nll: Sum
    free_energy: Sum
    expected_nll_change: Sum
    free_energy_change: Sum
    predicted: Sum | None
    p_value: Float64Array
    may_be_minimum: BoolArray

    @property
    def complexity_change(self) -> Float64Array:
        """Less that at the first threshold."""
        return self.complexity - self.complexity[0]

    @property
    def predicted_change(self) -> Float64Array | None:
        """What is predicted less the first."""
        return None if self.predicted is None else self.predicted.value - self.predicted.value[0]

    @property
    def minimum(self) -> int:
        """Index of the least free energy as measured; -1 where there is none."""
        return _least(self.free_energy.value)

    @property
    def predicted_minimum(self) -> int:
        """Index of the least that is predicted; -1 where nothing is."""
        return -1 if self.predicted is None else _least(self.predicted.value)


def free_energy(
    nll: Float64Array, n_pairs: int, closed: ClosedForm, failed: BoolArray
) -> FreeEnergy:
    """The free energy from what draws say of the training data.

    Parameters
    ----------
    nll : float64 array, shape (n_thresholds, n_draws), nats
        Negative log-likelihood of each draw, summed over the examples.
    n_pairs : int
        Antithetic pairs (or single draws) that these are, one after the other.
    closed : ClosedForm
        Of the same thresholds.
    failed : bool array, shape (n_thresholds,)
        Thresholds whose numbers mean nothing.
    """
    of_pairs = np.where(failed[:, None], np.nan, nll).reshape(len(nll), n_pairs, -1).mean(axis=2)
    complexity = np.where(failed, np.nan, closed.complexity)
    expected, change = _mean(of_pairs), _mean(of_pairs - of_pairs[0])
    total = Sum(complexity + expected.value, expected.se)
    total_change = Sum(complexity - complexity[0] + change.value, change.se)
    predicted = None
    if closed.evidence_lost is not None:
        lost = np.where(failed, np.nan, closed.evidence_lost - closed.evidence_lost[0])
        predicted = Sum(total.value[0] + lost, np.where(failed, np.nan, total.se[0]))
    n_others = max(len(nll) - 1, 1)
    p_below_first = _p_value(-total_change.value, total_change.se, n_pairs)
    is_beaten = np.zeros(len(nll), bool)
    for other in np.flatnonzero(~failed):
        away = _mean(of_pairs - of_pairs[other])
        rise = complexity - complexity[other] + away.value
        is_beaten |= _p_value(rise, away.se, n_pairs) * n_others <= LEVEL
    return FreeEnergy(
        complexity=complexity,
        expected_nll=expected,
        free_energy=total,
        expected_nll_change=change,
        free_energy_change=total_change,
        predicted=predicted,
        p_value=np.minimum(p_below_first * n_others, 1.0),
        may_be_minimum=~is_beaten & ~failed,
    )


def choose(energy: FreeEnergy, n_comparisons: int) -> int:
    """The minimum, if it is shown to lie below the first threshold; else the first, 0; or -1.

    Parameters
    ----------
    n_comparisons : int
        Choices among which this one is, which share the 5 %.
    """
    at = energy.minimum
    if at < 0 or math.isnan(energy.free_energy_change.value[at]):
        return -1
    return at if energy.p_value[at] <= LEVEL / n_comparisons else 0


def claim(
    index: int, n_comparisons: int, thresholds: Sequence[str], pruned_fraction: Float64Array
) -> str:
    """The choice in words, without its reasons."""
    confidence = confidence_in_words(n_comparisons)
    if index < 0:
        return f"choice: none. {thresholds[0]} failed, and all others are compared with it."
    if index == 0:
        return (
            "choice: no pruning. At no threshold is the free energy shown to be lower than "
            f"unpruned at {confidence} {notes('least free energy', n_comparisons)}."
        )
    return (
        f"choice: {thresholds[index]}, {100 * pruned_fraction[index]:.2f} % pruned: the least free "
        f"energy, lower than unpruned at {confidence} {notes('draws alone', n_comparisons)}."
    )


def sentence(energy: FreeEnergy, pruned_fraction: Float64Array) -> str:
    """Where the minimum lies, in words."""

    at = energy.minimum
    if at < 0:
        return "free energy: none; the thresholds failed."
    value = number_with_error(energy.free_energy.value[at], energy.free_energy.se[at])
    text = f"free energy: least at {100 * pruned_fraction[at]:.2f} % pruned, {value} nats"
    others = np.flatnonzero(energy.may_be_minimum)
    if others.size > 1:
        first, last = 100 * pruned_fraction[others[0]], 100 * pruned_fraction[others[-1]]
        text += (
            f"; of draws alone, it may lie at {others.size} thresholds from {first:.2f} to "
            f"{last:.2f} % pruned"
        )
    if (theory := energy.predicted_minimum) >= 0:
        text += f"; in closed form at {100 * pruned_fraction[theory]:.2f} %"
    return f"{text}."


def _mean(of_pairs: Float64Array) -> Sum:
    """Mean over pairs, and its standard error."""
    n_pairs = of_pairs.shape[1]
    mean = np.ascontiguousarray(of_pairs).mean(axis=1)
    if n_pairs < 2:
        return Sum(mean, np.full(len(mean), np.nan))
    return Sum(mean, of_pairs.std(axis=1, ddof=1) / math.sqrt(n_pairs))


def _p_value(excess: Float64Array, se: Float64Array, n_pairs: int) -> Float64Array:
    """Of a one-sided t test that an excess is positive; 1 where it cannot be told."""
    from scipy.special import stdtr

    if n_pairs < 2:
        return np.ones(len(excess))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = excess / se  # no error at all: infinite, or NaN where nothing differs
    p_value = stdtr(n_pairs - 1, -np.where(np.isnan(ratio), 0.0, ratio))
    return np.where(np.isnan(ratio), 1.0, p_value)


def _least(values: Float64Array) -> int:
    return int(np.nanargmin(values)) if np.isfinite(values).any() else -1
