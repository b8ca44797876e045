"""Statistics of a whole test set that are not means over its examples. Pure definitions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .calibration import equal_mass_edges, equal_width_edges, reliability
from .detection import area_under_risk_coverage, areas
from .row_chunks import by_rows

Floats = NDArray[np.float64]
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
