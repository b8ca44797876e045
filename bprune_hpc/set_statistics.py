"""Statistics of a whole test set that are not means over its examples. Pure definitions.

Each takes the scores of every example at one threshold and, optionally, rows of masks that leave
examples out, for which it gives one value each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .calibration import equal_mass_edges, equal_width_edges, reliability
from .detection import area_under_risk_coverage, auroc, average_precision

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SetStatistic = Callable[[Mapping[str, Floats], NDArray[np.int64], Bools | None], Floats]

SCORES = ("accuracy", "confidence", "predictive_entropy", "mutual_information")
"""Statistics of single examples that these need."""


def _ece(scores: Mapping[str, Floats], label: NDArray[np.int64], keep: Bools | None) -> Floats:
    correct = scores["accuracy"] == 1
    return reliability(scores["confidence"], correct, equal_width_edges(), keep).error


def _ece_equal_mass(
    scores: Mapping[str, Floats], label: NDArray[np.int64], keep: Bools | None
) -> Floats:
    edges = equal_mass_edges(scores["confidence"])
    return reliability(scores["confidence"], scores["accuracy"] == 1, edges, keep).error


def _aurc(scores: Mapping[str, Floats], label: NDArray[np.int64], keep: Bools | None) -> Floats:
    return area_under_risk_coverage(scores["confidence"], scores["accuracy"] == 0, keep)


def _detecting_errors(area: Callable[..., Floats], score: str) -> SetStatistic:
    def statistic(
        scores: Mapping[str, Floats], label: NDArray[np.int64], keep: Bools | None
    ) -> Floats:
        return area(scores[score], scores["accuracy"] == 0, keep)

    return statistic


SET_STATISTICS: dict[str, SetStatistic] = {
    "ece": _ece,
    "ece_equal_mass": _ece_equal_mass,
    "aurc": _aurc,
    "auroc_errors_entropy": _detecting_errors(auroc, "predictive_entropy"),
    "aupr_errors_entropy": _detecting_errors(average_precision, "predictive_entropy"),
    "auroc_errors_mutual_information": _detecting_errors(auroc, "mutual_information"),
    "aupr_errors_mutual_information": _detecting_errors(average_precision, "mutual_information"),
}
