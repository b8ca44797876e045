"""A rank's part of a sweep: make the weights of each draw, run the network, add up.

The one loop over draws, thresholds and batches stands here. It knows its share of the work but
no ranks, and a network only as ``outputs = f(x, weights)``, of whose meaning the problem's task
knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .draws import standard_normal
from .errors import BpruneError
from .plan import MEAN, Draw, Plan, Share, group_of
from .posterior import Posterior
from .problem import Problem
from .pruning import Cut

logger = logging.getLogger(__name__)

Weights = Mapping[str, NDArray[np.float32]]


class Network(Protocol):
    """The deterministic half of a Bayesian network."""

    def __call__(self, x: NDArray[Any], weights: Weights) -> NDArray[np.float32]:
        """Outputs, one row an example, of inputs under given mean-field weights."""


class AddsDraws(Protocol):
    """Sums over examples, kept for each draw."""

    def add(self, threshold: int, draw: int, prediction: Any) -> None:
        """Add a batch of examples that one draw has predicted."""


def evaluate(
    network: Network,
    problem: Problem,
    cuts: Sequence[Cut],
    plan: Plan,
    share: Share,
    block: range,
    sums: dict[int, Any],
    draw_sums: AddsDraws,
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
    sums : dict of group to GroupSums or NormalSums
        Added to; groups of the share that are missing begin at zero.
    draw_sums : AddsDraws
        Added to.
    advance : callable
        Told the number of cells done, each time some are.
    pruned_scale : float
        Deviation of pruned weights; 0 for weights that are exactly zero.

    Raises
    ------
    BpruneError
        If an output is not finite.
    """
    label = problem.label[block.start : block.stop]
    for group in sorted(share.groups - set(sums)):
        sums[group] = problem.task.sums(len(cuts), len(block), len(plan.units[0]))
    for unit, thresholds in share:
        for draw, weights, instead in _weights(
            problem.posterior, unit, plan.units, seed, pruned_scale
        ):
            for index in thresholds:
                pruned = cuts[index].apply(weights, instead)
                for rows, x in batches(problem.x, block, plan.batch_size):
                    outputs = network(x, pruned)[: len(label[rows])]
                    _check_finite(outputs, cuts[index], draw)
                    prediction: Any = problem.task.predict(outputs, label[rows], draw)
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

    The noise of a pair is drawn once for both of its draws.
    """
    if unit == MEAN:
        yield Draw(MEAN, 0, MEAN), posterior.loc, None
        return
    for noise_of, draws in groupby(units[unit], key=lambda draw: draw.noise):
        deviation, left_over = {}, {}
        for name, scale in posterior.scale.items():
            noise = standard_normal(seed, name, noise_of, scale.shape)
            deviation[name] = scale * noise
            if pruned_scale:
                left_over[name] = np.float32(pruned_scale) * noise
        for draw in draws:
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


def _check_finite(outputs: NDArray[np.float32], cut: Cut, draw: Draw) -> None:
    if not np.isfinite(outputs).all():
        which = f"draw {draw.index}" if draw.sign else "the posterior mean"
        raise BpruneError(
            f"outputs are not finite at threshold {cut.threshold:g} for {which}; "
            "check the scale of the data, or leave this threshold out"
        )
