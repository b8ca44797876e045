"""Whether confidence is deserved: reliability diagrams and the expected calibration error.

Pure: confidences and outcomes in, numbers out, for many sets of examples at once (the rows of an
array).

References
----------
M. P. Naeini, G. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
binning", AAAI 2015 (equal width). K. Nguyen, B. O'Connor, EMNLP 2015 (equal mass). J. Broecker,
"Estimating reliability and resolution of probability forecasts through decomposition of the
empirical score", Climate Dynamics 39 (2012) 655 (bias).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._typing import AnyArray, BoolArray, Float64Array, Int64Array
from .quantiles import normal_below
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

    def first(self) -> Reliability:
        """The first of several, along the first axis."""
        return Reliability(self.count[0], self.confidence[0], self.accuracy[0], self.error[0])

    @property
    def error_of_examples(self) -> Float64Array:
        """Standard error of :attr:`error` over the examples, its bias not counted."""
        weight, gap, sd = self._bins
        total = (weight**2 * sd**2).sum(axis=-1)
        between = (weight * gap**2).sum(axis=-1) - self.error**2
        return np.sqrt(total + np.maximum(between, 0.0) / self.count.sum(axis=-1))

    @property
    def bias(self) -> tuple[Float64Array, Float64Array]:
        """What :attr:`error` is too large by in the mean: about the least, and the most.

        A bin that is calibrated has a gap all the same: the mean of \\|N(gap, sd²)\\| less its gap.
        The first is that if all gaps are as large as they were found, the second if all bins are
        calibrated.
        """
        weight, gap, sd = self._bins
        ratio = gap / np.where(sd > 0, sd, 1.0)
        of_calibrated = np.sqrt(2 / np.pi) * sd
        found = of_calibrated * np.exp(-(ratio**2) / 2) - 2 * gap * normal_below(-ratio)
        least = (weight * np.where(sd > 0, found, 0.0)).sum(axis=-1)
        return least, (weight * of_calibrated).sum(axis=-1)

    @property
    def squared_l2(self) -> Float64Array:
        """Square of the l2 calibration error, without bias, shape (...).

        References
        ----------
        A. Kumar, P. Liang, T. Ma, "Verified uncertainty calibration", NeurIPS 2019.
        """
        weight, gap, _ = self._bins
        noise = self._noise
        return (weight * np.where(self.count > 1, gap**2 - noise, 0.0)).sum(axis=-1)

    @property
    def error_of_squared_l2(self) -> Float64Array:
        """Its standard error over the examples."""
        weight, gap, sd = self._bins
        variance = 4 * np.maximum(gap**2 - sd**2, 0.0) * sd**2 + 2 * sd**4
        total = (weight**2 * variance).sum(axis=-1)
        between = (weight * gap**4).sum(axis=-1) - (weight * gap**2).sum(axis=-1) ** 2
        return np.sqrt(total + np.maximum(between, 0.0) / self.count.sum(axis=-1))

    @property
    def _noise(self) -> Float64Array:
        """Variance of the share of correct examples in each bin, without bias."""
        accuracy = np.where(self.count > 1, self.accuracy, 0.0)
        return accuracy * (1 - accuracy) / np.maximum(self.count - 1, 1)

    @property
    def _bins(self) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Weight, gap, and standard deviation of the gap of each bin; of empty ones 0.

        Where all of a bin's few examples are right it is not certain to be right: one more, whose
        chance is its confidence, counts.
        """
        is_there = self.count > 0
        confidence = np.where(is_there, self.confidence, 0.0)
        accuracy = np.where(is_there, self.accuracy, 0.0)
        chance = (self.count * accuracy + confidence) / (self.count + 1)
        spread = np.maximum(chance * (1 - chance), 0.0) / (1 - self.count / (self.count + 1) ** 2)
        sd = np.sqrt(spread / np.maximum(self.count, 1))
        weight = self.count / self.count.sum(axis=-1, keepdims=True)
        return weight, np.abs(accuracy - confidence), sd


def reliability(confidence: Float64Array, correct: BoolArray, edges: Float64Array) -> Reliability:
    """Bin examples by confidence.

    Parameters
    ----------
    confidence : float array, shape (..., n_examples)
        Probability of the class that is put first.
    correct : bool array, shape (..., n_examples)
    edges : float array, shape (n_bins + 1,) or (..., n_bins + 1), ascending
        Bins hold their upper edge; what is below the first or above the last edge goes to the
        bin beside it.
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

        def sums(values: AnyArray, dtype: type) -> AnyArray:
            running: AnyArray = np.zeros((len(values), values.shape[1] + 1), dtype)
            np.cumsum(np.take_along_axis(values, order, axis=1), axis=1, out=running[:, 1:])
            return np.diff(np.take_along_axis(running, bounds, axis=1), axis=1)

        count = np.diff(bounds, axis=1)
        right = sums(correct, np.int32)
        total = sums(confidence, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count > 0, total / count, np.nan)
            accuracy = np.where(count > 0, right / count, np.nan)
            gap = np.where(count > 0, np.abs(accuracy - mean), 0.0) * count
            error = gap.sum(axis=1) / count.sum(axis=1)
        return [values[None] for values in (count, mean, accuracy, error)]

    return Reliability(*by_rows(of_rows, None, confidence, correct, edges))


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
