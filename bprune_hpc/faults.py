"""Thresholds at which outputs were not finite: which draw is named, and what is left of numbers.

Pure. Telling that outputs are not finite does not belong here (``evaluation``), nor where in the
network it began (``fault_search``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .metrics import Metric, is_difference
from .plan import MEAN
from .results import Variable

NO_COUNT = -1
"""Stands at a failed threshold for integers, which have no NaN."""


class Fault(NamedTuple):
    """What is named of a threshold at which outputs were not finite.

    Attributes
    ----------
    draw : int
        The first of the draws with such outputs; ``MEAN``, which is before all, for the mean.
    part : int
        Set of examples, 0 for the test set.
    example : int
        First one of the batch.
    layer : str
        Operation at which it began; empty if none was found.
    """

    draw: int
    part: int
    example: int
    layer: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """What decides which of several faults is named: no matter of ranks, rounds or resumes."""
        return self.draw, self.part, self.example

    @property
    def text(self) -> str:
        """``draw 17, sequential/dense_1/BiasAdd``."""
        which = "posterior mean" if self.draw == MEAN else f"draw {self.draw}"
        of_others = " of the other examples" if self.part else ""
        return f"{which}{of_others}, {self.layer or 'layer not found'}"


Faults = dict[int, Fault]
"""By threshold: its row in the grid."""


def take_earliest(faults: Faults, others: Mapping[int, Fault]) -> list[int]:
    """Put faults among those that are known; the thresholds at which one is named anew."""
    changed = []
    for row, fault in others.items():
        if row not in faults or fault.place < faults[row].place:
            faults[row] = fault
            changed.append(row)
    return changed


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


def _blank(array: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
    out = array.copy()
    out[rows] = np.nan if array.dtype.kind == "f" else NO_COUNT
    return out
