"""Metrics as datasets of a results file: each number with its two standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..metrics.definitions import Definition
from ..metrics.estimates import Metric
from .file import Variable


def metric_variables(
    metrics: Mapping[str, Metric],
    definitions: Mapping[str, Definition],
    dims: tuple[str, ...] = ("threshold",),
) -> dict[str, Variable]:
    """Datasets of metrics by name, and of their errors."""
    out: dict[str, Variable] = {}
    for name, metric in metrics.items():
        definition = definitions[name]
        attrs = {"units": definition.units, "long_name": definition.long_name}
        if definition.is_discrete:
            attrs["discrete"] = "moves in steps: its standard errors are rough"
        out |= metric_and_errors(name, dims, metric, attrs)
    return out


def metric_and_errors(
    name: str, dims: tuple[str, ...], metric: Metric, attrs: Mapping[str, Any]
) -> dict[str, Variable]:
    """Datasets ``NAME``, ``NAME_se`` and ``NAME_se_data``, all in the same units."""
    units = {"units": attrs["units"]}
    return {
        name: Variable(dims, metric.value, attrs),
        f"{name}_se": Variable(dims, metric.se, units),
        f"{name}_se_data": Variable(dims, metric.se_data, units),
    }
