"""A rank's part of a sweep: make the weights of each draw, run the network, add up.

The one loop over draws, thresholds and batches stands here. It knows its share of the work but
no ranks, and a network only as ``logits = f(x, weights)``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .draws import standard_normal
from .errors import BpruneError
from .plan import MEAN, Draw, Plan, Share, group_of
from .posterior import Posterior
from .predictive import DrawSums, GroupSums, Prediction
from .problem import Problem
from .pruning import Cut

logger = logging.getLogger(__name__)

Weights = Mapping[str, NDArray[np.float32]]


class Network(Protocol):
    """The deterministic half of a Bayesian network."""

    def __call__(self, x: NDArray[Any], weights: Weights) -> NDArray[np.float32]:
        """Logits, shape (n_examples, n_classes), of inputs under given mean-field weights."""


def evaluate(
    network: Network,
    problem: Problem,
    cuts: Sequence[Cut],
    plan: Plan,
    share: Share,
    block: range,
    sums: dict[int, GroupSums],
    draw_sums: DrawSums,
    *,
    seed: int,
    advance: Callable[[int], None],
    pruned_scale: float = 0.0,
) -> None:
    """Evaluate a rank's share of a stage on a block of examples.

    Parameters
    ----------
    network : Network
    cuts : sequence of Cut, length n_thresholds
    block : range
        Examples of the problem; the last batch is padded, so that its rows round as others'.
    sums : dict of group to GroupSums
        Added to; groups of the share that are missing begin at zero.
    draw_sums : DrawSums
        Added to.
    advance : callable
        Told the number of cells done, each time some are.
    pruned_scale : float
        Deviation of pruned weights; 0 for weights that are exactly zero.

    Raises
    ------
    BpruneError
        If a logit is not finite.
    """
    label = problem.label[block.start : block.stop]
    for group in sorted(share.groups - set(sums)):
        sums[group] = GroupSums(len(cuts), len(block), problem.n_classes)
    for unit, thresholds in share:
        for draw, weights, instead in _weights(
            problem.posterior, unit, plan.units, seed, pruned_scale
        ):
            for index in thresholds:
                pruned = cuts[index].apply(weights, instead)
                for rows, x in batches(problem.x, block, plan.batch_size):
                    logits = network(x, pruned)[: len(label[rows])]
                    _check_finite(logits, cuts[index], draw)
                    prediction = Prediction.from_logits(logits, label[rows])
                    sums[group_of(unit)].add(index, rows, prediction)
                    if draw.sign:
                        draw_sums.add(index, draw.index, prediction)
        logger.debug("unit %d at thresholds %s done", unit, thresholds)
        advance(len(thresholds))


def _weights(
    posterior: Posterior,
    unit: int,
    units: Sequence[tuple[Draw, ...]],
    seed: int,
    pruned_scale: float,
) -> Iterator[tuple[Draw, Weights, Weights | None]]:
    """Yield each draw of a unit: its unpruned weights, and what pruned ones are (None: zero).

    The unit's noise is drawn once for all.
    """
    if unit == MEAN:
        yield Draw(MEAN, 0), posterior.loc, None
        return
    deviation, left_over = {}, {}
    for name, scale in posterior.scale.items():
        noise = standard_normal(seed, name, unit, scale.shape)
        deviation[name] = scale * noise
        if pruned_scale:
            left_over[name] = np.float32(pruned_scale) * noise
    for draw in units[unit]:
        sign = np.float32(draw.sign)
        weights = {name: loc + sign * deviation[name] for name, loc in posterior.loc.items()}
        yield draw, weights, {name: sign * noise for name, noise in left_over.items()} or None


def batches(x: NDArray[Any], block: range, batch_size: int) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield the rows of each batch, counted within the block, and its padded examples."""
    for start in range(block.start, block.stop, batch_size):
        stop = min(start + batch_size, block.stop)
        batch = x[start:stop]
        missing = batch_size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        yield slice(start - block.start, stop - block.start), batch


def _check_finite(logits: NDArray[np.float32], cut: Cut, draw: Draw) -> None:
    if not np.isfinite(logits).all():
        which = f"draw {draw.index}" if draw.sign else "the posterior mean"
        raise BpruneError(
            f"logits are not finite at threshold {cut.threshold:g} for {which}; "
            "check the scale of the data, or leave this threshold out"
        )
