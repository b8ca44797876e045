"""Quantiles of a few distributions, in NumPy: to import SciPy takes longer than a small sweep.

Pure. Student's is good to three digits from two degrees of freedom on, and below that too large.

References
----------
G. W. Hill, "Algorithm 396: Student's t-quantiles", Communications of the ACM 13 (1970) 619. E. B.
Wilson, M. M. Hilferty, "The distribution of chi-square", PNAS 17 (1931) 684.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .._typing import Float64Array

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def normal_below(x: Float64Array) -> Float64Array:
    """Probability that a standard normal is below each of some numbers."""
    below: Float64Array = _erfc(-x / math.sqrt(2)) / 2
    return below


@lru_cache
def normal_quantile(tail: float) -> float:
    """What a standard normal is above or below minus it with a probability of ``tail``."""
    low, high = 0.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) > tail else (low, middle)
    return high


def t_quantile(freedom: Float64Array, tail: float) -> Float64Array:
    """The same of Student's t, of one degree of freedom at least.

    Parameters
    ----------
    freedom : float64 array, shape (...)
    tail : float
        At most 0.2.
    """
    n = np.maximum(freedom, 1.0)
    a = 1 / (n - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * np.sqrt(a * math.pi / 2) * n
    far = (d * tail) ** (2 / n)
    x = -normal_quantile(tail)
    c = np.where(n < 5, c + 0.3 * (n - 4.5) * (x + 0.6), c)
    c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
    y = x * x
    near = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
    near = np.expm1(a * near**2)
    tails = (1 / (((n + 6) / (n * far) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * far
    tails = (tails - 1) * (n + 1) / (n + 2) + 1 / far
    quantile = np.sqrt(n * np.where(far > 0.05 + a, near, tails))
    return np.where(n < 1.01, math.tan(math.pi / 2 * (1 - tail)), quantile)


def gamma_quantile(shape: Float64Array, z: Float64Array) -> Float64Array:
    """What a gamma variable of scale 1 is below as often as a standard normal is below ``z``."""
    some = np.maximum(shape, 1e-300)
    root = 1 - 1 / (9 * some) + z / (3 * np.sqrt(some))
    return some * np.maximum(root, 0.0) ** 3
