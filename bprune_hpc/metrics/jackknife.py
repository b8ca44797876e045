"""Standard errors of statistics of Monte Carlo averages, by deleting groups of draws.

Pure; knows nothing of networks. The delete-m_j jackknife of Busing, Meijer and van der Leeden
serves groups of unequal size, and is the ordinary jackknife when they are equal.

References
----------
F. Busing, E. Meijer, R. van der Leeden, "Delete-m jackknife for unequal m", Statistics and
Computing 9 (1999) 3-8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._typing import Float64Array


def jackknife(
    estimate: Float64Array, deleted: Float64Array, sizes: Sequence[int]
) -> tuple[Float64Array, Float64Array]:
    """Bias-corrected estimate and standard error from estimates with one group left out.

    Parameters
    ----------
    estimate : float64 array, shape (...)
        Statistic of all replicates.
    deleted : float64 array, shape (n_groups, ...)
        Statistic without each group in turn.
    sizes : sequence of int, length n_groups
        Number of replicates in each group.

    Returns
    -------
    corrected, se : float64 array, shape (...)
        The estimate less its jackknife bias (of first order in 1 / n_replicates), and the standard
        error; both NaN where there are fewer than two groups.
    """
    n_groups = len(sizes)
    if n_groups < 2:
        nothing = np.full(estimate.shape, np.nan)
        return nothing, nothing.copy()
    share = np.asarray(sizes, np.float64) / sum(sizes)
    share = share.reshape(-1, *[1] * estimate.ndim)
    corrected = n_groups * estimate - _sum_over_groups((1 - share) * deleted)
    pseudo = estimate / share - (1 / share - 1) * deleted
    variance = _sum_over_groups((pseudo - corrected) ** 2 / (1 / share - 1)) / n_groups
    # With nothing that differs between groups, rounding alone is left: that is an error of zero.
    is_same = (deleted == estimate).all(axis=0)
    corrected = np.where(is_same, estimate, corrected)[()]
    return corrected, np.sqrt(np.where(is_same, 0.0, variance))


def jackknife_deviations(
    estimate: Float64Array, deleted: Float64Array, sizes: Sequence[int]
) -> Float64Array:
    """What the squares of which add up to the jackknife's variance, shape (n_groups, ...).

    Parameters and shapes as for :func:`jackknife`; their products over several numbers add up to
    covariances.
    """
    corrected, _ = jackknife(estimate, deleted, sizes)
    share = np.asarray(sizes, np.float64) / sum(sizes)
    share = share.reshape(-1, *[1] * estimate.ndim)
    pseudo = estimate / share - (1 / share - 1) * deleted
    away: Float64Array = (pseudo - corrected) / np.sqrt((1 / share - 1) * len(sizes))
    return np.where((deleted == estimate).all(axis=0), 0.0, away)


def with_correction(
    estimate: Float64Array, corrected: Float64Array, se: Float64Array
) -> Float64Array:
    """Standard error of a corrected estimate: the correction counts as uncertain by its own size.

    Where the correction is a large part of the error, so is what it leaves, of higher order in
    1 / n_replicates, and draws that miss the rare large terms have too small an estimate and too
    small an error at once. Of order 1 / n_replicates beside the error's 1 / sqrt(n_replicates), it
    fades where there are many.

    Parameters
    ----------
    estimate, corrected, se : float64 array, shape (...)
        What :func:`jackknife` took and gave.
    """
    return np.hypot(se, corrected - estimate)


def _sum_over_groups(values: Float64Array) -> Float64Array:
    # One after the other: NumPy adds a first axis in another order when it is alone, and the bits
    # of one threshold would then depend on whether there are others.
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
