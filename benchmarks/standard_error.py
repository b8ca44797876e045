"""What a user waits for: the time until NLL is known to a given standard error.

That time is (draws needed) x (cost of a draw); the draws needed go with the variance of a draw,
which is ``n_draws * se**2`` of a run. Measured on the trained digits network that comes with the
package, the test set repeated to the size of MNIST's: which is as it was for ours, whose draws are
the same for all examples, and to the advantage of Flipout, whose noise of single examples averages
out.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc import config as configuration
from bprune_hpc import problem as problems
from bprune_hpc import pruning
from bprune_hpc.comm import SerialComm
from bprune_hpc.environment import Stopwatch
from bprune_hpc.gathering import gather, lay_out
from bprune_hpc.problem import Problem
from bprune_hpc.pruning import Cut

from .peers import Draw, flipout_draw, numpy_draw, tensorflow_draw
from .record import Measured
from .timing import Settings

THRESHOLDS = "0,0.5,1,2"

logger = logging.getLogger("benchmarks")


def run(settings: Settings) -> Measured:
    """Measure variances and costs, and put them together."""
    n_copies, n_draws, n_repeats = settings.choose((1, 20, 1), (28, 200, 3))
    problem = _digits(n_copies)
    cuts = pruning.cuts(problem.posterior, "threshold", [float(t) for t in THRESHOLDS.split(",")])
    variances: dict[str, Any] = {}
    cost: dict[str, float] = {}
    for pairing in ("antithetic", "none"):
        found = [
            _ours(problem, cuts, pairing, n_draws, seed, settings) for seed in range(n_repeats)
        ]
        variances[pairing] = np.mean([of_nll for of_nll, _, _ in found], axis=0)
        variances[f"{pairing}_rise"] = np.mean([of_rise for _, of_rise, _ in found], axis=0)
        cost[pairing] = float(np.median([seconds for _, _, seconds in found]))
    table, x = problem.posterior, problem.x
    # These leave out biases, which have no posterior here and cost little.
    draws: dict[str, Callable[..., Draw]] = {
        "tfp_flipout": flipout_draw,
        "tf_function": tensorflow_draw,
        "numpy": numpy_draw,
    }
    for name, make in draws.items():
        draw = make(table, x)
        cost[name] = _cost(draw, settings)
    flipout = _with_biases(problem)
    variances["tfp_flipout"] = _variance_of_nll(
        [flipout() for _ in range(n_draws * n_repeats)], problem.label
    )
    # Plain draws of all weights are independent draws, whatever makes them.
    variance = {
        "tfp_flipout": variances["tfp_flipout"],
        "tf_function": variances["none"][0],
        "numpy": variances["none"][0],
        "ours_unpaired": variances["none"][0],
    }
    cost["ours_unpaired"] = cost["none"]
    time = {name: variance[name] * cost[name] for name in variance}
    ours = variances["antithetic"][0] * cost["antithetic"]
    ratios = {f"time_{name}_over_ours": one / ours for name, one in time.items()}
    ratios["variance_unpaired_over_paired"] = variances["none"][0] / variances["antithetic"][0]
    # Of the rise over the first threshold, the draws of each threshold its own: variances add.
    apart = variances["none"][1:] + variances["none"][0]
    for cut, own, common in zip(cuts[1:], apart, variances["antithetic_rise"][1:], strict=True):
        ratios[f"rise_variance_own_draws_over_common_{cut.threshold:g}"] = own / common
    return Measured(
        {name: float(value) for name, value in ratios.items()},
        {
            "n_examples": len(problem.label),
            "n_draws": n_draws,
            "repeats": n_repeats,
            "relative_error_of_a_variance": float(np.sqrt(2 / (19 * n_repeats))),
            "ms_per_draw_and_threshold": {name: 1e3 * value for name, value in cost.items()},
            "variance_of_nll_per_draw": {
                name: np.asarray(value).tolist() for name, value in variances.items()
            },
            "seconds_to_se_0.0001": {
                "ours": ours / 1e-8, **{name: float(one / 1e-8) for name, one in time.items()}
            },
        },
    )  # fmt: skip


def _digits(n_copies: int) -> Problem:
    config = configuration.parse(["--model_dir=embedded:digits_fc", "--dataset=digits"])
    problem = problems.read(config)
    return dataclasses.replace(
        problem, x=np.tile(problem.x, (n_copies, 1)), label=np.tile(problem.label, n_copies)
    )


def _ours(
    problem: Problem,
    cuts: list[Cut],
    pairing: str,
    n_draws: int,
    seed: int,
    settings: Settings,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Variance per draw of NLL and of its rise at each threshold; seconds a draw and threshold."""
    config = configuration.parse(
        ["--model_dir=none", f"--thresholds={THRESHOLDS}", f"--num_monte_carlo={n_draws}",
         f"--pairing={pairing}", f"--seed={seed}"],
    )  # fmt: skip
    evaluator = problem.make_evaluator(1, 1)
    parts = lay_out(config, problem, len(cuts), 1)
    start = settings.clock()
    findings = gather(SerialComm(), evaluator, parts, cuts, config, Stopwatch(), lambda n: None)
    seconds = (settings.clock() - start) / (len(cuts) * n_draws)
    metrics = findings.metrics
    return n_draws * metrics["nll"].se ** 2, n_draws * metrics["nll_rise"].se ** 2, seconds


def _cost(draw: Draw, settings: Settings) -> float:
    draw()
    seconds = []
    for _ in range(settings.choose(2, 15)):
        start = settings.clock()
        draw()
        seconds.append(settings.clock() - start)
    return float(np.median(seconds))


def _with_biases(problem: Problem) -> Draw:
    """Flipout's draws of the digits network as it is; its kernels and biases are in order."""
    return flipout_draw(problem.posterior, problem.x, list(problem.fixed.values()))


def _variance_of_nll(draws: list[NDArray[np.float32]], label: NDArray[np.int64]) -> float:
    """Variance per draw of the averaged prediction's NLL, by leaving out one draw at a time."""
    at_label = np.array([draw[np.arange(len(label)), label] for draw in draws], np.float64)
    n_draws = len(draws)
    without = (at_label.sum(axis=0) - at_label) / (n_draws - 1)
    nll = -np.log(np.maximum(without, 1e-45)).mean(axis=1)
    return float((n_draws - 1) * ((nll - nll.mean()) ** 2).sum())
