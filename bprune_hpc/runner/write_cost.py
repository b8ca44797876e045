"""What a write of the results will take, before one was measured.

Statistics of a few thresholds and examples are timed, on sums of made-up draws; what is written
and read back is taken to go at a rate. How writes are borne out, and what follows for the work,
belongs to ``runner.timing``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..posterior.draws import group_sizes
from .datasets import EvaluationSet
from .preparation import PreparedSweep
from .state import SweepState, ThresholdIndices
from .statistics import SweepStatistics
from .synthetic_state import fill

BYTES_PER_S = 100e6
"""Sums that are copied, hashed and put on disk, and read back at the end."""
_N_TIMES = 2  # of which the least counts: the first time more is loaded
_N_THRESHOLDS = 4
_MOST_EXAMPLES = 512
_NUMBERS = 2**20  # in sums of all groups that are timed


@dataclass(frozen=True)
class WriteCost:
    """Seconds of a write for each threshold and example.

    Attributes
    ----------
    cell_s : float
        Statistics and sums of the posterior mean, and of all draws.
    group_s : float
        Of each jackknife group.
    """

    cell_s: float
    group_s: float

    @classmethod
    def measure(cls, sweep: PreparedSweep) -> WriteCost:
        """Time it, in about a tenth of a second."""
        small = _in_small(sweep)
        n_replicates = len(sweep.plan.replicates)
        few_s, all_s = (min(_seconds(small, n) for _ in range(_N_TIMES)) for n in (1, n_replicates))
        n_cells = small.plan.n_thresholds * sum(len(block) for _, block in small.kept(0))
        n_more = len(group_sizes(n_replicates)) - 1
        group_s = max(all_s - few_s, 0.0) / n_cells / n_more if n_more else 0.0
        file_s = sweep.network.task.bytes_per_cell / BYTES_PER_S
        return cls(few_s / n_cells + file_s, group_s + file_s)

    def seconds(
        self, sweep: PreparedSweep, sweep_states: Sequence[SweepState], n_more: int = 0
    ) -> float:
        """What a write of these takes, if so many more replicates were drawn.

        Examples of finished passes count as those of the one in progress. Where passes follow each
        other, the end of one has statistics of its own, which count as well.

        Parameters
        ----------
        sweep_states : sequence of SweepState
            Their sums are not looked at; the last one is furthest behind, and has the replicates.
        """
        of_passes = [
            sum(len(block) for _, block in sweep.kept(index)) for index in range(len(sweep.passes))
        ]
        n_replicates = len(sweep.plan.replicates)
        seconds = 0.0
        for one in sweep_states:
            drawn = (
                min(one.n_replicates + n_more, n_replicates)
                if one is sweep_states[-1]
                else one.n_replicates
            )
            in_progress = sum(of_passes[one.n_passes : one.n_passes + 1])
            if n_more and len(of_passes) > 1:
                in_progress *= 2
            finished = sum(of_passes[: one.n_passes])
            seconds += len(one.thresholds) * (
                in_progress * self._of_replicates(drawn)
                + finished * self._of_replicates(n_replicates)
            )
        return seconds

    def _of_replicates(self, n_replicates: int) -> float:
        return self.cell_s + self.group_s * len(group_sizes(n_replicates))


def _in_small(sweep: PreparedSweep) -> PreparedSweep:
    """The same sets with a few of their examples, all in one block."""
    plan, task = sweep.plan, sweep.network.task
    n_thresholds = min(_N_THRESHOLDS, plan.n_thresholds)
    of_example = (1 + len(plan.group_sizes)) * n_thresholds * task.bytes_per_cell / 8
    most = min(max(int(_NUMBERS / of_example), 16), _MOST_EXAMPLES)

    def small(dataset: EvaluationSet) -> EvaluationSet:
        few = dataset.few(most)
        plan = replace(dataset.plan, n_thresholds=n_thresholds, blocks=(range(len(few)),))
        return replace(few, plan=plan)

    return replace(sweep, datasets=[small(dataset) for dataset in sweep.datasets])


def _seconds(sweep: PreparedSweep, n_replicates: int) -> float:
    """Of statistics after some replicates."""
    plan, task, label = sweep.plan, sweep.network.task, sweep.datasets[0].summed_label
    replicate, n_thresholds, n_examples = plan.replicates[0], plan.n_thresholds, len(label)
    sums: Any = task.sums(n_thresholds, n_examples, len(replicate))
    draws: Any = task.draw_sums(n_thresholds, len(replicate))
    rng = np.random.default_rng(0)
    for threshold in range(n_thresholds):
        outputs = rng.uniform(0.1, 1, (len(replicate), task.n_outputs, n_examples)).astype(
            np.float32
        )
        at = threshold, slice(0, n_examples)
        task.add_up(outputs, label, [(0, draw) for draw in replicate], at, {0: sums}, draws)
    sweep_state = SweepState(ThresholdIndices(range(n_thresholds)))
    fill(sweep_state, sweep, range(n_thresholds), sums, sums, draws)
    sweep_state.n_replicates = n_replicates
    start = time.perf_counter()
    SweepStatistics(sweep, sweep_state).metrics  # noqa: B018
    return time.perf_counter() - start
