"""Whether confidence is deserved: reliability diagrams and the expected calibration error.

Pure: confidences and outcomes in, numbers out, for many sets of examples at once (the rows of an
array).

References
----------
M. P. Naeini, G. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", AAAI 2015 (equal width). K. Nguyen, B. O'Connor, EMNLP 2015 (equal mass).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._typing import AnyArray, BoolArray, Float64Array, Int64Array
from .row_chunks import by_rows

N_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Reliability diagrams.

    Attributes
    ----------
    count : int64 array, shape (..., n_bins)
        Examples in each bin.
    confidence, accuracy : float64 array, shape (..., n_bins)
        Means over the examples of each bin; NaN where it is empty.
    error : float64 array, shape (...)
        Expected calibration error: |accuracy - confidence| of the bins, averaged by count.
    """

    count: Int64Array
    confidence: Float64Array
    accuracy: Float64Array
    error: Float64Array


def reliability(
    confidence: Float64Array, correct: BoolArray, edges: Float64Array, keep: BoolArray | None = None
) -> Reliability:
    """Bin examples by confidence.

    Parameters
    ----------
    confidence : float array, shape (..., n_examples)
        Probability of the class that is put first.
    correct : bool array, shape (..., n_examples)
    edges : float array, shape (n_bins + 1,) or (..., n_bins + 1), ascending
        Bins hold their upper edge; what is below the first or above the last edge goes to the
        bin beside it.
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets to bin; results then have a first axis of n_masks.
    """
    edges = np.broadcast_to(edges, (*confidence.shape[:-1], edges.shape[-1]))
    n_bins = edges.shape[-1] - 1

    def of_rows(
        confidence: Float64Array, correct: BoolArray, edges: Float64Array
    ) -> list[AnyArray]:
        which = np.zeros(confidence.shape, np.int16)  # which NumPy sorts fast
        for edge in edges[:, 1:-1].T:
            which += edge[:, None] < confidence
        order = np.argsort(which, axis=1, kind="stable")
        bounds = np.stack([np.count_nonzero(which < b, axis=1) for b in range(n_bins + 1)], axis=1)
        kept = np.ones((1, *order.shape), bool) if keep is None else keep.take(order, axis=1)

        def sums(values: AnyArray, dtype: type) -> AnyArray:
            running: AnyArray = np.zeros((*values.shape[:2], values.shape[2] + 1), dtype)
            np.cumsum(values, axis=2, out=running[:, :, 1:])
            return np.diff(np.take_along_axis(running, bounds[None], axis=2), axis=2)

        count = sums(kept, np.int32).astype(np.int64)
        right = sums(kept & np.take_along_axis(correct, order, axis=1), np.int32)
        total = sums(kept * np.take_along_axis(confidence, order, axis=1), np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count > 0, total / count, np.nan)
            accuracy = np.where(count > 0, right / count, np.nan)
            gap = np.where(count > 0, np.abs(accuracy - mean), 0.0) * count
            # Bits depend on the order: with subsets bins are added one after the other.
            of_bins = gap.sum(axis=2) if keep is None else np.cumsum(gap, axis=2)[:, :, -1]
            return [count, mean, accuracy, of_bins / count.sum(axis=2)]

    return Reliability(*by_rows(of_rows, keep, confidence, correct, edges))


def equal_width_edges(n_bins: int = N_BINS) -> Float64Array:
    """Edges of bins of equal width over [0, 1]."""
    return np.linspace(0.0, 1.0, n_bins + 1)


def equal_mass_edges(confidence: Float64Array, n_bins: int = N_BINS) -> Float64Array:
    """Edges of bins that hold equal numbers of examples, as nearly as ties allow.

    Equal confidences are never parted, so that bins can be empty.

    Parameters
    ----------
    confidence : float array, shape (..., n_examples)

    Returns
    -------
    float64 array, shape (..., n_bins + 1)
    """
    # As np.quantile's method "lower", which takes much longer.
    lower = (confidence.shape[-1] - 1) * (np.arange(1, n_bins) / n_bins)
    inner = np.sort(confidence, axis=-1)[..., np.floor(lower).astype(np.intp)]
    ends = np.zeros((*confidence.shape[:-1], 1))
    return np.concatenate([ends, inner, ends + 1], axis=-1)
