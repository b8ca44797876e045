"""A statistic at each threshold, its standard errors and its interval. Pure.

``se`` is the Monte Carlo error: of what is smooth in the draws by a delete-group jackknife, of what
moves in steps by balanced half-samples. ``se_data`` is the error of having tested on these examples
and no others: for means over examples their standard deviation over the root of their number, for
the rest a delete-group jackknife over examples, or what is known of the statistic. How an interval
is made of them does not belong here (``metrics.intervals``, ``metrics.bands``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from .._typing import BoolArray, Float64Array
from . import intervals
from .bands import group_deviations, simultaneous_tail
from .definitions import Definition
from .half_samples import half_deviations, half_sample_error
from .intervals import TAIL, Interval
from .jackknife import jackknife, jackknife_deviations, with_correction
from .quantiles import t_quantile

N_DATA_GROUPS = 50


@dataclass(frozen=True)
class Metric:
    """One number for each threshold.

    Attributes
    ----------
    value, se, se_data : float64 array, shape (n_thresholds, ...)
        Estimate, Monte Carlo standard error, test-set standard error; an error that cannot be
        told (one pair, one example) is NaN.
    low, high : float64 array, shape (n_thresholds, ...), or None
        Ends of an interval that holds the number of infinitely many draws and test examples, at
        95 %; None where they were never worked out.
    band_low, band_high : float64 array, shape (n_thresholds,), or None
        The same at all thresholds together; None for most metrics.
    """

    value: Float64Array
    se: Float64Array
    se_data: Float64Array
    low: Float64Array | None = None
    high: Float64Array | None = None
    band_low: Float64Array | None = None
    band_high: Float64Array | None = None

    @property
    def se_combined(self) -> Float64Array:
        """Root of the sum of both errors' squares: what stands after the ± sign."""
        return np.hypot(self.se, self.se_data)


@dataclass(frozen=True)
class Estimate:
    """A statistic, and what it is of parts of the draws and without each group of examples.

    Attributes
    ----------
    value : float64 array, shape (n_thresholds, ...)
    of_draws : float64 array, shape (n_groups or n_halves, n_thresholds, ...), or None
        Without each group of draws, or with each half of them; None for what depends on no draw.
    influence : float64 array, shape (n_thresholds, n_examples, ...), or None
        What the examples add to it, of which the statistic is, to first order, the mean (but for
        a constant); None where ``without_examples`` is there.
    without_examples : tuple of float64 array, shape (n_data_groups, n_thresholds, ...)
        For each independent sample of examples, the statistic without each group of it.
    n_examples : tuple of int
        Of those samples.
    has_halves : bool
        Whether ``of_draws`` are of halves: of what moves in steps.
    error_of_examples : float64 array, shape (n_thresholds, ...), or None
        Standard error over the examples, where it is known without any of these.
    bias : tuple of float64 array, shape (n_thresholds, ...), or None
        About the least and the most that it is too large by, having so few examples; None: it is
        not.
    n_worth : float64 array, shape (n_thresholds, ...), or None
        Independent outcomes that a share is worth at most; None: all examples.
    """

    value: Float64Array
    of_draws: Float64Array | None
    influence: Float64Array | None = None
    without_examples: tuple[Float64Array, ...] = ()
    n_examples: tuple[int, ...] = ()
    has_halves: bool = False
    error_of_examples: Float64Array | None = None
    bias: tuple[Float64Array, Float64Array] | None = None
    n_worth: Float64Array | None = None

    def less_the_first(self, sign: float = 1.0) -> Estimate:
        """The difference to the first threshold, times a sign."""
        draws, influence, error = self.of_draws, self.influence, self.error_of_examples
        return replace(
            self,
            value=sign * (self.value - self.value[0]) + 0.0,  # no minus zero
            of_draws=None if draws is None else sign * (draws - draws[:, :1]),
            influence=None if influence is None else sign * (influence - influence[0]),
            without_examples=tuple(
                sign * (without - without[:, :1]) for without in self.without_examples
            ),
            error_of_examples=None if error is None else _of_both(error),
            bias=None if self.bias is None else (_of_both(self.bias[0]), _of_both(self.bias[1])),
        )

    def root(self) -> Estimate:
        """The square root of a mean over examples."""
        assert self.influence is not None
        value = np.sqrt(self.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(value > 0, 0.5 / value, 0.0)
        return Estimate(
            value,
            None if self.of_draws is None else np.sqrt(self.of_draws),
            self.influence * slope[:, None],  # the delta method
        )

    def metric(self, group_sizes: Sequence[int], definition: Definition) -> Metric:
        """The statistic with its two standard errors, and its interval.

        Parameters
        ----------
        group_sizes : sequence of int
            Replicates in each group of draws.
        definition : Definition
            Whether to take the jackknife's estimate of the bias off, and which interval to make. Of
            a difference that has none of its own, none is made.
        """
        value, se = self.value, np.zeros_like(self.value)
        if self.has_halves and self.of_draws is not None:
            se = half_sample_error(self.value, self.of_draws, group_sizes)
        elif self.of_draws is not None:
            corrected, se = jackknife(self.value, self.of_draws, group_sizes)
            if definition.is_corrected and len(group_sizes) > 1:
                value, se = corrected, with_correction(self.value, corrected, se)
        error = self._error_of_examples()
        se_data = error if self.bias is None else np.hypot(error, self.bias[0])
        metric = Metric(value, se, se_data)
        if definition.difference_of and definition.interval not in DIFFERENCES:
            return metric
        low, high = self.interval(metric, group_sizes, definition)
        return replace(metric, low=low, high=high)

    def interval(
        self,
        metric: Metric,
        group_sizes: Sequence[int],
        definition: Definition,
        tail: float = TAIL,
    ) -> Interval:
        """Both ends of an interval that misses in a share ``tail`` of cases.

        Parameters
        ----------
        metric : Metric
            What :meth:`metric` has found.
        """
        n, value = self._n_examples, metric.value
        # Of what is biased the bias is in the error, but not in the interval.
        data = (metric.se_data if self.bias is None else self._error_of_examples()) ** 2
        draws = np.zeros_like(data) if self.of_draws is None else metric.se**2
        n_groups = n if self.influence is not None else min(N_DATA_GROUPS, n)
        t = t_quantile(
            intervals.freedom_of_sum(draws, len(group_sizes) - 1, data, n_groups - 1), tail
        )
        if definition.interval == "biased":
            assert self.bias is not None
            return intervals.of_biased(value, draws + data, self.bias, n, t)
        if definition.interval == "positive":
            return intervals.of_positive(value, draws + data, 1 / n, t)
        if definition.interval == "share" and definition.difference_of:
            assert self.influence is not None
            of_examples = self.influence.sum(axis=1), (self.influence**2).sum(axis=1)
            return self._none_at_the_first(intervals.of_share_difference(*of_examples, n, draws, t))
        if definition.interval in ("share", "area"):
            return self._of_share(value, data, draws, t)
        return intervals.of_mean(value, draws + data, data, self._lean(), t)

    def band(
        self,
        metric: Metric,
        group_sizes: Sequence[int],
        definition: Definition,
        sound: BoolArray,
    ) -> Interval:
        """Both ends of intervals that hold together at all thresholds that are sound.

        Parameters
        ----------
        metric : Metric, arrays of shape (n_thresholds,)
            What :meth:`metric` has found.
        sound : bool array, shape (n_thresholds,)
        """
        assert self.influence is not None and self.of_draws is not None
        parts = [group_deviations(self.influence)]
        if self.has_halves:
            parts.append(half_deviations(self.value, self.of_draws, group_sizes))
        else:
            parts.append(jackknife_deviations(self.value, self.of_draws, group_sizes))
            parts.append((metric.value - self.value)[None])
        tail = simultaneous_tail(np.concatenate(parts)[:, sound])
        return self.interval(metric, group_sizes, definition, tail)

    @property
    def _n_examples(self) -> int:
        return self.n_examples[0] if self.influence is None else self.influence.shape[1]

    def _of_share(
        self, value: Float64Array, data: Float64Array, draws: Float64Array, t: Float64Array
    ) -> Interval:
        most = self._n_examples if self.n_worth is None else self.n_worth
        spread = value * (1 - value)
        is_told = (spread > 0) & (data > 0)
        n = np.where(is_told, spread / np.where(is_told, data, 1.0), most)
        if self.n_worth is None:  # a standard error with N - 1, in a share with N
            n = np.where(is_told, n * self._n_examples / max(self._n_examples - 1, 1), most)
        else:
            n = np.minimum(n, most)
        low, high = intervals.of_share(value, np.maximum(n, 1e-9), draws, t)
        nothing = np.broadcast_to(np.asarray(most) == 0, value.shape)
        return np.where(nothing, 0.0, low), np.where(nothing, 1.0, high)

    def _lean(self) -> Float64Array:
        """Skewness over the examples, over the root of their number; 0 where nothing differs."""
        if self.influence is None:
            return np.zeros_like(self.value)
        away = self.influence - self.influence.mean(axis=1, keepdims=True)
        squares = away * away
        variance = squares.mean(axis=1)
        squares *= away
        third = np.where(variance > 0, squares.mean(axis=1), 0.0)
        some = np.where(variance > 0, variance, 1.0)
        return third / some**1.5 / np.sqrt(self._n_examples)

    @staticmethod
    def _none_at_the_first(ends: Interval) -> Interval:
        """What is compared with itself does not differ."""
        for end in ends:
            end[0] = 0.0
        return ends

    def _error_of_examples(self) -> Float64Array:
        if self.error_of_examples is not None:
            return self.error_of_examples
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


_ROUNDING = 1e-12
"""An error that is smaller than this part of 1, or of the number, is none: nothing differs."""


def number_with_error(value: float, error: float) -> str:
    """``value ± error``, with two significant digits of the error; alone where nothing differs.

    >>> number_with_error(0.96875, 0.0219)
    '0.969 ± 0.022'
    """
    if not np.isfinite(value):
        return f"{value}"
    if not np.isfinite(error):
        return f"{value + 0.0:.4f} ± n/a"
    if error <= _ROUNDING * max(1.0, abs(value)):
        return f"{value + 0.0:.4f}"
    rounded = float(f"{error:.1e}")
    decimals = max(1 - int(np.floor(np.log10(rounded))), 0)
    if decimals > 6:
        return f"{value + 0.0:.6f} ± {error:.0e}"
    return f"{value + 0.0:.{decimals}f} ± {error:.{decimals}f}"


def number_with_interval(value: float, low: float, high: float) -> str:
    """``value [low, high]``, with two significant digits of their distance.

    >>> number_with_interval(0.96875, 0.8954, 0.9914)
    '0.969 [0.895, 0.991]'
    """
    if not np.isfinite(value):
        return f"{value}"
    if not np.isfinite(low + high):
        return f"{value + 0.0:.4f} [n/a]"
    width = float(f"{max(high - low, 1e-5):.1e}")
    decimals = max(1 - int(np.floor(np.log10(width))), 0)
    return f"{value + 0.0:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


DIFFERENCES = ("mean", "share")
"""Intervals that differences have of their own; others are made of those of what is compared."""


def _of_both(error: Float64Array) -> Float64Array:
    """Of a difference to the first, as if the two were independent: none of the first to itself."""
    both = np.hypot(error, error[0])
    both[0] = 0.0
    return both


def with_errors(
    estimates: Mapping[str, Estimate],
    definitions: Mapping[str, Definition],
    group_sizes: Sequence[int],
    failed: BoolArray | None = None,
) -> dict[str, Metric]:
    """Every metric that is defined, differences to the first threshold among them.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        Of every metric that is no difference.
    definitions : mapping of str to Definition
    group_sizes : sequence of int
        Replicates in each group of draws.
    failed : bool array, shape (n_thresholds,), optional
        Thresholds that bands are not about.
    """
    out: dict[str, Metric] = {}
    for name, definition in definitions.items():
        estimate = estimates[definition.difference_of or name]
        if definition.difference_of:
            estimate = estimate.less_the_first(definition.sign)
        metric = estimate.metric(group_sizes, definition)
        if metric.low is None:
            low, high = _of_difference(metric, out[definition.difference_of], definition.sign)
            metric = replace(metric, low=low, high=high)
        if definition.has_band:
            sound = np.ones(len(metric.value), bool) if failed is None else ~failed
            low, high = estimate.band(metric, group_sizes, definition, sound)
            metric = replace(metric, band_low=low, band_high=high)
        out[name] = metric
    return out


def _of_difference(difference: Metric, of: Metric, sign: float) -> Interval:
    """From the intervals of what is compared; correlated as the three errors say."""
    here, both = of.se_combined, difference.se_combined
    products = here * here[0]
    is_told = np.isfinite(both) & np.isfinite(products) & (products > 0)
    covariance = (here**2 + here[0] ** 2 - both**2) / 2
    correlation = np.where(is_told, covariance, 0.0) / np.where(is_told, products, 1.0)
    assert of.low is not None and of.high is not None
    ends = of.low, of.high
    return intervals.of_difference(of.value, ends, np.clip(correlation, -1.0, 1.0), sign)


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
