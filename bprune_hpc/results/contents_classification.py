"""A classification's part of a results file: which number goes under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..accumulators.classification import DrawSums
from ..metrics.calibration import equal_mass_edges, equal_width_edges, reliability
from ..metrics.classification import PER_EXAMPLE, Statistics
from ..metrics.definitions import CLASSIFICATION, OUT_OF_DISTRIBUTION
from ..metrics.detection import risk_at_coverage
from ..metrics.estimates import Metric
from .file import Variable
from .metric_variables import metric_and_errors, metric_variables


def groups(
    statistics: Statistics, metrics: Mapping[str, Metric], draw_sums: DrawSums, n_classes: int
) -> dict[str, dict[str, Variable]]:
    """The groups that only a classification has, or has in its own way."""
    n_examples = len(statistics.label)
    return {
        "metrics": metric_variables(metrics, CLASSIFICATION | OUT_OF_DISTRIBUTION),
        "draws": {
            "accuracy": Variable(("threshold", "draw"), draw_sums.accuracy(n_examples)),
            "nll": Variable(("threshold", "draw"), draw_sums.nll(n_examples), {"units": "nat"}),
        },
        "examples": _examples(statistics),
        "classes": _classes(statistics, n_classes),
        "calibration": _calibration(statistics),
        "risk_coverage": _risk_coverage(statistics),
    }


def _classes(statistics: Statistics, n_classes: int) -> dict[str, Variable]:
    label, predicted = statistics.label, statistics.predicted
    confusion = np.zeros((len(predicted), n_classes, n_classes), np.int64)
    np.add.at(confusion, (np.arange(len(predicted))[:, None], label, predicted), 1)
    attrs = {"units": "1", "long_name": "accuracy of the averaged predictive over each class"}
    return {
        **metric_and_errors(
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
        diagram = reliability(confidence, accuracy == 1, edges)
        out[f"{prefix}bins"] = Variable(("threshold", "edge"), edges)
        for name in ("count", "confidence", "accuracy"):
            out[prefix + name] = Variable(("threshold", "bin"), getattr(diagram, name))
    return out


def _risk_coverage(statistics: Statistics) -> dict[str, Variable]:
    confidence, accuracy = statistics.per_example("confidence"), statistics.per_example("accuracy")
    risk = risk_at_coverage(confidence, accuracy == 0)
    coverage = np.arange(1, risk.shape[1] + 1) / risk.shape[1]
    return {
        "coverage": Variable(("coverage",), coverage),
        "risk": Variable(("threshold", "coverage"), risk),
    }


def ood(statistics: Statistics) -> dict[str, Variable]:
    """The scores of each example of another kind; of its label no number is."""
    return _scores(statistics, "ood_example", [name for name in PER_EXAMPLE if name != "nll"])


def _examples(statistics: Statistics) -> dict[str, Variable]:
    label = Variable(("example",), statistics.label)
    out = {"label": label, **_scores(statistics, "example", PER_EXAMPLE)}
    mean_probability = statistics.mean_probability
    if mean_probability is not None:
        dims = ("threshold", "example", "class")
        out["mean_probability"] = Variable(dims, mean_probability)
    return out


def _scores(statistics: Statistics, dim: str, names: Sequence[str]) -> dict[str, Variable]:
    out = {}
    for name in names:
        values = statistics.per_example(name).astype(np.float32)
        out[name] = Variable(("threshold", dim), values, {"units": CLASSIFICATION[name].units})
    return out
