"""Bands that hold a number at all thresholds of a sweep together, at 95 %. Pure.

The largest of the errors at all thresholds, in units of each, is simulated from what draws and
examples have added to them together (sup-t): thresholds whose errors go together count as few.

References
----------
J. L. Montiel Olea, M. Plagborg-Moller, "Simultaneous confidence bands: theory, implementation, and
an application to SVARs", Journal of Applied Econometrics 34 (2019) 1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .._typing import Float32Array, Float64Array
from .intervals import TAIL

N_GROUPS_OF_EXAMPLES = 100
_N_SIMULATIONS = 4000


def group_deviations(influence: Float64Array) -> Float64Array:
    """What groups of examples add to the error of a mean, shape (n_groups, n_thresholds).

    Parameters
    ----------
    influence : float64 array, shape (n_thresholds, n_examples)
        Values of which it is the mean; example i is in group i mod 100.
    """
    n_examples = influence.shape[1]
    away = influence - influence.mean(axis=1, keepdims=True)
    n_groups = min(N_GROUPS_OF_EXAMPLES, n_examples)
    padded = np.zeros((len(away), -(-n_examples // n_groups), n_groups))
    padded.reshape(len(away), -1)[:, :n_examples] = away
    return padded.sum(axis=1).T / np.sqrt(n_examples * max(n_examples - 1, 1))


def simultaneous_tail(deviations: Float64Array) -> float:
    """Share of cases in which each interval may miss, so that all hold together in 95 %.

    Parameters
    ----------
    deviations : float64 array, shape (n, n_thresholds)
        Of independent parts of the error, the squares of which add up to its variance.
    """
    size = np.sqrt((deviations**2).sum(axis=0))
    moves = np.isfinite(size) & (size > 0)
    if not moves.any():
        return TAIL
    z = _normals(len(deviations)) @ (deviations[:, moves] / size[moves]).astype(np.float32)
    largest = np.sort(np.abs(z).max(axis=1))
    quantile = float(largest[int(np.ceil((1 - TAIL) * len(largest))) - 1])
    return float(min(math.erfc(quantile / math.sqrt(2)), TAIL))


@lru_cache(maxsize=2)
def _normals(number: int) -> Float32Array:
    return np.random.default_rng(0).standard_normal((_N_SIMULATIONS, number), np.float32)
