"""A statistic at each threshold, and its two standard errors. Pure.

``se`` is the Monte Carlo error: delete-group jackknife over groups of draws. ``se_data`` is the
error of having tested on these examples and no others: for means over examples their standard
deviation over the root of their number, for the rest a delete-group jackknife over examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from .._typing import BoolArray, Float64Array
from .definitions import Definition
from .jackknife import jackknife, with_correction

N_DATA_GROUPS = 50


@dataclass(frozen=True)
class Metric:
    """One number for each threshold.

    Attributes
    ----------
    value, se, se_data : float64 array, shape (n_thresholds, ...)
        Estimate, Monte Carlo standard error, test-set standard error; an error that cannot be
        told (one pair, one example) is NaN.
    """

    value: Float64Array
    se: Float64Array
    se_data: Float64Array

    @property
    def se_combined(self) -> Float64Array:
        """Root of the sum of both errors' squares: what stands after the ± sign."""
        return np.hypot(self.se, self.se_data)


@dataclass(frozen=True)
class Estimate:
    """A statistic, and what it is without each group of draws and without each of examples.

    Attributes
    ----------
    value : float64 array, shape (n_thresholds, ...)
    without_draws : float64 array, shape (n_groups, n_thresholds, ...), or None
        None for what depends on no draw.
    influence : float64 array, shape (n_thresholds, n_examples, ...), or None
        What the examples add to it, of which the statistic is, to first order, the mean (but for
        a constant); None where ``without_examples`` is there.
    without_examples : tuple of float64 array, shape (n_data_groups, n_thresholds, ...)
        For each independent sample of examples, the statistic without each group of it.
    n_examples : tuple of int
        Of those samples.
    """

    value: Float64Array
    without_draws: Float64Array | None
    influence: Float64Array | None = None
    without_examples: tuple[Float64Array, ...] = ()
    n_examples: tuple[int, ...] = ()

    def less_the_first(self, sign: float = 1.0) -> Estimate:
        """The difference to the first threshold, times a sign."""
        draws, influence = self.without_draws, self.influence
        return Estimate(
            sign * (self.value - self.value[0]) + 0.0,  # no minus zero
            None if draws is None else sign * (draws - draws[:, :1]),
            None if influence is None else sign * (influence - influence[0]),
            tuple(sign * (without - without[:, :1]) for without in self.without_examples),
            self.n_examples,
        )

    def root(self) -> Estimate:
        """The square root of a mean over examples."""
        assert self.influence is not None
        value = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(value > 0, 0.5 / value, 0.0)
        return Estimate(
            value,
            None if self.without_draws is None else np.sqrt(self.without_draws),
            self.influence * slope[:, None],  # the delta method
        )

    def metric(self, group_sizes: Sequence[int], is_corrected: bool) -> Metric:
        """The statistic with its two standard errors.

        Parameters
        ----------
        group_sizes : sequence of int
            Replicates in each group of draws.
        is_corrected : bool
            Whether to take the jackknife's estimate of the bias off.
        """
        value, se = self.value, np.zeros_like(self.value)
        if self.without_draws is not None:
            corrected, se = jackknife(self.value, self.without_draws, group_sizes)
            if is_corrected and len(group_sizes) > 1:
                value, se = corrected, with_correction(self.value, corrected, se)
        return Metric(value, se, self._se_data())

    def _se_data(self) -> Float64Array:
        if self.influence is None:
            errors = [
                jackknife(self.value, without, data_group_sizes(n_examples))[1]
                for without, n_examples in zip(self.without_examples, self.n_examples, strict=True)
            ]
            return reduce(np.hypot, errors)
        n_examples = self.influence.shape[1]
        if n_examples < 2:
            return np.full(self.value.shape, np.nan)
        error: Float64Array = self.influence.std(axis=1, ddof=1) / np.sqrt(n_examples)
        return error


def number_with_error(value: float, error: float) -> str:
    """``value ± error``, with two significant digits of the error.

    >>> number_with_error(0.96875, 0.0219)
    '0.969 ± 0.022'
    """
    if not np.isfinite(value):
        return f"{value}"
    if not np.isfinite(error) or error == 0:
        return f"{value + 0.0:.4f} ± {'0' if error == 0 else 'n/a'}"
    rounded = float(f"{error:.1e}")
    decimals = max(1 - int(np.floor(np.log10(rounded))), 0)
    if decimals > 6:
        return f"{value + 0.0:.6f} ± {error:.0e}"
    return f"{value + 0.0:.{decimals}f} ± {error:.{decimals}f}"


def with_errors(
    estimates: Mapping[str, Estimate],
    definitions: Mapping[str, Definition],
    group_sizes: Sequence[int],
) -> dict[str, Metric]:
    """Every metric that is defined, differences to the first threshold among them.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        Of every metric that is no difference.
    definitions : mapping of str to Definition
    group_sizes : sequence of int
        Replicates in each group of draws.
    """
    out = {}
    for name, definition in definitions.items():
        estimate = estimates[definition.difference_of or name]
        if definition.difference_of:
            estimate = estimate.less_the_first(definition.sign)
        out[name] = estimate.metric(group_sizes, definition.is_corrected)
    return out


def data_group_sizes(n_examples: int) -> list[int]:
    """Examples in each group of a sample of them."""
    return np.bincount(_group_of(np.arange(n_examples), n_examples)).tolist()


def all_but_one_group(is_in_sample: BoolArray) -> BoolArray:
    """Masks of examples that leave out one group of a sample each, shape (n_data_groups, n_all)."""
    n_examples = int(is_in_sample.sum())
    group = np.where(is_in_sample, _group_of(np.cumsum(is_in_sample) - 1, n_examples), -1)
    return group != np.arange(min(N_DATA_GROUPS, n_examples))[:, None]


def _group_of(index: np.ndarray, n_examples: int) -> np.ndarray:
    return index % min(N_DATA_GROUPS, n_examples)
