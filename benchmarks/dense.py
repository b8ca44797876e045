"""The dense network: whole sweeps against the plain arithmetic at the matrix product's peak.

The floor is ``T * S * 2 * N * P`` operations at the peak, which is measured between thresholds of
the very sweep. Softmax and exact sums are part of what is timed; so is the posterior mean, which
the floor does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from bprune_hpc.blas import limit_threads
from bprune_hpc.config import sweep_config as configuration
from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.pruning import PruningMask
from bprune_hpc.runner.datasets import EvaluationSet, Examples
from bprune_hpc.runner.evaluation import evaluate
from bprune_hpc.runner.network import Network
from bprune_hpc.runner.work_split import assign, make_plan

from . import overpruned
from .record import Measured
from .timing import Peak, Settings

GRIDS = {
    "threshold_0": ("threshold", [0.0]),
    "thresholds": ("threshold", list(np.linspace(0, 2, 21))),
    "fractions": ("fraction", list(np.linspace(0, 0.95, 20))),
}
_DEFAULTS = configuration.parse(["--model_dir=none"])  # of the sweep
_SEED = 1


class Sweep:
    """One evaluation of a grid, timed without the samples of the peak in between."""

    def __init__(
        self,
        network: Network,
        examples: Examples,
        evaluator: Evaluator,
        masks: Sequence[PruningMask],
        n_draws: int,
        batch_size: int = _DEFAULTS.batch_size,
    ) -> None:
        self.network, self.examples, self.evaluator = network, examples, evaluator
        self.masks, self.n_draws, self.batch_size = masks, n_draws, batch_size

    def seconds(self, settings: Settings, peak: Peak | None = None) -> float:
        """Evaluate everything on this one rank, in one round."""
        task, n_thresholds, examples = self.network.task, len(self.masks), self.examples
        plan = make_plan(
            n_draws=self.n_draws, pairing="antithetic", n_thresholds=n_thresholds,
            n_examples=len(examples), bytes_per_cell=task.bytes_per_cell,
            batch_size=self.batch_size,
            limit_bytes=_DEFAULTS.state_limit_gb * 2**30,
        )  # fmt: skip
        (partition,) = assign(range(len(plan.replicates)), [1] * n_thresholds, 1).partitions
        dataset = EvaluationSet(examples.name, examples.x, examples.label, plan=plan)
        draw_sums: Any = task.draw_sums(n_thresholds, self.n_draws)
        aside = 0.0

        def advance(_: int) -> None:
            nonlocal aside
            start = settings.clock()
            if peak is not None:
                peak.sample()
            aside += settings.clock() - start

        with limit_threads(self.evaluator.n_threads):
            start = settings.clock()
            for block in plan.blocks:
                evaluate(
                    self.evaluator, self.network, self.masks, dataset, partition, block, {},
                    draw_sums, {}, seed=_SEED, advance=advance,
                )  # fmt: skip
            return settings.clock() - start - aside

    @property
    def n_cells(self) -> int:
        """Draws times thresholds; the posterior mean is not counted."""
        return len(self.masks) * self.n_draws


def run(settings: Settings) -> Measured:
    """Measure the three grids."""
    n_examples, n_draws = settings.choose((300, 4), (10_000, 200))  # the sweep's default
    network, test = overpruned.problem(n_examples)
    evaluator = network.make_evaluator(1, 1)
    masks = {
        name: pruning.pruning_masks(network.posterior, kind, grid)
        for name, (kind, grid) in GRIDS.items()
    }
    peak = Peak(settings.clock, settings.choose(256, 2048))
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {"n_examples": n_examples, "n_draws": n_draws}
    for name, n_repeats in (("threshold_0", 3), ("thresholds", 3), ("fractions", 2)):
        sweep = Sweep(network, test, evaluator, masks[name], n_draws)
        peak.forget()
        seconds = []
        for _ in range(settings.choose(1, n_repeats)):
            peak.sample()
            seconds.append(sweep.seconds(settings, peak))
        floor = sweep.n_cells * 2 * n_examples * overpruned.N_WEIGHTS / peak.rate
        over_floor = median(seconds) / floor
        if name == "threshold_0":
            ratios["threshold_0_share_of_peak"] = 1 / over_floor
        else:
            ratios[f"{name}_over_floor"] = over_floor
            works = [overpruned.work(mask) for mask in masks[name]]
            ratios[f"{name}_operations_by_removal"] = float(np.mean([one.removal for one in works]))
            ratios[f"{name}_operations_shared"] = float(np.mean([one.shared for one in works]))
            ratios[f"{name}_operations_of_weights"] = float(np.mean([one.weights for one in works]))
        absolute[name] = {
            "seconds": median(seconds),
            "repeats": len(seconds),
            "ms_per_draw_and_threshold": 1e3 * median(seconds) / sweep.n_cells,
            "peak_gflops": {key: rate / 1e9 for key, rate in peak.rates.items()},
        }
    of_alive = pruning.pruning_masks(network.posterior, "fraction", list(overpruned.ALIVE))
    absolute["alive"] = {
        f"{mask.requested_fraction:g}": {
            "found": overpruned.work(mask).alive[:-1],
            "published": overpruned.ALIVE[mask.requested_fraction],
        }
        for mask in of_alive
    }
    return Measured(ratios, absolute)
