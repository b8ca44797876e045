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
        "draws": {
            "rmse": Variable(by_draw, draw_sums.rmse(n_examples), {"units": TARGET_UNITS}),
            "nll": Variable(by_draw, draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics),
        "calibration": _calibration(statistics),
    }


def _examples(statistics: RegressionStatistics) -> dict[str, Variable]:
    def variable(values: Float64Array, long_name: str, units: str = TARGET_UNITS) -> Variable:
        attrs = {"units": units, "long_name": long_name}
        return Variable(("threshold", "example"), values.astype(np.float32), attrs)

    def sd(kind: str) -> Float64Array:
        return np.sqrt(statistics.per_example(f"{kind}_variance"))

    mean = statistics.target + statistics.per_example("error")
    return {
        "target": Variable(("example",), statistics.target, {"units": TARGET_UNITS}),
        "predictive_mean": variable(mean, "mean of the predictive mixture"),
        **{
            name: variable(statistics.per_example(name), *meaning)
            for name, meaning in _EXAMPLES.items()
        },
        "epistemic_sd": variable(sd("epistemic"), "standard deviation of draws' means"),
        "aleatoric_sd": variable(sd("aleatoric"), "standard deviation draws' own, averaged"),
    }


def _calibration(statistics: RegressionStatistics) -> dict[str, Variable]:
    counts = [np.histogram(pit, _PIT_EDGES)[0] for pit in statistics.per_example("pit")]
    return {
        "pit_edges": Variable(("edge",), _PIT_EDGES),
        "pit_count": Variable(
            ("threshold", "bin"),
            np.stack(counts).astype(np.int64),
            {"long_name": "histogram of the PIT of each example; flat where calibrated"},
        ),
    }
