"""How well a score tells one kind of example from another: AUROC, AUPR, risk and coverage.

Pure: scores and outcomes in, numbers out. Every function also takes rows of masks and gives one
number for each, after a single sort: that is what a jackknife over examples needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _sorted_groups(score: Floats, *columns: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sums of each column over examples of equal score, scores ascending.

    Columns have shape (n_masks, n_examples), results (n_masks, n_distinct).
    """
    order = np.argsort(score)  # in any order among equals
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    return [np.add.reduceat(column[:, order], starts, axis=1) for column in columns]


def _split(positive: Bools, keep: Bools | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kept = np.ones((1, positive.size), bool) if keep is None else keep
    return (kept & positive).astype(np.int64), (kept & ~positive).astype(np.int64)


def _one_or_all(values: Floats, keep: Bools | None) -> Floats:
    return values[0] if keep is None else values


def auroc(score: Floats, positive: Bools, keep: Bools | None = None) -> Floats:
    """Area under the receiver operating characteristic: P(score+ > score-) + P(equal) / 2.

    Parameters
    ----------
    score : float array, shape (n_examples,)
        Higher for what is taken to be positive.
    positive : bool array, shape (n_examples,)
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets to work it out for.

    Returns
    -------
    float64, or array of shape (n_masks,)
        NaN where all examples are of one kind.

    References
    ----------
    J. Hanley, B. McNeil, Radiology 143 (1982) 29: the area is the Mann-Whitney statistic.
    """
    ups, downs = _sorted_groups(score, *_split(positive, keep))
    below = np.cumsum(downs, axis=1) - downs
    wins = (ups * (2 * below + downs)).sum(axis=1)
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.where(pairs > 0, wins / (2.0 * pairs), np.nan)
    return _one_or_all(area, keep)


def average_precision(score: Floats, positive: Bools, keep: Bools | None = None) -> Floats:
    """Area under the precision-recall curve, as the sum of precision times the rise in recall.

    Parameters and shapes as for :func:`auroc`; NaN where nothing is positive. Without knowledge
    it is the share of positives, not one half.

    References
    ----------
    J. Davis, M. Goadrich, ICML 2006: why the curve is not interpolated linearly.
    """
    ups, downs = (column[:, ::-1] for column in _sorted_groups(score, *_split(positive, keep)))
    true = np.cumsum(ups, axis=1)
    called = true + np.cumsum(downs, axis=1)
    total = true[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(called > 0, true / called, 0.0)
        area = np.where(total > 0, (ups * precision).sum(axis=1) / total, np.nan)
    return _one_or_all(area, keep)


def risk_at_coverage(confidence: Floats, wrong: Bools, n_points: int = 100) -> Floats:
    """Share of errors among the most confident examples, at equal steps of coverage.

    Examples of equal confidence are taken in every order at once: a part of them has the share of
    errors that all of them have.

    Parameters
    ----------
    confidence : float array, shape (n_examples,)
    wrong : bool array, shape (n_examples,)
    n_points : int
        Coverages are 1/n_points, 2/n_points, ..., 1.

    Returns
    -------
    float64 array, shape (n_points,)
    """
    errors, counts = _by_confidence(confidence, wrong, None)
    covered = np.concatenate([[0], np.cumsum(counts[0])]).astype(np.float64)
    failed = np.concatenate([[0], np.cumsum(errors[0])]).astype(np.float64)
    wanted = np.arange(1, n_points + 1) / n_points * wrong.size
    return np.interp(wanted, covered, failed) / wanted


def area_under_risk_coverage(confidence: Floats, wrong: Bools, keep: Bools | None = None) -> Floats:
    """Mean over all coverages i/n of the share of errors among the i most confident examples.

    Parameters
    ----------
    confidence : float array, shape (n_examples,)
    wrong : bool array, shape (n_examples,)
    keep : bool array, shape (n_masks, n_examples), optional

    Returns
    -------
    float64, or array of shape (n_masks,)
        NaN for an empty subset.

    References
    ----------
    Y. Geifman, R. El-Yaniv, "Selective classification for deep neural networks", NIPS 2017.
    """
    errors, counts = _by_confidence(confidence, wrong, keep)
    n_before = np.cumsum(counts, axis=1) - counts
    errors_before = np.cumsum(errors, axis=1) - errors
    n = counts.sum(axis=1)
    # Within a group of equal confidence the i-th example (i > n_before) has the expected risk
    # (errors_before + (i - n_before) * rate) / i, whose sum over i needs harmonic numbers.
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, wrong.size + 1))])
    rise = harmonic[n_before + counts] - harmonic[n_before]
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(counts > 0, errors / counts, 0.0)
        total = ((errors_before - n_before * rate) * rise + rate * counts).sum(axis=1)
        area = np.where(n > 0, total / n, np.nan)
    return _one_or_all(area, keep)


def _by_confidence(
    confidence: Floats, wrong: Bools, keep: Bools | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    errors, rights = _sorted_groups(-confidence, *_split(wrong, keep))
    return errors, errors + rights
