"""Monte Carlo errors of statistics that move in steps, by balanced half-samples. Pure.

A statistic of half of the draws is as far from that of all draws as that is from the statistic of
infinitely many, draw for draw: the variance of an average of S/2 out of S draws around that of all
of them is 1/S as well. That holds for steps also, of which leaving out a twentieth sees hardly any.
The mean square is that of the error, bias of order 1/S included. Halves are so chosen
that for an average of draws it is exactly the jackknife's.

References
----------
P. J. McCarthy, "Pseudo-replication: half samples", Review of the International Statistical
Institute 37 (1969) 239. R. E. A. C. Paley, "On orthogonal matrices", Journal of Mathematics and
Physics 12 (1933) 311.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .._typing import BoolArray, Float64Array
from ..posterior.draws import N_GROUPS

_ROUNDING = 1e-12
"""Of statistics of order 1: what differs by less does not differ."""


@lru_cache
def half_samples(n_groups: int) -> BoolArray:
    """Which groups of draws are in each half, shape (n_halves, n_groups).

    Of 20 groups 19 halves of 10, in which every two groups are as often together as apart but for
    once; of fewer, what is left of those. None of a single group.
    """
    prime = N_GROUPS - 1
    is_square = np.isin(np.arange(prime), np.arange(1, prime) ** 2 % prime)
    shift = np.arange(prime)
    signs = np.ones((prime, N_GROUPS), bool)
    signs[:, 1:] = is_square[(shift - shift[:, None]) % prime]
    signs[1::2] = ~signs[1::2]  # else the first group were in all of them
    signs = signs[:, :n_groups]
    return np.unique(signs[signs.any(axis=1) & ~signs.all(axis=1)], axis=0)


def half_deviations(
    estimate: Float64Array, halves: Float64Array, sizes: Sequence[int]
) -> Float64Array:
    """What the squares of which add up to the variance, shape (n_halves, ...).

    Parameters
    ----------
    estimate : float64 array, shape (...)
        Statistic of all replicates.
    halves : float64 array, shape (n_halves, ...)
        Statistic of each of :func:`half_samples`.
    sizes : sequence of int, length n_groups
        Number of replicates in each group.
    """
    share = half_samples(len(sizes)) @ np.asarray(sizes, np.float64) / sum(sizes)
    weight = np.sqrt(share / (1 - share) / len(share)).reshape(-1, *[1] * estimate.ndim)
    away = halves - estimate
    return weight * np.where(np.abs(away) < _ROUNDING, 0.0, away)


def half_sample_error(
    estimate: Float64Array, halves: Float64Array, sizes: Sequence[int]
) -> Float64Array:
    """Standard error, shape (...); NaN where there are fewer than two groups.

    Parameters and shapes as for :func:`half_deviations`.
    """
    if len(sizes) < 2:
        return np.full(estimate.shape, np.nan)
    total = np.zeros(estimate.shape)
    for away in half_deviations(estimate, halves, sizes):  # in one order, however many there are
        total = total + away * away
    return np.sqrt(total)
