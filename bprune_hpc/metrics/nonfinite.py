"""Metrics of thresholds that failed: what is left of numbers that mean nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .classification import Metric, is_difference

NO_COUNT = -1
"""Stands at a failed threshold for integers, which have no NaN."""


def without_failed(metrics: Mapping[str, Metric], failed: NDArray[np.bool_]) -> dict[str, Metric]:
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
        out[name] = Metric(
            _blank(metric.value, rows), _blank(metric.se, rows), _blank(metric.se_data, rows)
        )
    return out


def counts_not(name: str, failed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At which thresholds there is no value of a metric."""
    return np.ones_like(failed) if is_difference(name) and failed[0] else failed


def _blank(array: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
    out = array.copy()
    out[rows] = np.nan if array.dtype.kind == "f" else NO_COUNT
    return out
