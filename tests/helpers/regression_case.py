"""A made-up regression: Normals of every draw at hand, so that oracles see all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bprune_hpc.accumulators.regression import NormalPrediction, NormalSums, bytes_per_cell
from bprune_hpc.metrics.regression import RegressionStatistics
from bprune_hpc.posterior.draws import MEAN, Draw, group_of
from bprune_hpc.runner.work_split import Plan, make_plan


def plan_of(n_draws: int, n_thresholds: int, n_examples: int, pairing: str = "antithetic") -> Plan:
    return make_plan(
        n_draws=n_draws, pairing=pairing, n_thresholds=n_thresholds, n_examples=n_examples,
        bytes_per_cell=bytes_per_cell(), batch_size=10, limit_bytes=1e9,
        noises_per_replicate=2,
    )  # fmt: skip


class Normals:
    """What every draw says: ``loc`` and ``scale``, of shape (n_draws, n_thresholds, n_examples).

    Attributes
    ----------
    at_mean : array, shape (n_thresholds, n_examples)
    target : array, shape (n_examples,)
        Or, as all of these, with an axis more at the end, of several targets.
    """

    def __init__(
        self, plan: Plan, target: np.ndarray, at_mean: np.ndarray, loc: np.ndarray,
        scale: np.ndarray,
    ) -> None:  # fmt: skip
        self.plan, self.target, self.at_mean, self.loc, self.scale = (
            plan, target, at_mean, loc, scale,
        )  # fmt: skip

    def sums(self, rows: slice, replicates: Sequence[int] | None = None) -> dict[int, NormalSums]:
        """Sums of the groups, of some replicates (in that order) or of all and the mean network."""
        shape = (len(self.at_mean), len(self.target[rows]))
        draws_per_replicate = len(self.plan.replicates[0])
        groups = (MEAN, *range(len(self.plan.group_sizes)))
        n_targets = self.target.size // len(self.target)
        sums = {group: NormalSums(*shape, draws_per_replicate, n_targets) for group in groups}
        target = self.target[rows]
        for t in range(shape[0]):
            if replicates is None:
                error = self.at_mean[t, rows] - target
                one = NormalPrediction(error, self.scale[0, t, rows], Draw(MEAN, 0, MEAN))
                sums[MEAN].add(t, slice(0, shape[1]), one)
            for replicate in range(len(self.plan.replicates)) if replicates is None else replicates:
                for draw in self.plan.replicates[replicate]:
                    error = self.loc[draw.index, t, rows] - target
                    one = NormalPrediction(error, self.scale[draw.index, t, rows], draw)
                    sums[group_of(replicate)].add(t, slice(0, shape[1]), one)
        return sums

    def statistics(self, blocks: Sequence[range] | None = None) -> RegressionStatistics:
        statistics = RegressionStatistics(self.plan)
        for block in blocks or [range(len(self.target))]:
            rows = slice(block.start, block.stop)
            statistics.add_block(self.sums(rows), self.target[rows])
        return statistics


def random_normals(plan: Plan, n_thresholds: int, n_examples: int, seed: int = 0) -> Normals:
    """Means that are a curved function of Gaussian factors; pairs are antithetic."""
    generator = np.random.default_rng(seed)
    target = generator.normal(0, 1, n_examples)
    centre = 0.5 * target + generator.normal(0, 0.6, (n_thresholds, n_examples))
    loading = generator.normal(0, 0.4, (n_thresholds, n_examples, 4))
    draws = [draw for replicate in plan.replicates for draw in replicate]
    noise = generator.normal(size=(len(draws), 4))  # of which the pair's first is used for both
    factors = np.stack([draw.sign * noise[draw.noise] for draw in draws])
    linear = np.einsum("tnf,sf->stn", loading, factors)
    loc = (centre + linear + 0.1 * (linear**2 - 0.6)).astype(np.float32).astype(float)
    scale = np.exp(0.3 * np.sin(linear) - 0.7)
    return Normals(plan, target, centre, loc, scale)
