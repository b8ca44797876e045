"""A finished sweep in the form of a results file: which number goes under which name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import SweepConfig
from .criteria import CRITERIA
from .metrics import PER_EXAMPLE, Statistics
from .posterior import Posterior
from .predictive import DrawSums
from .problem import Problem
from .pruning import Cut
from .results import SCHEMA, Contents, Variable

_UNITS = {
    "nll": "nat",
    "nll_rise": "nat",
    "predictive_entropy": "nat",
    "expected_entropy": "nat",
    "mutual_information": "nat",
}
_LONG_NAMES = {
    "accuracy": "accuracy of the predictive averaged over draws",
    "accuracy_single_draw": "mean accuracy of single draws",
    "accuracy_mean_weights": "accuracy of the network at its posterior mean",
    "nll": "negative log-likelihood of the averaged predictive",
    "predictive_entropy": "entropy of the averaged predictive",
    "expected_entropy": "mean entropy of single draws' predictions",
    "mutual_information": "predictive less expected entropy, corrected for its bias in 1/draws",
    "accuracy_drop": "accuracy at the first threshold less that here, on the same examples",
    "nll_rise": "NLL here less that at the first threshold, on the same examples",
}
_SNR_EDGES = np.concatenate([[0.0], np.logspace(-6, 3, 91), [np.inf]])
_SNR_QUANTILES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


def contents(
    config: SweepConfig,
    problem: Problem,
    cuts: Sequence[Cut],
    statistics: Statistics,
    draw_sums: DrawSums,
    run: Mapping[str, Any],
) -> Contents:
    """Everything a results file holds, under the names and dimensions of the schema.

    Parameters
    ----------
    run : mapping of str to number, str or list of one entry a rank
        Goes to ``/run``.
    """
    posterior = problem.posterior
    criterion = CRITERIA[config.criterion]
    unit_of_draw = [unit for unit, draws in enumerate(statistics.plan.units) for _ in draws]
    n_examples = len(problem.label)
    coordinates = {
        "threshold": Variable(
            ("threshold",),
            np.array([cut.threshold for cut in cuts]),
            {
                "long_name": criterion.meaning,
                "units": criterion.units,
                "heading": criterion.heading,
            },
        ),
        "requested_fraction": Variable(
            ("threshold",), np.array([cut.requested_fraction for cut in cuts])
        ),
        "draw": Variable(("draw",), np.arange(config.n_draws)),
        "pair": Variable(("draw",), np.array(unit_of_draw, np.int64)),
        "example": Variable(("example",), np.arange(n_examples)),
        "class": Variable(("class",), np.arange(problem.n_classes)),
        "layer": Variable(("layer",), list(posterior.names)),
    }
    groups: dict[str, dict[str, Variable]] = {
        "sparsity": _sparsity(cuts, posterior),
        "metrics": _metrics(statistics),
        "draws": {
            "accuracy": Variable(("threshold", "draw"), draw_sums.accuracy(n_examples)),
            "nll": Variable(("threshold", "draw"), draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics, problem.label),
        **{f"snr/{name}": _snr(ratio) for name, ratio in posterior.snr().items()},
        "run": {name: _run_variable(value) for name, value in run.items()},
    }
    return Contents(
        attrs={
            "schema": SCHEMA,
            "status": "complete",
            "n_draws": config.n_draws,
            "seed": np.uint64(config.seed),
            "config": config.to_json(),
            "checkpoint": problem.checkpoint,
            "sha256": json.dumps(dict(problem.sha256), sort_keys=True),
        },
        coordinates=coordinates,
        groups=groups,
        group_attrs={
            "sparsity": _rule(config),
            "metrics": {
                "se": "NAME_se: Monte Carlo standard error, delete-group jackknife over pairs",
                "se_data": "NAME_se_data: standard error over test examples",
            },
        },
    )


def _sparsity(cuts: Sequence[Cut], posterior: Posterior) -> dict[str, Variable]:
    by_layer = [[cut.pruned_fraction_of(name) for name in posterior.names] for cut in cuts]
    thresholds = [[cut.layer_threshold[name] for name in posterior.names] for cut in cuts]
    return {
        "pruned_fraction": Variable(("threshold",), np.array([c.pruned_fraction for c in cuts])),
        "n_active": Variable(("threshold",), np.array([cut.n_active for cut in cuts])),
        "layer_pruned_fraction": Variable(("threshold", "layer"), np.array(by_layer)),
        "layer_threshold": Variable(("threshold", "layer"), np.array(thresholds)),
    }


def _rule(config: SweepConfig) -> dict[str, Any]:
    attrs = {
        "criterion": config.criterion,
        "scope": config.scope,
        "granularity": config.granularity,
        "pruned_weights": config.pruned_weights,
        "prior_scale": config.prior_scale,
    }
    return {name: value for name, value in attrs.items() if value is not None}


def _metrics(statistics: Statistics) -> dict[str, Variable]:
    out = {}
    for name, metric in statistics.metrics().items():
        attrs = {"units": _UNITS.get(name, "1"), "long_name": _LONG_NAMES[name]}
        out[name] = Variable(("threshold",), metric.value, attrs)
        out[f"{name}_se"] = Variable(("threshold",), metric.se, {"units": attrs["units"]})
        out[f"{name}_se_data"] = Variable(("threshold",), metric.se_data, {"units": attrs["units"]})
    return out


def _examples(statistics: Statistics, label: NDArray[np.int64]) -> dict[str, Variable]:
    out = {"label": Variable(("example",), label)}
    for name in PER_EXAMPLE:
        values = statistics.per_example(name).astype(np.float32)
        out[name] = Variable(("threshold", "example"), values, {"units": "nat"})
    mean_probability = statistics.mean_probability
    if mean_probability is not None:
        dims = ("threshold", "example", "class")
        out["mean_probability"] = Variable(dims, mean_probability)
    return out


def _snr(ratio: NDArray[np.float64]) -> dict[str, Variable]:
    counts, _ = np.histogram(ratio, _SNR_EDGES)
    return {
        "edges": Variable(("edge",), _SNR_EDGES),
        "counts": Variable(("bin",), counts.astype(np.int64)),
        "quantile": Variable(("quantile",), _SNR_QUANTILES),
        "quantiles": Variable(("quantile",), np.quantile(ratio, _SNR_QUANTILES)),
    }


def _run_variable(value: Any) -> Variable:
    if isinstance(value, list):
        return Variable(("rank",), value if isinstance(value[0], str) else np.array(value))
    return Variable((), value)
