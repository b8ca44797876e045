"""A rank's part of a sweep: make the noise of each draw, run the network, add up.

The one loop over draws, thresholds and batches stands here. It knows its partition of the
work but no ranks, and a network only as an evaluator (``evaluators.interface``), of whose outputs'
meaning the network's task knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..evaluators.interface import Evaluator, Noise
from ..posterior.draws import MEAN, Draw, group_of
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningMask
from .datasets import EvaluationSet
from .network import Network
from .work_split import Partition

logger = logging.getLogger(__name__)

_STAND_IN = np.float32(1)
"""In place of outputs that are not finite; right for a standard deviation too."""

NotFinite = dict[int, tuple[int, int]]
"""By threshold's position: the first draw with outputs not finite, first example of its batch.

The posterior mean counts as the draw ``MEAN``, before all others.
"""


class AddsDraws(Protocol):
    """Sums over examples, kept for each draw."""

    def add(self, threshold: int, draws: Any, predictions: Any, places: slice = ...) -> None:
        """Add a batch of examples that a draw, or some draws, have predicted."""

    def add_sums(self, threshold: int, draws: Any, sums: NDArray[np.int64]) -> None:
        """Add sums over a batch that are made already."""


@np.errstate(over="ignore", invalid="ignore")  # told by the outputs
def evaluate(
    evaluator: Evaluator,
    network: Network,
    masks: Sequence[PruningMask],
    dataset: EvaluationSet,
    partition: Partition,
    block: range,
    sums: dict[int, Any] | None,
    draw_sums: AddsDraws,
    not_finite: NotFinite,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> None:
    """Evaluate a rank's partition of a stage on a block of examples.

    Parameters
    ----------
    evaluator : Evaluator
    masks : sequence of PruningMask, length n_thresholds
    block : range
        Examples of the set; the last batch is padded, so that its rows round as others'.
    sums : dict of group to GroupSums or NormalSums, or None
        Added to; groups of the partition that are missing begin at zero. None where sums are kept
        of draws alone.
    draw_sums : AddsDraws
        Added to.
    not_finite : NotFinite
        Added to, by position of the mask. Finite numbers stand in for the outputs of such a draw,
        so that sums stay defined; those of that threshold mean nothing any more.
    advance : callable
        Told the number of work items done, each time some are.
    """
    plan, posterior, task = dataset.plan, network.posterior, network.task
    label = dataset.summed_label[block.start : block.stop]
    if sums is not None:
        for group in sorted(partition.groups - set(sums)):
            sums[group] = task.sums(len(masks), len(block), plan.draws_per_replicate)
            sums[group].clear()  # a page that is read before it is written costs the system twice
    add_up: Any = task.add_up
    noise, first = network.noise(seed), dataset.first_example
    runs = list(noise.runs(range(first + block.start, first + block.stop)))
    for chunk in chunks(partition, replicates_at_once(network)):
        noises: dict[int, list[Noise]] = {}
        for position in sorted(set().union(*chunk.values())):
            pruned = evaluator.prune(masks[position].apply(posterior))
            for run in runs:
                if len(runs) > 1 or not noises:
                    noises = {
                        replicate: noise.of_replicate(
                            posterior, replicate, plan.replicates, dataset.name, run.start
                        )
                        for replicate in chunk
                    }
                wanted = [
                    one
                    for replicate, positions in chunk.items()
                    if position in positions
                    for one in noises[replicate]
                ]
                sampled = pruned.sample(wanted)
                noise_batches = pruned.noise_batches(wanted, plan.batch_size)
                in_set = range(run.start - first, run.stop - first)
                for rows, x in batches(dataset.x, in_set, plan.batch_size, block.start):
                    n_rows, example = rows.stop - rows.start, block.start + rows.start
                    all_outputs = sampled.outputs(x, noise_batches, first + example)
                    for noise_batch, outputs in zip(noise_batches, all_outputs, strict=True):
                        draws = [
                            (group_of(one.replicate), draw)
                            for one in wanted[noise_batch]
                            for draw in one.draws
                        ]
                        of_rows = outputs[:, :, :n_rows]
                        finite = np.isfinite(of_rows)
                        if not finite.all():
                            bad = ~finite.all(axis=(1, 2))
                            _note(not_finite, position, draws, bad, example)
                            of_rows = np.where(bad[:, None, None], _STAND_IN, of_rows)
                        add_up(of_rows, label[rows], draws, (position, rows), sums, draw_sums)
                del wanted, sampled  # before the next ones are made
            advance(sum(position in positions for positions in chunk.values()))
        del noises


def costs_of(evaluator: Evaluator, posterior: Posterior, masks: Sequence[PruningMask]) -> list[int]:
    """Work of a draw at each mask."""
    return [evaluator.prune(mask.apply(posterior)).cost for mask in masks]


def replicates_at_once(network: Network) -> int:
    """Replicates whose noise is held at a time."""
    return network.noise(0).replicates_at_once(network.posterior.n_weights)


def chunks(partition: Partition, most: int) -> Iterator[dict[int, range]]:
    """Items of the partition, in chunks of so many replicates at most: positions by replicate."""
    chunk: dict[int, range] = {}
    for replicate, positions in partition:
        chunk[replicate] = positions
        if len(chunk) == most + (MEAN in chunk):  # which has no noise
            yield chunk
            chunk = {}
    if chunk:
        yield chunk


def batches(
    x: NDArray[Any], examples: range, batch_size: int, counted_from: int | None = None
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the rows of each batch, and its padded examples.

    Parameters
    ----------
    counted_from : int, optional
        The example that is row 0; without, the first one.
    """
    origin = examples.start if counted_from is None else counted_from
    for start in range(examples.start, examples.stop, batch_size):
        stop = min(start + batch_size, examples.stop)
        batch = x[start:stop]
        missing = batch_size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        yield slice(start - origin, stop - origin), batch


def _note(
    not_finite: NotFinite,
    position: int,
    draws: Sequence[tuple[int, Draw]],
    bad: NDArray[np.bool_],
    example: int,
) -> None:
    """Keep the first of all draws and batches."""
    first = min(draw.index for (_, draw), is_bad in zip(draws, bad, strict=True) if is_bad)
    place = (first, example)
    not_finite[position] = min(not_finite.get(position, place), place)
