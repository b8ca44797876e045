"""A regression's part of a results file: which number goes under which name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..accumulators.regression import NormalDrawSums
from ..metrics.classification import Metric
from ..metrics.regression import LEVELS, RegressionStatistics, is_discrete
from .file import Variable

_SQUARED = ("epistemic_variance", "aleatoric_variance")
_TARGET_UNITS = "units of the target"
_LONG_NAMES = {
    "rmse": "root mean squared error of the predictive mean",
    "rmse_single_draw": "root mean squared error of single draws' means",
    "rmse_mean_weights": "root mean squared error of the network at its posterior mean",
    "mae": "mean absolute error of the predictive mean",
    "nll": "negative log-density of the predictive mixture",
    "crps": "continuous ranked probability score of the predictive mixture, unbiased",
    **{
        f"coverage_{level}": f"share of targets in the central {level} % predictive interval"
        for level in LEVELS
    },
    "sharpness": "predictive standard deviation",
    "epistemic_variance": "variance over draws of their means, corrected for its bias in 1/draws",
    "aleatoric_variance": "mean over draws of their own variance",
}
_EXAMPLES = {
    "predictive_sd": "standard deviation of the predictive mixture",
    "nll": "negative log-density of the predictive mixture",
    "pit": "probability that the predictive mixture gives less than the target",
    "crps": "unbiased, so that single values can be negative",
}
_PIT_EDGES = np.linspace(0.0, 1.0, 21)


def units(name: str) -> str:
    """Units of a metric, or of a quantity of single examples."""
    base = name.removesuffix("_change")
    if base in ("nll", "nll_rise"):
        return "nat"
    if base == "pit" or base.startswith("coverage"):
        return "1"
    return f"({_TARGET_UNITS})^2" if base in _SQUARED else _TARGET_UNITS


def groups(
    statistics: RegressionStatistics, metrics: Mapping[str, Metric], draw_sums: NormalDrawSums
) -> dict[str, dict[str, Variable]]:
    """The groups that only a regression has, or has in its own way."""
    n_examples = len(statistics.target)
    by_draw = ("threshold", "draw")
    return {
        "metrics": _metrics(metrics),
        "draws": {
            "rmse": Variable(by_draw, draw_sums.rmse(n_examples), {"units": _TARGET_UNITS}),
            "nll": Variable(by_draw, draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics),
        "calibration": _calibration(statistics),
    }


def _metrics(metrics: Mapping[str, Metric]) -> dict[str, Variable]:
    out: dict[str, Variable] = {}
    for name, metric in metrics.items():
        base = "nll" if name == "nll_rise" else name.removesuffix("_change")
        text = _LONG_NAMES[base]
        attrs: dict[str, Any] = {
            "units": units(name),
            "long_name": text if base == name else f"{text}: less that at the first threshold",
        }
        if is_discrete(name):
            attrs["discrete"] = "moves in steps: its standard errors are rough"
        out |= _with_errors(name, metric, attrs)
    return out


def _with_errors(name: str, metric: Metric, attrs: dict[str, Any]) -> dict[str, Variable]:
    of_errors = {"units": attrs["units"]}
    return {
        name: Variable(("threshold",), metric.value, attrs),
        f"{name}_se": Variable(("threshold",), metric.se, of_errors),
        f"{name}_se_data": Variable(("threshold",), metric.se_data, of_errors),
    }


def _examples(statistics: RegressionStatistics) -> dict[str, Variable]:
    target = statistics.target
    dims = ("threshold", "example")
    mean = target + statistics.per_example("error")
    out = {
        "target": Variable(("example",), target, {"units": _TARGET_UNITS}),
        "predictive_mean": _one(dims, mean, "predictive_mean", "mean of the predictive mixture"),
    }
    for name, text in _EXAMPLES.items():
        out[name] = _one(dims, statistics.per_example(name), name, text)
    for kind, text in (("epistemic", "of draws' means"), ("aleatoric", "draws' own, averaged")):
        name = f"{kind}_sd"
        values = np.sqrt(statistics.per_example(f"{kind}_variance"))
        out[name] = _one(dims, values, name, f"standard deviation {text}")
    return out


def _one(dims: tuple[str, ...], values: Any, name: str, text: str) -> Variable:
    return Variable(dims, values.astype(np.float32), {"units": units(name), "long_name": text})


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
