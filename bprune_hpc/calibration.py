"""Whether confidence is deserved: reliability diagrams and the expected calibration error.

Pure: confidences and outcomes in, numbers out.

References
----------
M. P. Naeini, G. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", AAAI 2015 (equal width). K. Nguyen, B. O'Connor, EMNLP 2015 (equal mass).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_BINS = 15

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes
    ----------
    edges : float64 array, shape (n_bins + 1,)
    count : int64 array, shape (..., n_bins)
        Examples in each bin.
    confidence, accuracy : float64 array, shape (..., n_bins)
        Means over the examples of each bin; NaN where it is empty.
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> Floats:
        """Expected calibration error: |accuracy - confidence| of the bins, averaged by count."""
        gap = np.where(self.count > 0, np.abs(self.accuracy - self.confidence), 0.0)
        with np.errstate(invalid="ignore"):
            return (gap * self.count).sum(axis=-1) / self.count.sum(axis=-1)


def reliability(
    confidence: Floats, correct: Bools, edges: Floats, keep: Bools | None = None
) -> Reliability:
    """Bin examples by confidence.

    Parameters
    ----------
    confidence : float array, shape (n_examples,)
        Probability of the class that is put first.
    correct : bool array, shape (n_examples,)
    edges : float array, shape (n_bins + 1,), ascending
        Bins hold their upper edge; what is below the first or above the last edge goes to the
        bin beside it.
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets to bin; results then have a first axis of n_masks.
    """
    n_bins = len(edges) - 1
    kept = np.ones((1, confidence.size), bool) if keep is None else keep
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    if n_bins < 2**15:
        which = which.astype(np.int16)  # which NumPy sorts much faster
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(n_bins + 1))

    def sums(values: NDArray[np.float64]) -> Floats:
        running = np.zeros((len(kept), confidence.size + 1))
        np.cumsum(kept[:, order] * values[order], axis=1, out=running[:, 1:])
        return np.diff(running[:, bounds], axis=1)

    count = sums(np.ones(confidence.size))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_confidence = np.where(count > 0, sums(confidence) / count, np.nan)
        accuracy = np.where(count > 0, sums(correct.astype(np.float64)) / count, np.nan)
    if keep is None:
        count, mean_confidence, accuracy = count[0], mean_confidence[0], accuracy[0]
    return Reliability(edges, count.astype(np.int64), mean_confidence, accuracy)


def equal_width_edges(n_bins: int = N_BINS) -> Floats:
    """Edges of bins of equal width over [0, 1]."""
    return np.linspace(0.0, 1.0, n_bins + 1)


def equal_mass_edges(confidence: Floats, n_bins: int = N_BINS) -> Floats:
    """Edges of bins that hold equal numbers of examples, as nearly as ties allow.

    Equal confidences are never parted, so that bins can be empty.
    """
    inner = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="lower")
    return np.concatenate([[0.0], inner, [1.0]])
