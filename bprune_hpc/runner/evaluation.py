"""A rank's part of a sweep: make the noise of each draw, run the network, add up.

The one loop over draws, thresholds and batches stands here. It knows its partition of the
work but no ranks, and a network only as an evaluator (``evaluators.interface``), of whose outputs'
meaning the network's task knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..evaluators.interface import Evaluator, Noise
from ..posterior.draws import MEAN, Draw, group_of, standard_normal
from ..posterior.mean_field import Posterior
from ..posterior.pruning import PruningMask
from .datasets import EvaluationSet
from .network import Network
from .work_split import Partition

logger = logging.getLogger(__name__)

_NOISE_BYTES = 64 * 2**20
_MOST_UNITS = 25
"""How much noise is held, to be used at every threshold: as many replicates as fit, but not more. A
sweep of 50 draws holds as much: more draws take no more memory."""
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
    sums: dict[int, Any],
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
    sums : dict of group to GroupSums or NormalSums
        Added to; groups of the partition that are missing begin at zero.
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
    for group in sorted(partition.groups - set(sums)):
        sums[group] = task.sums(len(masks), len(block), plan.draws_per_replicate)
        sums[group].clear()  # a page that is read before it is written costs the system twice
    add_up: Any = task.add_up
    for chunk in chunks(partition, replicates_at_once(posterior.n_weights)):
        noises = {
            replicate: noises_of(posterior, replicate, plan.replicates, seed) for replicate in chunk
        }
        for position in sorted(set().union(*chunk.values())):
            wanted = [
                noise
                for replicate, positions in chunk.items()
                if position in positions
                for noise in noises[replicate]
            ]
            pruned = evaluator.prune(masks[position].apply(posterior))
            sampled = pruned.sample(wanted)
            noise_batches = pruned.noise_batches(wanted, plan.batch_size)
            for rows, x in batches(dataset.x, block, plan.batch_size):
                n_rows = rows.stop - rows.start
                all_outputs = sampled.outputs(x, noise_batches)
                for noise_batch, outputs in zip(noise_batches, all_outputs, strict=True):
                    draws = [
                        (group_of(noise.replicate), draw)
                        for noise in wanted[noise_batch]
                        for draw in noise.draws
                    ]
                    of_rows = outputs[:, :, :n_rows]
                    finite = np.isfinite(of_rows)
                    if not finite.all():
                        bad = ~finite.all(axis=(1, 2))
                        _note(not_finite, position, draws, bad, block.start + rows.start)
                        of_rows = np.where(bad[:, None, None], _STAND_IN, of_rows)
                    add_up(of_rows, label[rows], draws, (position, rows), sums, draw_sums)
            advance(sum(position in positions for positions in chunk.values()))
        del noises, wanted, sampled  # before the next ones are made


def costs_of(evaluator: Evaluator, posterior: Posterior, masks: Sequence[PruningMask]) -> list[int]:
    """Work of a draw at each mask."""
    return [evaluator.prune(mask.apply(posterior)).cost for mask in masks]


def replicates_at_once(n_weights: int) -> int:
    """Units whose noise is held at a time."""
    return min(_MOST_UNITS, max(1, _NOISE_BYTES // (4 * n_weights)))


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


def noises_of(
    posterior: Posterior, replicate: int, replicates: Sequence[tuple[Draw, ...]], seed: int
) -> list[Noise]:
    """Standard normals of a replicate, once for the draws that share them; none for the mean."""
    if replicate == MEAN:
        return [Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)]
    return [
        Noise(
            replicate,
            tuple(draws),
            {
                name: standard_normal(seed, name, noise_of, scale.shape)
                for name, scale in posterior.scale.items()
            },
        )
        for noise_of, draws in groupby(replicates[replicate], key=lambda draw: draw.noise)
    ]


def batches(x: NDArray[Any], block: range, batch_size: int) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the rows of each batch, counted within the block, and its padded examples."""
    for start in range(block.start, block.stop, batch_size):
        stop = min(start + batch_size, block.stop)
        batch = x[start:stop]
        missing = batch_size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        yield slice(start - block.start, stop - block.start), batch


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
