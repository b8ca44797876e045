"""Intervals that hold a number with a given confidence, in finite samples as well. Pure.

Arrays in, both ends out; which metric has which kind stands in ``metrics.definitions``. All take a
multiplier ``t``, Student's quantile of the confidence and of what is known of the errors.

References
----------
E. B. Wilson, JASA 22 (1927) 209: shares. D. G. Bonett, R. M. Price, Journal of Educational and
Behavioral Statistics 37 (2012) 479: differences of paired shares. N. J. Johnson, JASA 73 (1978)
536, and P. Hall, JRSS B 54 (1992) 221: means of what is skewed. M. P. Fay, E. J. Feuer, Statistics
in Medicine 16 (1997) 791: weighted sums of few events. G. Y. Zou, A. Donner, Statistics in
Medicine 27 (2008) 1693: differences of what has intervals.
"""

from __future__ import annotations

import numpy as np

from .._typing import Float64Array
from .quantiles import gamma_quantile

Interval = tuple[Float64Array, Float64Array]

TAIL = 0.05
"""Share of cases in which an interval may miss."""


def freedom_of_sum(
    one: Float64Array, freedom_of_one: float, other: Float64Array, freedom_of_other: float
) -> Float64Array:
    """Degrees of freedom of a sum of two estimated variances (Welch, Biometrika 34 (1947) 28)."""
    total = one + other
    share = np.where(total > 0, other, 1.0) / np.where(total > 0, total, 1.0)
    freedom: Float64Array = 1 / (
        share**2 / max(freedom_of_other, 1) + (1 - share) ** 2 / max(freedom_of_one, 1)
    )
    return freedom


def of_mean(
    value: Float64Array, variance: Float64Array, data: Float64Array, lean: Float64Array,
    t: Float64Array,
) -> Interval:  # fmt: skip
    """Of a mean: Student's, and further out on the side of the long tail.

    By the term in the skewness, and by one more value of those that make it: such a value adds to
    the mean their third moment over their second, which where few count is what it adds to the
    upper end of a Poisson variable (as in :func:`of_positive`).

    Parameters
    ----------
    value, variance : float64 array, shape (...)
        The mean, and the sum of both errors' squares.
    data : float64 array, shape (...)
        The part of ``variance`` that is of the examples.
    lean : float64 array, shape (...)
        Skewness of the values over the root of their number.
    """
    some = np.where(variance > 0, variance, 1.0)
    shift = lean * (data**1.5 / some * (1 + 2 * t * t) / 6 + np.sqrt(data))
    half = t * np.sqrt(variance)
    return value - half + np.minimum(shift, 0.0), value + half + np.maximum(shift, 0.0)


def of_share(
    share: Float64Array, n: float | Float64Array, variance: Float64Array, t: Float64Array
) -> Interval:
    """Of a share of ``n`` examples that has a further variance: Wilson's, solved with both.

    The ends are where \\|share - p\\| is t times the root of p (1 - p) / n + variance.

    Parameters
    ----------
    share : float64 array, shape (...), from 0 to 1
    n : float or float64 array, shape (...)
        Examples, or as many independent ones as they are worth.
    variance : float64 array, shape (...)
        Of the draws.
    """
    k = t * t / n
    middle = 2 * share + k
    root = np.sqrt(np.maximum(middle**2 - 4 * (1 + k) * (share**2 - t * t * variance), 0.0))
    low, high = (middle - root) / (2 * (1 + k)), (middle + root) / (2 * (1 + k))
    # Where all or none are, rounding alone keeps the ends from that.
    return np.minimum(np.maximum(low, 0.0), share), np.maximum(np.minimum(high, 1.0), share)


def of_share_difference(
    total: Float64Array, squares: Float64Array, n: int, variance: Float64Array, t: Float64Array
) -> Interval:
    """Of a mean of differences from -1 to 1, with one more example counted each way.

    Parameters
    ----------
    total, squares : float64 array, shape (...)
        Sums over the examples of the differences, and of their squares.
    n : int
        Number of examples.
    variance : float64 array, shape (...)
        Of the draws.
    """
    middle = total / (n + 2)
    half = t * np.sqrt(((squares + 2) / (n + 2) - middle**2) / (n + 2) + variance)
    return np.maximum(middle - half, -1.0), np.minimum(middle + half, 1.0)


def of_positive(
    value: Float64Array, variance: Float64Array, unit: float, t: Float64Array
) -> Interval:
    """Of a weighted sum of events that may be few: quantiles of gamma distributions.

    Parameters
    ----------
    value, variance : float64 array, shape (...)
        The sum, and the sum of both errors' squares.
    unit : float
        What one event adds on average: the upper end has one more.
    """
    some = np.where((value > 0) & (variance > 0), variance, 1.0)
    positive = np.where((value > 0) & (variance > 0), value, 1.0)
    low = gamma_quantile(positive**2 / some, -t) * some / positive
    more, its_variance = value + unit, variance + unit**2
    high = gamma_quantile(more**2 / its_variance, t) * its_variance / more
    low = np.where(variance > 0, low, value)
    low = np.where(value > 0, np.minimum(low, value), 0.0)
    return np.where(np.isnan(high), np.nan, low), np.maximum(high, value)


def of_biased(
    value: Float64Array, variance: Float64Array, bias: tuple[Float64Array, Float64Array], n: int,
    t: Float64Array,
) -> Interval:  # fmt: skip
    """Of a positive number that is too large, by an unknown amount between two bounds.

    However well ``n`` examples agree with what is expected of them, a share of others can be there
    that do not: the upper end is no less than Wilson's of a share that is found to be 0.
    """
    least, most = bias
    half = t * np.sqrt(variance)
    return np.maximum(value - most - half, 0.0), np.maximum(
        value - least + half, t * t / (n + t * t)
    )


def of_difference(
    value: Float64Array, interval: Interval, correlation: Float64Array, sign: float
) -> Interval:
    """Of the difference to the first threshold, from the intervals of both and their correlation.

    Parameters
    ----------
    value : float64 array, shape (n_thresholds, ...)
    interval : tuple of float64 array, shape (n_thresholds, ...)
    correlation : float64 array, shape (n_thresholds, ...)
        Of the errors here and at the first threshold.
    sign : float
    """
    below, above = value - interval[0], interval[1] - value
    difference = value - value[0]

    def half(one: Float64Array, other: Float64Array) -> Float64Array:
        squares = one**2 + other**2 - 2 * correlation * one * other
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

    ends = difference - half(below, above[0]), difference + half(above, below[0])
    low, high = ends if sign > 0 else (-ends[1], -ends[0])
    low[0], high[0] = 0.0, 0.0
    return low, high
