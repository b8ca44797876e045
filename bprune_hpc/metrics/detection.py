"""How well a score tells one kind of example from another: AUROC, AUPR, risk and coverage.

Pure: scores and outcomes in, numbers out, for many sets of examples at once (the rows of an array).
Every function also takes masks and gives one number for each: that is what a jackknife over
examples needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._typing import AnyArray, BoolArray, Float64Array, Int32Array
from .row_chunks import by_rows

_Area = Callable[[Int32Array, Int32Array, int], tuple[Float64Array, ...]]


def areas(
    score: Float64Array, positive: BoolArray, keep: BoolArray | None = None
) -> tuple[Float64Array, Float64Array]:
    """:func:`auroc` and :func:`average_precision`, which begin alike."""
    roc, precision = _over_rows(_roc_and_precision, score, positive, keep)
    return roc, precision


def auroc(score: Float64Array, positive: BoolArray, keep: BoolArray | None = None) -> Float64Array:
    """Area under the receiver operating characteristic: P(score+ > score-) + P(equal) / 2.

    Parameters
    ----------
    score : float array, shape (..., n_examples)
        Higher for what is taken to be positive.
    positive : bool array, shape (..., n_examples)
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets to work it out for.

    Returns
    -------
    float64 array, shape (...), or (n_masks, ...)
        NaN where all examples are of one kind.

    References
    ----------
    J. Hanley, B. McNeil, Radiology 143 (1982) 29: the area is the Mann-Whitney statistic.
    """
    return areas(score, positive, keep)[0]


def average_precision(
    score: Float64Array, positive: BoolArray, keep: BoolArray | None = None
) -> Float64Array:
    """Area under the precision-recall curve, as the sum of precision times the rise in recall.

    Parameters and shapes as for :func:`auroc`; NaN where nothing is positive. Without knowledge
    it is the share of positives, not one half.

    References
    ----------
    J. Davis, M. Goadrich, ICML 2006: why the curve is not interpolated linearly.
    """
    return areas(score, positive, keep)[1]


def worth(name: str, n_positive: Float64Array, n_negative: Float64Array) -> Float64Array:
    """Independent outcomes that an area is worth at most, as a share: of few of either kind few.

    Near an area of 1 the variance of Hanley and McNeil (1982) is that of a share of twice as many
    as there are of the rarer kind, and an average precision is taken for one of the positives (K.
    Boyd, K. Eng, C. D. Page, ECML PKDD 2013).

    Parameters
    ----------
    name : str
        Begins with ``auroc`` or ``aupr``.
    n_positive, n_negative : float64 array, shape (...)
    """
    either: Float64Array = np.minimum(n_positive, n_negative)
    return 2.0 * either if name.startswith("auroc") else np.where(either > 0, n_positive, 0.0)


def risk_at_coverage(
    confidence: Float64Array, wrong: BoolArray, n_points: int = 100
) -> Float64Array:
    """Share of errors among the most confident examples, at equal steps of coverage.

    Examples of equal confidence are taken in every order at once: a part of them has the share of
    errors that all of them have.

    Parameters
    ----------
    confidence : float array, shape (..., n_examples)
    wrong : bool array, shape (..., n_examples)
    n_points : int
        Coverages are 1/n_points, 2/n_points, ..., 1.

    Returns
    -------
    float64 array, shape (..., n_points)
    """
    wanted = np.arange(1, n_points + 1) / n_points * confidence.shape[-1]

    def risk(n_wrong: Int32Array, n_all: Int32Array, n_examples: int) -> tuple[Float64Array]:
        covered, failed = (np.pad(count[0], ((0, 0), (1, 0))) for count in (n_all, n_wrong))
        rows = [np.interp(wanted, *curve) for curve in zip(covered, failed, strict=True)]
        return (np.stack(rows)[None] / wanted,)

    return _over_rows(risk, confidence, wrong, None)[0]


def area_under_risk_coverage(
    confidence: Float64Array, wrong: BoolArray, keep: BoolArray | None = None
) -> Float64Array:
    """Mean over all coverages i/n of the share of errors among the i most confident examples.

    Parameters
    ----------
    confidence : float array, shape (..., n_examples)
    wrong : bool array, shape (..., n_examples)
    keep : bool array, shape (n_masks, n_examples), optional

    Returns
    -------
    float64 array, shape (...), or (n_masks, ...)
        NaN for an empty subset.

    References
    ----------
    Y. Geifman, R. El-Yaniv, "Selective classification for deep neural networks", NIPS 2017.
    """
    return _over_rows(_risk_coverage, confidence, wrong, keep)[0]


def _roc_and_precision(
    n_positive: Int32Array, n_all: Int32Array, n_examples: int
) -> tuple[Float64Array, Float64Array]:
    ups, n_negative = _steps(n_positive), n_all - n_positive
    n_ups, n_downs = (n[..., -1].astype(np.float64) for n in (n_positive, n_negative))
    # Twice the negatives of a lower score, and those of the same. All are whole numbers, so that
    # sums in float64 are exact.
    worse = np.subtract(2 * n_downs[..., None], n_negative)
    worse -= n_negative - _steps(n_negative)
    pairs = n_ups * n_downs
    roc = _quotient(np.einsum("...n,...n->...", ups, worse), 2.0 * pairs, np.nan)
    precision = _quotient(n_positive, n_all, 0.0)
    precision *= ups
    return roc, _quotient(precision.sum(axis=-1), n_ups, np.nan)


def _risk_coverage(n_wrong: Int32Array, n_all: Int32Array, n_examples: int) -> tuple[Float64Array]:
    errors, counts = _steps(n_wrong), _steps(n_all)
    n_before, errors_before = n_all - counts, n_wrong - errors
    # Within a group of equal confidence the i-th example (i > n_before) has the expected risk
    # (errors_before + (i - n_before) * rate) / i, whose sum over i needs harmonic numbers.
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n_examples + 1))])
    rise = _steps(harmonic.take(n_all))
    rate = _quotient(errors, counts, 0.0)
    total = ((errors_before - n_before * rate) * rise + rate * counts).sum(axis=-1)
    return (_quotient(total, n_all[..., -1], np.nan),)


def _quotient(above: AnyArray, below: AnyArray, otherwise: float) -> Float64Array:
    """One by the other where that is not zero."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, otherwise), where=below != 0)


def _steps(running: AnyArray) -> AnyArray:
    """What running sums along the last axis are the sums of."""
    out = running.copy()
    out[..., 1:] -= running[..., :-1]
    return out


def _over_rows(
    area: _Area, score: Float64Array, positive: BoolArray, keep: BoolArray | None
) -> list[Float64Array]:
    """What an area, or several at once, comes to at every row."""

    def of_rows(score: Float64Array, positive: BoolArray) -> list[Float64Array]:
        out: list[Float64Array] = []
        for rows, n_positive, n_all in _running_counts(score, positive, keep):
            for index, values in enumerate(area(n_positive, n_all, score.shape[1])):
                if len(out) <= index:
                    out.append(np.empty((len(values), len(score), *values.shape[2:])))
                out[index][:, rows] = values
        return out

    return by_rows(of_rows, keep, score, positive)


def _running_counts(
    score: Float64Array, positive: BoolArray, keep: BoolArray | None
) -> Iterator[tuple[Any, Int32Array, Int32Array]]:
    """Positives, and all examples, from the highest score down to each distinct one.

    Rows with one number of distinct scores come together: the order in which NumPy adds along a row
    depends on how long it is.

    Yields
    ------
    rows : index of rows
    n_positive, n_all : int32 array, shape (n_masks or 1, n_rows, n_distinct)
    """
    n_examples = score.shape[1]
    order = np.argsort(score, axis=1)[:, ::-1]  # in any order among equals
    ordered = np.take_along_axis(score, order, axis=1)
    is_last = np.ones(score.shape, bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_last[:, :-1])
    is_positive = np.take_along_axis(positive, order, axis=1)[None]
    kept = np.ones((1, *score.shape), bool) if keep is None else keep.take(order, axis=1)
    n_all = np.cumsum(kept, axis=2, dtype=np.int32)
    n_positive = np.cumsum(kept & is_positive, axis=2, dtype=np.int32)
    n_distinct = np.count_nonzero(is_last, axis=1)
    if n_distinct.min() == n_examples:
        yield slice(None), n_positive, n_all
        return
    for number in np.unique(n_distinct):
        rows = np.flatnonzero(n_distinct == number)
        last = np.nonzero(is_last[rows])[1].reshape(1, len(rows), number)
        yield (
            rows,
            np.take_along_axis(n_positive[:, rows], last, axis=2),
            np.take_along_axis(n_all[:, rows], last, axis=2),
        )
