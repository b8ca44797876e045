"""Metrics of thresholds that failed: what is left of numbers that mean nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from .._typing import AnyArray, BoolArray
from .definitions import ALL
from .estimates import Metric

NO_COUNT = -1
"""Stands at a failed threshold for integers, which have no NaN."""


def without_failed(metrics: Mapping[str, Metric], failed: BoolArray) -> dict[str, Metric]:
    """Metrics with NaN where a threshold failed; differences, where the first one did, too.

    Parameters
    ----------
    metrics : mapping of str to Metric, arrays of shape (n_thresholds, ...)
    failed : bool array, shape (n_thresholds,)
    """
    if not failed.any():
        return dict(metrics)
    out = {}
    for name, metric in metrics.items():
        rows = counts_not(name, failed)
        arrays = (getattr(metric, field.name) for field in fields(metric))
        blanked: list[Any] = [None if array is None else blank(array, rows) for array in arrays]
        out[name] = Metric(*blanked)
    return out


def counts_not(name: str, failed: BoolArray) -> BoolArray:
    """At which thresholds there is no value of a metric."""
    return np.ones_like(failed) if ALL[name].difference_of and failed[0] else failed


def blank(array: AnyArray, rows: BoolArray) -> AnyArray:
    """A copy with NaN, of integers with ``NO_COUNT``, at some rows."""
    out = array.copy()
    out[rows] = np.nan if array.dtype.kind == "f" else NO_COUNT
    return out
