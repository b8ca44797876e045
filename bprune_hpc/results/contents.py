"""What a sweep has found in the form of a results file: which number goes under which name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accumulators.classification import DrawSums
from ..accumulators.regression import NormalDrawSums
from ..config.sweep_config import SweepConfig
from ..metrics.calibration import equal_mass_edges, equal_width_edges, reliability
from ..metrics.classification import PER_EXAMPLE, Metric, Statistics, is_discrete
from ..metrics.definitions import TOP_K
from ..metrics.detection import risk_at_coverage
from ..metrics.nonfinite import _blank
from ..metrics.regression import RegressionStatistics
from ..metrics.stopping import Target
from ..posterior.criteria import CRITERIA
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningMask
from ..runner.network import Network
from ..runner.preparation import PreparedSweep
from ..runner.statistics import SweepStatistics
from . import contents_choice, contents_regression
from .file import SCHEMA, Contents, Variable

_IN_NATS = ("nll", "predictive_entropy", "expected_entropy", "mutual_information")
_LONG_NAMES = {
    "accuracy": "accuracy of the predictive averaged over draws",
    "accuracy_top_k": f"share of examples whose true class is among the {TOP_K} most probable",
    "accuracy_single_draw": "mean accuracy of single draws",
    "accuracy_mean_weights": "accuracy of the network at its posterior mean",
    "nll": "negative log-likelihood of the averaged predictive",
    "brier": "Brier score of the averaged predictive, summed over classes",
    "ece": "expected calibration error, 15 bins of equal width",
    "ece_equal_mass": "expected calibration error, 15 bins of equal numbers of examples",
    "aurc": "area under the risk-coverage curve, by confidence",
    "auroc_errors_entropy": "AUROC of predictive entropy for misclassified examples",
    "aupr_errors_entropy": "average precision of predictive entropy for misclassified examples",
    "auroc_errors_mutual_information": "AUROC of mutual information for misclassified examples",
    "aupr_errors_mutual_information": "average precision of mutual information for the same",
    "auroc_ood_entropy": "AUROC of predictive entropy for examples of the other set",
    "aupr_ood_entropy": "average precision of predictive entropy for examples of the other set",
    "auroc_ood_mutual_information": "AUROC of mutual information for examples of the other set",
    "aupr_ood_mutual_information": "average precision of mutual information for the same",
    "predictive_entropy": "entropy of the averaged predictive",
    "expected_entropy": "mean entropy of single draws' predictions",
    "mutual_information": "predictive less expected entropy, corrected for its bias in 1/draws",
    "probability_variance": "variance over draws of the class probabilities, summed over classes, "
    "corrected for its bias in 1/draws",
    "accuracy_drop": "accuracy at the first threshold less that here, on the same examples",
    "nll_rise": "NLL here less that at the first threshold, on the same examples",
}
OOD_PER_EXAMPLE = tuple(name for name in PER_EXAMPLE if name != "nll")
_SNR_EDGES = np.concatenate([[0.0], np.logspace(-6, 3, 91), [np.inf]])
_SNR_QUANTILES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


def contents(
    sweep: PreparedSweep,
    findings: SweepStatistics,
    run: Mapping[str, Any],
    status: str,
) -> Contents:
    """Everything a results file holds, under the names and dimensions of the schema.

    Parameters
    ----------
    run : mapping of str to number, str or list of one entry a rank
        Goes to ``/run``.
    status : {"complete", "partial"}
    """
    config, network = sweep.config, sweep.network
    record, *others = [dataset.record for dataset in sweep.datasets]
    masks = [sweep.masks[row] for row in findings.rows]
    statistics, metrics, n_draws = findings.statistics[0], findings.metrics, findings.n_draws
    draw_sums = findings.draw_sums
    posterior = network.posterior
    criterion, rule = CRITERIA[config.criterion], config.rule()
    heading = {"heading": rule.heading(config.grid_kind)}
    is_by_fraction = config.grid_kind == "fraction"
    pair_of_draw = [draw.noise for draws in statistics.plan.units for draw in draws]
    n_examples = len(statistics.label)
    coordinates = {
        "threshold": Variable(
            ("threshold",),
            np.array([mask.threshold for mask in masks]),
            {
                "long_name": criterion.meaning
                + (", as far as it reaches in any layer" if is_by_fraction else ""),
                "units": criterion.units,
                **({} if is_by_fraction else heading),
            },
        ),
        "requested_fraction": Variable(
            ("threshold",),
            np.array([mask.requested_fraction for mask in masks]),
            heading if is_by_fraction else {},
        ),
        "draw": Variable(("draw",), np.arange(n_draws)),
        "pair": Variable(("draw",), np.array(pair_of_draw, np.int64)),
        "example": Variable(("example",), np.arange(n_examples)),
        "layer": Variable(("layer",), list(posterior.names)),
        "failure": Variable(
            ("threshold",), findings.failures, {"long_name": "where outputs were not finite"}
        ),
    }
    if isinstance(statistics, RegressionStatistics):
        assert isinstance(draw_sums, NormalDrawSums)
        of_the_task = contents_regression.groups(statistics, metrics, draw_sums)
    else:
        assert isinstance(draw_sums, DrawSums)
        names = {} if record.classes is None else {"names": list(record.classes)}
        coordinates["class"] = Variable(("class",), np.arange(network.task.n_classes), names)
        of_the_task = _of_classes(statistics, metrics, draw_sums, network)
    groups: dict[str, dict[str, Variable]] = {
        "sparsity": {**_sparsity(masks, posterior), **_priors(network)},
        **blanked(of_the_task, findings.failed),
        **{f"snr/{name}": _snr(ratio) for name, ratio in posterior.snr().items()},
        "run": {name: _run_variable(value) for name, value in run.items()},
    }
    group_attrs = {
        "sparsity": _rule(config),
        "metrics": {
            "se": "NAME_se: Monte Carlo standard error, delete-group jackknife over pairs",
            "se_data": "NAME_se_data: standard error over test examples",
        },
    }
    chosen = contents_choice.group(config, masks, findings)
    if chosen is not None:
        groups["choice"], group_attrs["choice"] = chosen
    for other in findings.statistics[1:]:
        scores = {"ood": _scores(other, "ood_example", OOD_PER_EXAMPLE)}
        groups |= blanked(scores, findings.failed)
    if config.target is not None:
        group_attrs["metrics"] |= _target(config.target, findings)
    doubt = "" if masks[0].pruned_fraction else network.task.doubt(statistics.label, metrics)
    return Contents(
        attrs={
            **({"doubt": doubt} if doubt else {}),
            "schema": SCHEMA,
            "status": status,
            "n_examples": n_examples,
            "task": network.task.name,
            "n_draws": n_draws,
            "seed": np.uint64(config.seed),
            "config": config.to_json(),
            "checkpoint": network.checkpoint,
            "sha256": json.dumps(dict(network.sha256), sort_keys=True),
            "input": record.scaling,
            **({"ood_input": others[0].scaling} if others else {}),
        },
        coordinates=coordinates,
        groups=groups,
        group_attrs=group_attrs,
    )


def _target(target: Target, findings: SweepStatistics) -> dict[str, Any]:
    metrics, failed = findings.metrics, findings.failed
    return {
        "target_metric": target.metric,
        "target_se": target.se,
        "target_reached": int(target.is_reached(metrics, failed)),
        "target_text": target.sentence(metrics, failed, findings.n_draws),
    }


def _of_classes(
    statistics: Statistics,
    metrics: Mapping[str, Metric],
    draw_sums: DrawSums,
    network: Network,
) -> dict[str, dict[str, Variable]]:
    """The groups that only a classification has, or has in its own way."""
    n_examples = len(statistics.label)
    return {
        "metrics": _metrics(metrics),
        "draws": {
            "accuracy": Variable(("threshold", "draw"), draw_sums.accuracy(n_examples)),
            "nll": Variable(("threshold", "draw"), draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics, statistics.label),
        "classes": _classes(statistics, network.task.n_classes),
        "calibration": _calibration(statistics),
        "risk_coverage": _risk_coverage(statistics),
    }


def _sparsity(masks: Sequence[PruningMask], posterior: Posterior) -> dict[str, Variable]:
    by_layer = [[mask.pruned_fraction_of(name) for name in posterior.names] for mask in masks]
    thresholds = [[mask.layer_threshold[name] for name in posterior.names] for mask in masks]
    return {
        "pruned_fraction": Variable(
            ("threshold",), np.array([mask.pruned_fraction for mask in masks])
        ),
        "n_active": Variable(("threshold",), np.array([mask.n_active for mask in masks])),
        "layer_pruned_fraction": Variable(("threshold", "layer"), np.array(by_layer)),
        "layer_threshold": Variable(("threshold", "layer"), np.array(thresholds)),
    }


def _priors(network: Network) -> dict[str, Variable]:
    """The prior of each layer, where it was read from the graph."""
    if network.prior is None:
        return {}
    priors = [network.prior[name] for name in network.posterior.names]
    return {
        "prior_loc": Variable(("layer",), np.array([prior.loc for prior in priors])),
        "prior_scale": Variable(("layer",), np.array([prior.scale for prior in priors])),
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


def _metrics(metrics: Mapping[str, Metric]) -> dict[str, Variable]:
    out: dict[str, Variable] = {}
    for name, metric in metrics.items():
        base = name.removesuffix("_change")
        text = _LONG_NAMES[base]
        attrs: dict[str, Any] = {
            "units": "nat" if base in _IN_NATS or name == "nll_rise" else "1",
            "long_name": text if base == name else f"{text}: less that at the first threshold",
        }
        if is_discrete(name):
            attrs["discrete"] = "moves in steps: its standard errors are rough"
        out |= _with_errors(name, ("threshold",), metric, attrs)
    return out


def _with_errors(
    name: str, dims: tuple[str, ...], metric: Metric, attrs: Mapping[str, Any]
) -> dict[str, Variable]:
    units = {"units": attrs["units"]}
    return {
        name: Variable(dims, metric.value, attrs),
        f"{name}_se": Variable(dims, metric.se, units),
        f"{name}_se_data": Variable(dims, metric.se_data, units),
    }


def _classes(statistics: Statistics, n_classes: int) -> dict[str, Variable]:
    label, predicted = statistics.label, statistics.predicted
    confusion = np.zeros((len(predicted), n_classes, n_classes), np.int64)
    np.add.at(confusion, (np.arange(len(predicted))[:, None], label, predicted), 1)
    attrs = {"units": "1", "long_name": "accuracy of the averaged predictive over each class"}
    return {
        **_with_errors(
            "accuracy", ("threshold", "class"), statistics.class_accuracy(n_classes), attrs
        ),
        "confusion": Variable(("threshold", "true_class", "predicted_class"), confusion),
    }


def _calibration(statistics: Statistics) -> dict[str, Variable]:
    out: dict[str, Variable] = {}
    confidence, accuracy = statistics.per_example("confidence"), statistics.per_example("accuracy")
    of_mass = equal_mass_edges(confidence)
    of_width = np.broadcast_to(equal_width_edges(), of_mass.shape)
    for prefix, edges in (("", of_width), ("equal_mass_", of_mass)):
        found = reliability(confidence, accuracy == 1, edges)
        out[f"{prefix}bins"] = Variable(("threshold", "edge"), edges)
        for name in ("count", "confidence", "accuracy"):
            out[prefix + name] = Variable(("threshold", "bin"), getattr(found, name))
    return out


def _risk_coverage(statistics: Statistics) -> dict[str, Variable]:
    confidence, accuracy = statistics.per_example("confidence"), statistics.per_example("accuracy")
    risk = risk_at_coverage(confidence, accuracy == 0)
    coverage = np.arange(1, risk.shape[1] + 1) / risk.shape[1]
    return {
        "coverage": Variable(("coverage",), coverage),
        "risk": Variable(("threshold", "coverage"), risk),
    }


def _examples(statistics: Statistics, label: NDArray[np.int64]) -> dict[str, Variable]:
    out = {"label": Variable(("example",), label), **_scores(statistics, "example", PER_EXAMPLE)}
    mean_probability = statistics.mean_probability
    if mean_probability is not None:
        dims = ("threshold", "example", "class")
        out["mean_probability"] = Variable(dims, mean_probability)
    return out


def _scores(statistics: Statistics, dim: str, names: Sequence[str]) -> dict[str, Variable]:
    out = {}
    for name in names:
        values = statistics.per_example(name).astype(np.float32)
        attrs = {"units": "nat" if name in _IN_NATS else "1"}
        out[name] = Variable(("threshold", dim), values, attrs)
    return out


def _snr(ratio: NDArray[np.float64]) -> dict[str, Variable]:
    counts, _ = np.histogram(ratio, _SNR_EDGES)
    return {
        "edges": Variable(("edge",), _SNR_EDGES),
        "counts": Variable(("bin",), counts.astype(np.int64)),
        "quantile": Variable(("quantile",), _SNR_QUANTILES),
        "quantiles": Variable(
            ("quantile",), np.quantile(ratio, _SNR_QUANTILES, method="inverted_cdf")
        ),
    }


def _run_variable(value: Any) -> Variable:
    if isinstance(value, list):
        return Variable(("rank",), value if isinstance(value[0], str) else np.array(value))
    return Variable((), value)


def blanked(
    groups: Mapping[str, Mapping[str, Variable]], failed: NDArray[np.bool_]
) -> dict[str, dict[str, Variable]]:
    """Datasets along the thresholds with NaN, integers with -1, where a threshold failed."""

    def one(variable: Variable) -> Variable:
        if not failed.any() or variable.dims[:1] != ("threshold",):
            return variable
        return replace(variable, data=_blank(np.asarray(variable.data), failed))

    return {
        group: {name: one(variable) for name, variable in variables.items()}
        for group, variables in groups.items()
    }
