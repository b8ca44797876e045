"""Metrics as datasets of a results file: each number with its errors and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..metrics.definitions import Definition
from ..metrics.estimates import Metric
from .file import Variable

INTERVALS = ("low", "high", "band_low", "band_high")
"""What is stored of a metric beside its errors, where there is such."""

_KINDS = {
    "mean": "Student's t, further out on the side of the long tail",
    "share": "Wilson's with the variance of the draws; of differences, Bonett and Price's",
    "area": "Wilson's, of as many examples as the error is worth; of differences, Zou and Donner's",
    "positive": "quantiles of gamma distributions (Fay and Feuer)",
    "biased": "from all bins calibrated to gaps as found: holds in more than 95 %",
}
"""What kinds of intervals there are, in words."""


def metric_variables(
    metrics: Mapping[str, Metric],
    definitions: Mapping[str, Definition],
    dims: tuple[str, ...] = ("threshold",),
) -> dict[str, Variable]:
    """Datasets of metrics by name, of their errors and intervals."""
    out: dict[str, Variable] = {}
    for name, metric in metrics.items():
        definition = definitions[name]
        attrs = {"units": definition.units, "long_name": definition.long_name}
        if definition.is_discrete:
            attrs["discrete"] = "moves in steps: its standard errors are rough"
        if metric.low is not None:
            attrs["interval"] = _KINDS[definition.interval]
        if definition.is_unbounded:
            attrs["interval_misses"] = "where losses are rare and large and the test set lacks them"
        out |= metric_and_errors(name, dims, metric, attrs)
    return out


def metric_and_errors(
    name: str, dims: tuple[str, ...], metric: Metric, attrs: Mapping[str, Any]
) -> dict[str, Variable]:
    """Datasets ``NAME``, its errors and the ends of its intervals, all in the same units."""
    units = {"units": attrs["units"]}
    more = {
        suffix: getattr(metric, suffix)
        for suffix in ("se", "se_data", *INTERVALS)
        if getattr(metric, suffix) is not None
    }
    return {
        name: Variable(dims, metric.value, attrs),
        **{f"{name}_{suffix}": Variable(dims, array, units) for suffix, array in more.items()},
    }


def stored_metric(group: Any, name: str) -> Metric:
    """A metric of an open results file; of an older version's without intervals."""
    more = {
        suffix: group[f"{name}_{suffix}"][()] for suffix in INTERVALS if f"{name}_{suffix}" in group
    }
    return Metric(group[name][()], group[f"{name}_se"][()], group[f"{name}_se_data"][()], **more)
