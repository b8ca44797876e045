"""What a sweep has found so far: statistics of those examples and draws that are done.

Made on rank 0 of a sweep state. Doing the work does not belong here (``runner.loop``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..metrics.estimates import Metric
from ..metrics.free_energy import FreeEnergy, free_energy
from ..metrics.nonfinite import without_failed
from ..metrics.ood import ood_metrics
from ..metrics.tasks import AnyDrawSums
from ..posterior.draws import draws_per_replicate
from .datasets import EvaluationSet
from .preparation import PreparedSweep
from .state import Arrays, SweepState
from .work_split import Plan


class SweepStatistics:
    """Statistics of the thresholds of a sweep state.

    Of the examples whose blocks are finished, with all draws; before any is, of the block in
    progress with the draws so far. All examples are in one block where their sums fit in memory.

    Attributes
    ----------
    thresholds : ThresholdIndices
    statistics : list of Statistics or RegressionStatistics
        Of each set of examples that is in, the test set first.
    draw_sums : DrawSums or NormalDrawSums
        Of the test set.
    free_energy : FreeEnergy or None
        None without training data, or as long as their pass is not done.
    failures : list of str
        What failed at each threshold, empty where nothing did. At the others the sums stand; at
        these statistics mean nothing, and metrics are NaN.
    """

    def __init__(self, sweep: PreparedSweep, sweep_state: SweepState) -> None:
        self.thresholds = sweep_state.thresholds
        self.statistics: list[Any] = []
        faults = sweep_state.faults
        self.failures = [faults[index].text if index in faults else "" for index in self.thresholds]
        self.failed = np.array([text != "" for text in self.failures])
        if sweep_state.n_passes:
            for index, dataset in enumerate(sweep.datasets):
                n_done = n_blocks_done(sweep, sweep_state, index)
                if index in sweep_state.finished and (
                    index == 0 or n_done == len(dataset.plan.blocks)
                ):
                    columns = sweep_state.finished[index]
                    self.statistics.append(_finished(sweep, index, columns, n_done))
            self._take_draws(sweep, sweep_state.finished_draws)
            return
        self._take_draws(sweep, sweep_state.draws)
        for (index, block), sums in zip(sweep.kept(0), sweep_state.sums, strict=True):
            dataset = sweep.datasets[index]
            statistics = _empty(sweep, dataset, dataset.plan.until(sweep_state.n_replicates))
            statistics.add_block(sums, dataset.summed_label[block.start : block.stop])
            self.statistics.append(statistics)

    def _take_draws(self, sweep: PreparedSweep, draws: Mapping[int, AnyDrawSums]) -> None:
        self.draw_sums = draws[0]
        self.free_energy: FreeEnergy | None = None
        last = len(sweep.datasets) - 1
        training = sweep.datasets[last]
        if last not in draws or training.keeps_examples:
            return
        of_draws = draws[last].nll(1)  # not their mean
        self.free_energy = free_energy(
            of_draws,
            of_draws.shape[1] // draws_per_replicate(sweep.config.pairing),
            sweep.closed_form.at(self.thresholds),
            self.failed,
        )

    @property
    def n_draws(self) -> int:
        """Draws of each example."""
        return int(self.statistics[0].plan.n_draws)

    @property
    def n_replicates(self) -> int:
        """Units of draws of each example."""
        return len(self.statistics[0].plan.replicates)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric."""
        test, *others = self.statistics
        metrics: dict[str, Metric] = test.metrics(self.failed)
        for other in others:
            metrics |= ood_metrics(test.scores(), other.scores(), test.plan.group_sizes)
        return without_failed(metrics, self.failed)


def n_blocks_done(sweep: PreparedSweep, sweep_state: SweepState, dataset: int) -> int:
    """Finished blocks of a set of examples."""
    done = sweep.passes[: sweep_state.n_passes]
    return sum(index == dataset for blocks in done for index, _ in blocks)


def with_block(sweep: PreparedSweep, sweep_state: SweepState) -> dict[int, Arrays]:
    """Statistics of finished examples, with those of the block that has just been done."""
    if not sweep.kept(sweep_state.n_passes):
        return {}
    ((index, block),), (sums,) = sweep.passes[sweep_state.n_passes], sweep_state.sums
    n_done = n_blocks_done(sweep, sweep_state, index)
    statistics = _finished(sweep, index, sweep_state.finished.get(index), n_done)
    statistics.add_block(sums, sweep.datasets[index].summed_label[block.start : block.stop])
    return {index: statistics.columns()}


def _finished(sweep: PreparedSweep, index: int, columns: Arrays | None, n_blocks: int) -> Any:
    dataset = sweep.datasets[index]
    statistics = _empty(sweep, dataset, dataset.plan)
    if columns is not None:
        n_examples = dataset.plan.blocks[n_blocks - 1].stop
        statistics.take_columns(columns, dataset.summed_label[:n_examples])
    return statistics


def _empty(sweep: PreparedSweep, dataset: EvaluationSet, plan: Plan) -> Any:
    save = sweep.config.save_probabilities
    return sweep.network.task.statistics(plan, len(dataset), save)
