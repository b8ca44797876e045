"""Test that a paired cost is below a limit, by Student's t, for many examples. Pure.

Where a few losses are rare and large it passes more often than its level says: ``exact_tests`` has
what holds at any number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .._typing import Float64Array
from .estimates import Metric
from .exact_tests import POWER, least

_LEAST_LEVEL, _N_HALVINGS = 1e-12, 45


@dataclass(frozen=True)
class AsymptoticTest:
    """Costs at each threshold, and what their errors would be with more examples.

    Attributes
    ----------
    difference : Metric, arrays of shape (n_thresholds,)
        Less is better.
    limit : float
        What the cost has to be below.
    n_examples, n_groups : int
        Of the test set, and of the jackknife that gave ``difference.se``; at least 2.
    step : float
        By how much one example can move N times the difference, where it counts examples.
    skewness : float64 array, shape (n_thresholds,)
        Of the differences over examples, where they do not merely count.
    """

    difference: Metric
    limit: float
    n_examples: int
    n_groups: int
    step: float
    skewness: Float64Array

    mode = "asymptotic"

    @property
    def value(self) -> Float64Array:
        """What is compared with the limit, shape (n_thresholds,)."""
        return self.difference.value

    @cached_property
    def p_values(self) -> Float64Array:
        """Least level at which each bound is below the limit; 1 where none up to a half is."""
        low = np.full(len(self.value), np.log(_LEAST_LEVEL))
        high = np.full(len(self.value), np.log(0.5))
        is_ever = self.upper_bound(0.5) < self.limit
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2
            is_below = self.upper_bound(np.exp(middle)) < self.limit
            low, high = np.where(is_below, low, middle), np.where(is_below, middle, high)
        return np.where(is_ever, np.exp(high), 1.0)

    def p_value(self, index: int) -> float:
        """That of one threshold."""
        return float(self.p_values[index])

    def upper_bound(
        self, level: float | Float64Array, n_examples: int | None = None, more_se: float = 0.0
    ) -> Float64Array:
        """One-sided bound of each difference, shape (n_thresholds,).

        What counts examples moves in steps of 1/N, and where no example moved its error is 0.
        So one more is taken to be lost (Edwards 1948), and the variance to be that with one more
        each way (Bonett and Price 2012): 3.33/N where nothing moved, about the exact bound, 3/N.

        A few large losses among many small ones make both mean and error too small where they
        happen to be missing: the term in the skewness (Johnson 1978; Hall 1992) is for them.

        Parameters
        ----------
        level : float, or float64 array of shape (n_thresholds,)
            Share of test sets in which the bound may be below the difference.
        n_examples : int, optional
            Without, those that there are; else errors are scaled to so many.
        more_se : float
            Standard errors to add.
        """
        from scipy.special import stdtrit

        n = self.n_examples if n_examples is None else n_examples
        if n < 2:
            return np.full(len(self.value), np.nan)
        se, se_data = self.difference.se, self.difference.se_data
        data = se_data**2 * self.n_examples / n + 2 * (self.step / n) ** 2
        total = se**2 + data
        some = np.where(total == 0, 1.0, total)
        share = data / some  # Welch (1947)
        freedom = 1 / (share**2 / (n - 1) + (1 - share) ** 2 / (self.n_groups - 1))
        t = stdtrit(freedom, 1 - np.asarray(level))
        skewed = np.maximum(self.skewness, 0.0) * data**1.5 / some * (1 + 2 * t * t)
        shift = self.step / n + skewed / (6 * np.sqrt(n))
        return np.where(total == 0, self.value, self.value + shift + (t + more_se) * np.sqrt(total))

    def examples_for(self, index: int, level: float) -> int | None:
        """Examples whose bound would be below the limit nine times in ten; None: only more draws.

        More than there are, were the difference as it is estimated.
        """
        here = self._of(index)
        return least(
            lambda n: bool(here.upper_bound(level, n, POWER)[0] < self.limit), self.n_examples + 1
        )

    def fewest(self, level: float) -> int | None:
        """Examples with which the unpruned network is shown to cost less than itself."""
        first = self._of(0)
        return least(
            lambda n: bool(first.upper_bound(level, n)[0] < self.limit), self.n_examples + 1
        )

    def largest_loss(self) -> Float64Array:
        """Loss of a single example, unseen, with which the claim at each threshold can be wrong.

        Of what the test set has none the share can be 3/N, at 95 %.
        """
        return self.n_examples * (self.limit - self.value) / 3

    def _of(self, index: int) -> AsymptoticTest:
        columns = (self.difference.value, self.difference.se, self.difference.se_data)
        one = Metric(*(column[index : index + 1] for column in columns))
        return replace(self, difference=one, skewness=self.skewness[index : index + 1])


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
