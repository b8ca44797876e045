"""When enough draws are drawn: a Monte Carlo error that was asked for, tested at fixed numbers.

Pure. Where a sweep may stop depends on the numbers of draws alone, never on the clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .._typing import BoolArray
from ..errors import ConfigError
from .estimates import Metric
from .nonfinite import counts_not

FIRST_TEST = 50
"""Draws at the first test; the others are at its doubles, and at the most draws allowed."""


@dataclass(frozen=True)
class Target:
    """A Monte Carlo standard error to reach at every threshold.

    Attributes
    ----------
    metric : str
    se : float
        In the unit of the metric.
    """

    metric: str
    se: float

    def largest(self, metrics: Mapping[str, Metric], failed: BoolArray) -> float:
        """The metric's largest error over thresholds; NaN where one is not known.

        Those that failed do not count.
        """
        errors = metrics[self.metric].se[~counts_not(self.metric, failed)]
        return float(errors.max()) if errors.size else math.nan

    def is_reached(self, metrics: Mapping[str, Metric], failed: BoolArray) -> bool:
        """Whether no threshold has a larger error; an error that is not known is too large."""
        return self.largest(metrics, failed) <= self.se

    def is_settled(self, metrics: Mapping[str, Metric], failed: BoolArray) -> bool:
        """Whether more draws are not wanted: it is reached, or there is no threshold left."""
        return bool(counts_not(self.metric, failed).all()) or self.is_reached(metrics, failed)

    def sentence(self, metrics: Mapping[str, Metric], failed: BoolArray, n_draws: int) -> str:
        """What came of it."""
        verdict = "reached" if self.is_reached(metrics, failed) else "not reached"
        without = counts_not(self.metric, failed)
        if without.all():
            return f"target: not reached: no threshold has a {self.metric}, as thresholds failed."
        others = "; thresholds that failed do not count" if without.any() else ""
        return (
            f"target: {verdict} with {n_draws} draws: {self.metric}_se is at most "
            f"{self.largest(metrics, failed):.2g} (asked for: {self.se:g}){others}."
        )


def parse_target(text: str, names: Collection[str]) -> Target:
    """Read ``METRIC=VALUE``.

    Parameters
    ----------
    names : collection of str
        Metrics that have a Monte Carlo error.

    Raises
    ------
    ConfigError
        If it is not that, no such metric exists, or the value is not positive.
    """
    metric, separator, value = (part.strip() for part in text.partition("="))
    try:
        se = float(value)
    except ValueError:
        separator, se = "", math.nan
    if not separator:
        raise ConfigError(f"--target_se: '{text}' is not METRIC=VALUE, as in nll=0.001")
    if metric not in names:
        raise ConfigError(
            f"--target_se: no metric '{metric}' with a Monte Carlo error; there are "
            f"{', '.join(names)}"
        )
    if not (math.isfinite(se) and se > 0):
        raise ConfigError(f"--target_se: {value} is not positive")
    return Target(metric, se)
