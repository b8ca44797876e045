"""A regression's part of a results file: which number goes under which name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .._typing import Float64Array
from ..accumulators.regression import NormalDrawSums
from ..metrics.definitions import REGRESSION, TARGET_UNITS
from ..metrics.estimates import Metric
from ..metrics.regression import RegressionStatistics
from .file import Variable
from .metric_variables import metric_variables

TARGET = "target_number"
"""Dimension of several targets; ``target`` is a dataset."""

_EXAMPLES = {
    "predictive_sd": ("standard deviation of the predictive mixture", TARGET_UNITS),
    "nll": ("negative log-density of the predictive mixture", "nat"),
    "pit": ("probability that the predictive mixture gives less than the target", "1"),
    "crps": ("unbiased, so that single values can be negative", TARGET_UNITS),
}
_PIT_EDGES = np.linspace(0.0, 1.0, 21)


def groups(
    statistics: RegressionStatistics, metrics: Mapping[str, Metric], draw_sums: NormalDrawSums
) -> dict[str, dict[str, Variable]]:
    """The groups that only a regression has, or has in its own way."""
    n_examples = len(statistics.target)
    by_draw = ("threshold", "draw")
    return {
        "metrics": metric_variables(metrics, REGRESSION),
        **({} if statistics.target.ndim == 1 else {"targets": _targets(statistics)}),
        "draws": {
            "rmse": Variable(by_draw, draw_sums.rmse(n_examples), {"units": TARGET_UNITS}),
            "nll": Variable(by_draw, draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics),
        "calibration": _calibration(statistics),
    }


def _targets(statistics: RegressionStatistics) -> dict[str, Variable]:
    """Metrics of each target."""
    dims = ("threshold", TARGET)
    return metric_variables(statistics.metrics_by_target(), REGRESSION, dims)


def _examples(statistics: RegressionStatistics) -> dict[str, Variable]:
    def variable(values: Float64Array, long_name: str, units: str = TARGET_UNITS) -> Variable:
        attrs = {"units": units, "long_name": long_name}
        dims = ("threshold", "example", TARGET)[: values.ndim]
        return Variable(dims, values.astype(np.float32), attrs)

    def sd(kind: str) -> Float64Array:
        return np.sqrt(statistics.of_targets(f"{kind}_variance"))

    target, of_targets = statistics.target, statistics.of_targets
    return {
        "target": Variable(("example", TARGET)[: target.ndim], target, {"units": TARGET_UNITS}),
        "predictive_mean": variable(target + of_targets("error"), "mean of the predictive mixture"),
        **{
            # That of all targets together.
            name: variable(
                (statistics.per_example if name == "nll" else of_targets)(name), *meaning
            )
            for name, meaning in _EXAMPLES.items()
        },
        "epistemic_sd": variable(sd("epistemic"), "standard deviation of draws' means"),
        "aleatoric_sd": variable(sd("aleatoric"), "standard deviation draws' own, averaged"),
    }


def _calibration(statistics: RegressionStatistics) -> dict[str, Variable]:
    pit = statistics.of_targets("pit")
    dims = ("threshold", TARGET, "bin") if pit.ndim == 3 else ("threshold", "bin")
    counts = np.apply_along_axis(lambda of: np.histogram(of, _PIT_EDGES)[0], 1, pit)
    return {
        "pit_edges": Variable(("edge",), _PIT_EDGES),
        "pit_count": Variable(
            dims,
            (np.moveaxis(counts, 1, -1) if pit.ndim == 3 else counts).astype(np.int64),
            {"long_name": "histogram of the PIT of each example; flat where calibrated"},
        ),
    }
