"""The sweep state of a whole sweep that was never run: sums of a few draws, repeated to full size.

So statistics, file and memory can be had as they will be at the end. The numbers mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accumulators.binned import BIN_BITS
from ..accumulators.classification import DRAW_NLL_BITS, DrawSums, GroupSums
from ..metrics.tasks import AnyDrawSums, AnySums
from ..posterior.draws import MEAN
from .preparation import PreparedSweep
from .state import SweepState


def repeated_labels(sweep: PreparedSweep, n_examples: int) -> PreparedSweep:
    """The sweep with the labels of the first examples repeated, as sums are."""
    datasets = [
        dataset
        if dataset.label is None
        else replace(dataset, label=dataset.label[np.arange(len(dataset)) % n_examples])
        for dataset in sweep.datasets
    ]
    return replace(sweep, datasets=datasets)


def fill(
    sweep_state: SweepState,
    sweep: PreparedSweep,
    like: Sequence[int],
    of_mean: AnySums,
    of_replicate: AnySums,
    draws: AnyDrawSums,
) -> None:
    """Give a sweep state that has begun a pass the sums of its end.

    Parameters
    ----------
    like : sequence of int
        For every threshold, which one of the sums it is to have.
    of_mean, of_replicate : GroupSums or NormalSums
        Of the posterior mean and of one replicate, for some thresholds and examples.
    draws : DrawSums or NormalDrawSums
        Of that replicate's draws.
    """
    plan = sweep.plan
    for index, (_, block) in enumerate(sweep.kept(sweep_state.n_passes)):
        sums = sweep_state.sums_of(index)
        sums[MEAN] = _repeated(of_mean, like, len(block), 1)
        for group, n_replicates in enumerate(plan.group_sizes):
            sums[group] = _repeated(of_replicate, like, len(block), n_replicates)
    for index, block in sweep.passes[sweep_state.n_passes]:
        sweep_state.draws[index] = _repeated_draws(draws, like, plan.n_draws, len(block))
    sweep_state.n_replicates = len(plan.replicates)


def finish(sweep_state: SweepState, sweep: PreparedSweep) -> None:
    """Let a state that has ended its first pass have ended them all, with the same in each."""
    ended, draws = sweep_state.finished[0], sweep_state.finished_draws[0]
    for index, dataset in enumerate(sweep.datasets):
        sweep_state.finished_draws[index] = draws
        if not dataset.keeps_examples:
            continue
        n_examples = len(dataset)
        n_batches = -(-n_examples // dataset.plan.batch_size)
        sweep_state.finished[index] = {
            name: _repeated_column(name, column, n_examples, n_batches)
            for name, column in ended.items()
        }
    sweep_state.n_passes = len(sweep.passes)


def _repeated_column(
    name: str, column: NDArray[Any], n_examples: int, n_batches: int
) -> NDArray[Any]:
    """Statistics that a pass has left, for more examples; some are kept batch by batch."""
    kind = name.partition("/")[0]
    axis = 2 if kind in ("deleted", "without", "halves", "scores") else 1
    number = n_batches if kind in ("deleted", "without", "halves") else n_examples
    return np.take(column, np.arange(number) % column.shape[axis], axis=axis)


def _repeated(small: AnySums, like: Sequence[int], n_examples: int, n_replicates: int) -> AnySums:
    """Sums as of so many replicates that all say the same, for more examples and thresholds."""
    if isinstance(small, GroupSums):
        rows = np.arange(n_examples) % small.buffer.shape[2]
        group = GroupSums(len(like), n_examples, small.n_classes)
        for into, index in zip(group.buffer, like, strict=True):
            np.multiply(small.buffer[index][:, rows], n_replicates, out=into)
        return group
    rows = np.arange(n_examples) % small.sums.top.shape[1]
    normal = type(small)(len(like), n_examples, 1, small.n_targets)
    for position, index in enumerate(like):
        normal.sums.top[position] = small.sums.top[index][rows]
        np.multiply(small.sums.bins[index][rows], n_replicates, out=normal.sums.bins[position])
    return normal


def _repeated_draws(
    small: AnyDrawSums, like: Sequence[int], n_draws: int, n_examples: int
) -> AnyDrawSums:
    """Sums of more draws, which differ as draws do: a file of equals would be smaller."""
    rows, rng = np.array(like), np.random.default_rng(0)
    if isinstance(small, DrawSums):
        places = np.arange(n_draws) % small.packed.shape[2]
        packed = small.packed[:, rows][:, :, places]
        packed[0] += rng.integers(0, math.isqrt(n_examples) + 1, packed.shape[1:])
        packed[1] += rng.integers(0, 2 ** (DRAW_NLL_BITS - 4), packed.shape[1:])
        return DrawSums(packed)
    places = np.arange(n_draws) % small.sums.top.shape[1]
    many = type(small)(0, 0)
    many.sums.top = small.sums.top[rows][:, places]
    many.sums.bins = small.sums.bins[rows][:, places]
    many.sums.bins[..., 1] += rng.integers(0, 2 ** (BIN_BITS - 4), many.sums.top.shape)
    return many
