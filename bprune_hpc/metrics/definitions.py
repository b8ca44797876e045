"""What is measured of a classifier's averaged prediction: of each example, and of the whole set.
Pure.

Statistics of a set that are not means over its examples take the scores of every example at one
threshold and, optionally, rows of masks that leave examples out, for which they give one value
each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..accumulators.classification import MAX_NLL, MeanPrediction
from .calibration import equal_mass_edges, equal_width_edges, reliability
from .detection import area_under_risk_coverage, areas
from .row_chunks import by_rows

Floats = NDArray[np.float64]

TOP_K = 3
"""Classes that count as right for ``accuracy_top_k``, where there are more than these."""


def example_statistics(mean: MeanPrediction, label: NDArray[np.int64]) -> dict[str, Floats]:
    """Statistics of which the metrics are means over examples.

    Parameters
    ----------
    mean : MeanPrediction
    label : int64 array, shape (n_examples,)

    Returns
    -------
    mapping of str to float64 array, shape (n_thresholds, n_examples)
        ``accuracy`` and ``accuracy_top_k`` (0 or 1), ``accuracy_single_draw``, ``nll`` (nats),
        ``brier`` (sum over classes, between 0 and 2), ``predictive_entropy``,
        ``expected_entropy`` and ``mutual_information`` (nats), ``probability_variance`` (variance
        over draws of the class probabilities, summed over classes), ``confidence``.
    """
    probability = mean.probability
    log = np.log(np.where(probability > 0, probability, 1.0))
    entropy = -(probability * log).sum(axis=2)
    squares = (probability * probability).sum(axis=2)
    true, rank = mean.true_probability, _rank(probability, label)
    with np.errstate(divide="ignore"):
        nll = np.minimum(-np.log(true), MAX_NLL)
    return {
        "accuracy": (rank == 0).astype(np.float64),
        "accuracy_top_k": (rank < TOP_K).astype(np.float64),
        "accuracy_single_draw": mean.single_draw_accuracy,
        "nll": nll,
        "brier": squares - 2.0 * true + 1.0,
        "predictive_entropy": entropy,
        "expected_entropy": mean.expected_entropy,
        "mutual_information": entropy - mean.expected_entropy,
        "probability_variance": np.maximum(mean.expected_squares - squares, 0.0),
        "confidence": probability.max(axis=2),
    }


def _rank(probability: Floats, label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of classes before the true one, of equals the first coming first."""
    true = np.take_along_axis(probability, label[None, :, None], axis=2)
    is_before = np.arange(probability.shape[2]) < label[:, None]
    return ((probability > true) | ((probability == true) & is_before)).sum(axis=2)


Bools = NDArray[np.bool_]

SCORES = ("accuracy", "confidence", "predictive_entropy", "mutual_information")
"""Statistics of single examples that these need."""

SET_STATISTICS = (
    "ece",
    "ece_equal_mass",
    "aurc",
    "auroc_errors_entropy",
    "aupr_errors_entropy",
    "auroc_errors_mutual_information",
    "aupr_errors_mutual_information",
)


def set_statistics(scores: Mapping[str, Floats], keep: Bools | None = None) -> dict[str, Floats]:
    """Every one of ``SET_STATISTICS``.

    Parameters
    ----------
    scores : mapping of str to float64 array, shape (..., n_examples)
        Each of ``SCORES``.
    keep : bool array, shape (n_masks, n_examples), optional
        Subsets of the examples to work them out for.

    Returns
    -------
    mapping of str to float64 array, shape (...), or (n_masks, ...)
    """

    def of_some(*of_rows: Floats) -> list[Floats]:
        accuracy, confidence, entropy, mutual_information = of_rows
        correct, wrong = accuracy == 1, accuracy == 0
        found = [
            reliability(confidence, correct, edges, keep).error
            for edges in (equal_width_edges(), equal_mass_edges(confidence))
        ]
        found.append(area_under_risk_coverage(confidence, wrong, keep))
        for score in (entropy, mutual_information):
            found += areas(score, wrong, keep)
        return [one.reshape(-1, len(accuracy)) for one in found]

    found = by_rows(of_some, keep, *(scores[name] for name in SCORES))
    return dict(zip(SET_STATISTICS, found, strict=True))
