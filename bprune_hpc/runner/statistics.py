"""What a sweep has found so far: statistics of those examples and draws that are done.

Made on rank 0 of a sweep state. Doing the work does not belong here (``runner.loop``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..metrics.estimates import Metric
from ..metrics.nonfinite import without_failed
from ..metrics.ood import ood_metrics
from ..metrics.tasks import AnyDrawSums
from .datasets import Part, passes
from .state import Arrays, SweepState


class SweepStatistics:
    """Statistics of the thresholds of a sweep state.

    Of the examples whose blocks are finished, with all draws; before any is, of the block in
    progress with the draws so far. All examples are in one block where their sums fit in memory.

    Attributes
    ----------
    rows : tuple of int
        Thresholds of the grid.
    statistics : list of Statistics or RegressionStatistics
        Of each set of examples that is in, the test set first.
    draw_sums : DrawSums or NormalDrawSums
        Of the test set.
    failures : list of str
        What failed at each threshold, empty where nothing did. At the others the sums stand; at
        these statistics mean nothing, and metrics are NaN.
    """

    def __init__(
        self, parts: Sequence[Part], sweep_state: SweepState, save_probabilities: bool
    ) -> None:
        self.rows = sweep_state.rows
        self.statistics: list[Any] = []
        faults = sweep_state.faults
        self.failures = [faults[row].text if row in faults else "" for row in sweep_state.rows]
        self.failed = np.array([text != "" for text in self.failures])
        if sweep_state.n_passes:
            for index, part in enumerate(parts):
                n_done = n_blocks_done(parts, sweep_state, index)
                if index in sweep_state.finished and (
                    index == 0 or n_done == len(part.plan.blocks)
                ):
                    self.statistics.append(_finished(part, sweep_state.finished[index], n_done,
                                                     save_probabilities))  # fmt: skip
            self.draw_sums: AnyDrawSums = sweep_state.finished_draws[0]
            return
        self.draw_sums = sweep_state.draws[0]
        for (index, block), sums in zip(passes(parts)[0], sweep_state.sums, strict=True):
            part = parts[index]
            found: Any = part.problem.task.statistics(
                part.plan.until(sweep_state.n_units), len(part.problem.label), save_probabilities
            )
            found.add_block(sums, part.problem.label[block.start : block.stop])
            self.statistics.append(found)

    @property
    def n_draws(self) -> int:
        """Draws of each example."""
        return int(self.statistics[0].plan.n_draws)

    @property
    def n_units(self) -> int:
        """Units of draws of each example."""
        return len(self.statistics[0].plan.units)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric."""
        test, *others = self.statistics
        found: dict[str, Metric] = test.metrics()
        for other in others:
            found |= ood_metrics(test.scores(), other.scores(), test.plan.group_sizes)
        return without_failed(found, self.failed)


def n_blocks_done(parts: Sequence[Part], sweep_state: SweepState, part: int) -> int:
    """Finished blocks of a set of examples."""
    done = passes(parts)[: sweep_state.n_passes]
    return sum(index == part for blocks in done for index, _ in blocks)


def with_block(
    parts: Sequence[Part], sweep_state: SweepState, save_probabilities: bool
) -> dict[int, Arrays]:
    """Statistics of finished examples, with those of the block that has just been done."""
    ((index, block),) = passes(parts)[sweep_state.n_passes]
    part, (sums,) = parts[index], sweep_state.sums
    n_done = n_blocks_done(parts, sweep_state, index)
    found = _finished(part, sweep_state.finished.get(index), n_done, save_probabilities)
    found.add_block(sums, part.problem.label[block.start : block.stop])
    return {index: found.columns()}


def _finished(part: Part, columns: Arrays | None, n_blocks: int, save_probabilities: bool) -> Any:
    found: Any = part.problem.task.statistics(
        part.plan, len(part.problem.label), save_probabilities
    )
    if columns is not None:
        n_examples = part.plan.blocks[n_blocks - 1].stop
        found.take_columns(columns, part.problem.label[:n_examples])
    return found
