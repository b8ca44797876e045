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
from .plan import MEAN, Draw, Plan, group_of
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
    rank: int,
    block: range,
    draw_sums: DrawSums,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> dict[int, GroupSums]:
    """Evaluate a rank's share of the plan on a block of examples.

    Parameters
    ----------
    network : Network
    cuts : sequence of Cut, length n_thresholds
    block : range
        Examples of the problem; the last batch is padded, so that its rows round as others'.
    draw_sums : DrawSums
        Added to.
    advance : callable
        Told the number of cells done, each time some are.

    Returns
    -------
    dict of group to GroupSums
        Of the groups that the share adds to.

    Raises
    ------
    BpruneError
        If a logit is not finite.
    """
    share = plan.shares[rank]
    label = problem.label[block.start : block.stop]
    sums = {
        group: GroupSums(len(cuts), len(block), problem.n_classes) for group in sorted(share.groups)
    }
    for unit, thresholds in share:
        for draw, weights in _weights(problem.posterior, unit, plan.units, seed):
            for index in thresholds:
                pruned = cuts[index].apply(weights)
                for rows, x in batches(problem.x, block, plan.batch_size):
                    logits = network(x, pruned)[: len(label[rows])]
                    _check_finite(logits, cuts[index], draw)
                    prediction = Prediction.from_logits(logits, label[rows])
                    sums[group_of(unit)].add(index, rows, prediction)
                    if draw.sign:
                        draw_sums.add(index, draw.index, prediction)
        logger.debug("unit %d at thresholds %s done", unit, thresholds)
        advance(len(thresholds))
    return sums


def _weights(
    posterior: Posterior, unit: int, units: Sequence[tuple[Draw, ...]], seed: int
) -> Iterator[tuple[Draw, Weights]]:
    """Yield the unpruned weights of each draw of a unit; its noise is drawn once for all."""
    if unit == MEAN:
        yield Draw(MEAN, 0), posterior.loc
        return
    deviation = {
        name: scale * standard_normal(seed, name, unit, scale.shape)
        for name, scale in posterior.scale.items()
    }
    for draw in units[unit]:
        sign = np.float32(draw.sign)
        yield draw, {name: loc + sign * deviation[name] for name, loc in posterior.loc.items()}


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
            f"logits are not finite at SNR <= {cut.threshold:g} for {which}; "
            "check the scale of the data, or leave this threshold out"
        )
