"""Thresholds at which outputs were not finite: which draw is named, and what is left of numbers.

Pure. Telling that outputs are not finite does not belong here (``runner.evaluation``), nor where in
the network it began (``runner.nonfinite_search``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..posterior.draws import MEAN


class Fault(NamedTuple):
    """What is named of a threshold at which outputs were not finite.

    Attributes
    ----------
    draw : int
        The first of the draws with such outputs; ``MEAN``, which is before all, for the mean.
    dataset : int
        Set of examples, 0 for the test set.
    example : int
        First one of the batch.
    layer : str
        Operation at which it began; empty if none was found.
    """

    draw: int
    dataset: int
    example: int
    layer: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """What decides which of several faults is named: no matter of ranks, rounds or resumes."""
        return self.draw, self.dataset, self.example

    @property
    def text(self) -> str:
        """``draw 17, sequential/dense_1/BiasAdd``."""
        which = "posterior mean" if self.draw == MEAN else f"draw {self.draw}"
        of_others = " of the other examples" if self.dataset else ""
        return f"{which}{of_others}, {self.layer or 'layer not found'}"


Faults = dict[int, Fault]
"""By threshold index."""


def take_earliest(faults: Faults, others: Mapping[int, Fault]) -> list[int]:
    """Put faults among those that are known; the thresholds at which one is named anew."""
    changed = []
    for threshold_index, fault in others.items():
        if threshold_index not in faults or fault.place < faults[threshold_index].place:
            faults[threshold_index] = fault
            changed.append(threshold_index)
    return changed
