"""Exact, order-free sums over draws of what a regression predicts: Normals for each example.

The predictive distribution is the mixture of the draws' Normals, which are independent of each
other where there are several targets. What it takes to know its mean, variance, density, PIT and
CRPS are sums over draws of the quantities in ``MOMENTS``, of each target. They are
unbounded, so that they go to ``accumulators.binned``. Statistics of the sums do not belong here
(``metrics.regression``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._typing import BoolArray, Float64Array
from ..posterior.draws import Draw
from .binned import INTEGERS_PER_SUM, BinnedSums

_LOG2_ROOT_2PI = 0.5 * math.log2(2 * math.pi)
_HALF_LOG2_E = 0.5 * math.log2(math.e)


def log2_density(error: Float64Array, scale: Float64Array) -> Float64Array:
    """Logarithm, to base 2, of the density of N(loc, scale²) at ``loc - error``.

    Parameters
    ----------
    error, scale : float64 array, shape (...)
        The scale is positive.
    """
    ratio = error / scale
    return -_HALF_LOG2_E * ratio * ratio - np.log2(scale) - _LOG2_ROOT_2PI


def probability_below(error: Float64Array, scale: Float64Array) -> Float64Array:
    """Φ(-error / scale): probability that N(loc, scale²) gives less than ``loc - error``."""
    from scipy import special

    return np.asarray(special.ndtr(-error / scale))


def expected_distance(error: Float64Array, scale: Float64Array) -> Float64Array:
    """Mean of |Y| for Y ~ N(error, scale²): how far draws of a Normal lie from a number.

    With the difference of two independent Normals (their locs subtracted, their scales' squares
    added) it is the mean distance of their draws. Both are what CRPS is made of.

    Parameters
    ----------
    error, scale : float64 array, shape (...)
        The scale is positive.

    References
    ----------
    T. Gneiting, A. Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 102
    (2007) 359, eq. 21: CRPS = E|Y - y| - E|Y - Y'| / 2; the folded Normal's mean is F. Leone et
    al., Technometrics 3 (1961) 543.
    """
    from scipy import special

    ratio = error / scale
    with np.errstate(over="ignore"):  # a square that is infinite leaves exp at its limit, 0
        bell = np.exp(-0.5 * ratio * ratio)
    near = math.sqrt(2 / math.pi) * scale * bell
    return near + np.asarray(error * special.erf(ratio / math.sqrt(2)))


MOMENTS = ("error", "squared_error", "variance", "below", "distance", "spread", "density")
"""What is summed over draws, for each example: loc - target; its square; scale²; Φ((target - loc)
/ scale); E|Y - target|; E|Y - Y'| of two draws with independent noise; the density at the target.
"""
MAX_LOG2 = 2.0**52
"""A density below 2**-MAX_LOG2 counts as that: an NLL of 3.1e15 nats."""

_DENSITY = MOMENTS.index("density")
_SPREAD = MOMENTS.index("spread")


@dataclass(frozen=True)
class NormalPrediction:
    """What one draw says of a batch of examples.

    Attributes
    ----------
    error, scale : float64 array, shape (n_examples,) or (n_examples, n_targets)
        Mean less target, and standard deviation.
    draw : Draw
        Which one.
    """

    error: Float64Array
    scale: Float64Array
    draw: Draw

    @property
    def log2_density(self) -> Float64Array:
        """Logarithm to base 2 of the density at the target, or all targets, from ``-MAX_LOG2``."""
        with np.errstate(over="ignore"):
            of_each = log2_density(self.error, self.scale)
            joint = of_each.sum(axis=1) if of_each.ndim > 1 else of_each
            return np.maximum(joint, -MAX_LOG2)

    @property
    def of_each_target(self) -> list[NormalPrediction]:
        """The same of one target after the other."""
        if self.error.ndim == 1:
            return [self]
        columns = zip(self.error.T, self.scale.T, strict=True)
        return [NormalPrediction(error, scale, self.draw) for error, scale in columns]

    def moments(self) -> Float64Array:
        """The quantities of ``MOMENTS`` before the density, shape (n_examples, 6); spread is 0."""
        error, scale = self.error, self.scale
        columns = [
            error,
            error * error,
            scale * scale,
            probability_below(error, scale),
            expected_distance(error, scale),
            np.zeros_like(error),
        ]
        return np.stack(columns, axis=-1)

    def spread(self, other: NormalPrediction) -> Float64Array:
        """Mean distance of a number drawn by one and a number drawn by the other."""
        return expected_distance(self.error - other.error, np.hypot(self.scale, other.scale))


class NormalSums:
    """Sums over the draws of one group, for every threshold and for a block of examples.

    Parameters
    ----------
    draws_per_replicate : int
        Draws are numbered replicate by replicate; each is also compared with those of its replicate
        that have other noise, so that a replicate is to be added as a whole before the next.

    n_targets : int

    Attributes
    ----------
    sums : BinnedSums of shape (n_thresholds, n_examples, 7 * n_targets), or one more
        Of one target after the other in the order of ``MOMENTS``; then, where there are several,
        the density at all targets together.
    """

    def __init__(
        self, n_thresholds: int, n_examples: int, draws_per_replicate: int, n_targets: int = 1
    ) -> None:
        self.sums = BinnedSums((n_thresholds, n_examples, _n_columns(n_targets)))
        self.n_targets = n_targets
        self._draws_per_replicate = draws_per_replicate
        self._replicate: int | None = None
        self._met: dict[tuple[int, int, int], list[NormalPrediction]] = {}

    def clear(self) -> None:
        """Begin again at zero, and with another replicate."""
        self.sums.clear()
        self._replicate, self._met = None, {}

    def are_possible(self, thresholds: BoolArray, n_draws: int) -> bool:
        """Whether draws can have given the sums at some thresholds: all but errors are positive."""
        is_error = np.arange(_n_columns(self.n_targets)) % len(MOMENTS) == 0
        is_error[len(MOMENTS) * self.n_targets :] = False
        positive = self.sums.is_negative((thresholds, slice(None)))[..., ~is_error]
        return not positive.any()

    def add(self, threshold: int, rows: slice, prediction: NormalPrediction) -> None:
        """Add one draw's prediction for some rows of the block at one threshold."""
        replicate = prediction.draw.index // self._draws_per_replicate
        if replicate != self._replicate:
            self._replicate, self._met = replicate, {}
        for target, of_target in enumerate(prediction.of_each_target):
            first = len(MOMENTS) * target
            moments = slice(first, first + _DENSITY)
            self.sums.add((threshold, rows, moments), of_target.moments())
            self._add_density((threshold, rows, first + _DENSITY), of_target)
            met = self._met.setdefault((threshold, rows.start, target), [])
            for other in met:
                if other.draw.noise != prediction.draw.noise:
                    spread = of_target.spread(other)
                    self.sums.add((threshold, rows, first + _SPREAD), spread)
            met.append(of_target)
        if self.n_targets > 1:
            self._add_density((threshold, rows, _n_columns(self.n_targets) - 1), prediction)

    def _add_density(self, index: tuple[int, slice, int], prediction: NormalPrediction) -> None:
        log2 = prediction.log2_density
        whole = np.floor(log2)
        self.sums.add_scaled(index, np.exp2(log2 - whole), whole.astype(np.int64))


class NormalDrawSums:
    """Sums over the examples, kept for each draw.

    Attributes
    ----------
    sums : BinnedSums of shape (n_thresholds, n_draws, 2)
        Squared error, on an average over targets, and NLL in nats, of all targets together.
    """

    def __init__(self, n_thresholds: int, n_draws: int) -> None:
        self.sums = BinnedSums((n_thresholds, n_draws, 2))

    def are_possible(self, thresholds: BoolArray, n_examples: int) -> bool:
        """Whether examples can have given the sums at some thresholds: squares are positive."""
        return not self.sums.is_negative((thresholds, slice(None), 0)).any()

    def add(self, threshold: int, draw: int, prediction: NormalPrediction) -> None:
        """Add a batch of examples that one draw has predicted."""
        nll = -math.log(2) * prediction.log2_density
        n_targets = prediction.error.size // len(nll) if len(nll) else 1
        both = np.array([(prediction.error**2).sum() / n_targets, nll.sum()])
        self.sums.add((threshold, draw), both)

    def rmse(self, n_examples: int) -> Float64Array:
        """Root of the mean squared error of each draw, shape (n_thresholds, n_draws)."""
        return np.sqrt(self.sums.value()[..., 0] / n_examples)

    def nll(self, n_examples: int) -> Float64Array:
        """Mean NLL of each draw in nats, shape (n_thresholds, n_draws)."""
        return self.sums.value()[..., 1] / n_examples


def bytes_per_cell(n_targets: int = 1) -> int:
    """Bytes of one group's sums for one threshold and one example, and of their float64 values."""
    return 8 * _n_columns(n_targets) * (INTEGERS_PER_SUM + 1)


def _n_columns(n_targets: int) -> int:
    return len(MOMENTS) * n_targets + (n_targets > 1)


@dataclass(frozen=True)
class MeanNormal:
    """Means over draws: what is known of the mixture of their Normals.

    Attributes
    ----------
    error : float64 array, shape (n_thresholds, n_examples) or (n_thresholds, n_examples, n_targets)
        Mean of the mixture less target.
    squared_error : float64 array, the same shape
        Mean over draws of the squared error.
    variance : float64 array, the same shape
        Mean over draws of the Normals' own variance: the aleatoric part.
    below : float64 array, the same shape
        PIT: probability that the mixture gives less than the target.
    distance, spread : float64 array, the same shape
        E|Y - target|; E|Y - Y'| of independent draws, NaN where there were none.
    log_density : float64 array, the same shape
        Of the mixture at the target, nats.
    joint_log_density : float64 array, shape (n_thresholds, n_examples)
        The same at all targets together.
    """

    error: Float64Array
    squared_error: Float64Array
    variance: Float64Array
    below: Float64Array
    distance: Float64Array
    spread: Float64Array
    log_density: Float64Array
    joint_log_density: Float64Array


@dataclass(frozen=True)
class GroupValues:
    """Sums of one or several groups, as numbers.

    Attributes
    ----------
    sums : float64 array, shape (n_thresholds, n_examples, 6), or (..., n_targets, 6)
        In the order of ``MOMENTS``, without the density.
    log_density : float64 array, shape (n_thresholds, n_examples) or (..., n_targets)
        Logarithm of the summed density, which float64 may not be able to hold.
    joint_log_density : float64 array, shape (n_thresholds, n_examples)
        The same of all targets together.
    """

    sums: Float64Array
    log_density: Float64Array
    joint_log_density: Float64Array

    @classmethod
    def of(cls, group: NormalSums) -> GroupValues:
        """Round a group's exact sums."""

        def log(columns: int | slice) -> Float64Array:
            return group.sums.log((slice(None), slice(None), columns))

        values, n_targets = group.sums.value(), group.n_targets
        if n_targets == 1:
            density = log(_DENSITY)
            return cls(values[..., :_DENSITY], density, density)
        n_columns = len(MOMENTS) * n_targets
        of_targets = values[..., :n_columns].reshape(*values.shape[:-1], n_targets, len(MOMENTS))
        densities = log(slice(_DENSITY, n_columns, len(MOMENTS)))
        return cls(of_targets[..., :_DENSITY], densities, log(n_columns))

    def __add__(self, other: GroupValues) -> GroupValues:
        density = np.logaddexp(self.log_density, other.log_density)
        joint = density
        if self.joint_log_density is not self.log_density:
            joint = np.logaddexp(self.joint_log_density, other.joint_log_density)
        return GroupValues(self.sums + other.sums, density, joint)

    def mean(self, n_draws: int, n_comparisons: int) -> MeanNormal:
        """Means over draws, and over comparisons of draws."""
        counts = np.full(_DENSITY, float(n_draws))
        counts[_SPREAD] = n_comparisons or np.nan
        means = self.sums / counts
        columns = dict(zip(MOMENTS, np.moveaxis(means, -1, 0), strict=False))
        return MeanNormal(
            log_density=self.log_density - math.log(n_draws),
            joint_log_density=self.joint_log_density - math.log(n_draws),
            **columns,
        )
