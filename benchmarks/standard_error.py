"""What a user waits for: the time until NLL is known to a given standard error.

That time is (draws needed) x (cost of a draw), and the draws needed go with the variance of a draw,
which is ``n_draws * se**2`` of a run. Measured on trained networks: that for digits that comes with
the package, with its test set as it is and repeated to the size of MNIST's; and, where it is at
hand, the one from Theta (variances alone). Ours uses the same draws for all examples, so that its
variance hardly depends on their number; that of Flipout, whose noise differs between examples,
falls with it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.config import sweep_config as configuration
from bprune_hpc.mpi.comm import SerialComm
from bprune_hpc.runner import problem as problems
from bprune_hpc.runner.problem import Problem

from . import conv_networks
from .peers import flipout_draw, numpy_draw, tensorflow_draw
from .rank_program import sweep
from .record import Measured
from .timing import Settings, in_turns

THRESHOLDS = "0,0.5,1,2"


def run(settings: Settings) -> Measured:
    """Measure variances and costs of each network, and put them together."""
    digits = _read("embedded:digits_fc", "--dataset=digits")
    cases = {"digits": digits, "digits_repeated": _repeated(digits, settings.choose(2, 28))}
    if os.path.isdir(conv_networks.THETA_DIR):
        data = f"--data_path={conv_networks.THETA_DIR}/mnist64.npz"
        cases["theta"] = _read(conv_networks.THETA_DIR, data)
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    for name, problem in cases.items():
        found = _measure(problem, name != "theta", settings)
        ratios |= {f"{name}_{key}": value for key, value in found.ratios.items()}
        absolute[name] = found.absolute
    return Measured(ratios, absolute)


def _measure(problem: Problem, with_peers: bool, settings: Settings) -> Measured:
    """One network; the peers are stacks of dense layers."""
    network, (test,) = problem
    n_draws, n_repeats = settings.choose((20, 1), (200, 2))
    variance: dict[str, float] = {}
    rise: dict[str, NDArray[np.float64]] = {}
    cost: dict[str, float] = {}
    for name, pairing in (("ours", "antithetic"), ("ours_unpaired", "none")):
        runs = [_run(problem, pairing, n_draws, seed) for seed in range(n_repeats)]
        of_nll = np.mean([one for one, _, _ in runs], axis=0)
        rise[name] = np.mean([one for _, one, _ in runs], axis=0)
        variance[name], cost[name] = float(of_nll[0]), float(np.median([one[2] for one in runs]))
    # Of the rise over the first threshold: without common draws, variances of both add up.
    own = of_nll[1:] + of_nll[0]
    ratios = {"variance_ours_unpaired_over_ours": variance["ours_unpaired"] / variance["ours"]}
    thresholds = THRESHOLDS.split(",")[1:]
    for threshold, apart, common in zip(thresholds, own, rise["ours"][1:], strict=True):
        ratios[f"rise_variance_own_draws_over_ours_{threshold}"] = float(apart / common)
    if with_peers:
        table, biases = network.posterior, list(network.fixed.values())
        flipout = flipout_draw(table, test.x, biases)
        variance["tfp_flipout"] = _variance_of_nll(
            [flipout() for _ in range(n_draws * n_repeats)], test.summed_label
        )
        ratios["variance_tfp_flipout_over_ours"] = variance["tfp_flipout"] / variance["ours"]
        # Draws of all weights are independent draws, whatever makes them; that these leave out
        # the biases, which have no posterior here, costs them nothing.
        draws = {"tf_function": tensorflow_draw(table, test.x), "numpy": numpy_draw(table, test.x)}
        variance |= dict.fromkeys(draws, variance["ours_unpaired"])
        repeats = settings.choose(2, 15)
        cost |= in_turns({"tfp_flipout": flipout, **draws}, repeats, settings.clock)
    time = {name: variance[name] * cost[name] for name in variance}
    ratios |= {
        f"time_{name}_over_ours": time[name] / time["ours"] for name in time if name != "ours"
    }
    return Measured(
        ratios,
        {
            "n_examples": len(test),
            "n_draws": n_draws,
            "repeats": n_repeats,
            "relative_error_of_a_variance": float(np.sqrt(2 / (19 * n_repeats))),
            "ms_per_draw_and_threshold": {name: 1e3 * value for name, value in cost.items()},
            "variance_of_nll_per_draw": variance,
            "seconds_to_se_0.001": {name: value / 0.001**2 for name, value in time.items()},
        },
    )


def _read(model_dir: str, data: str) -> Problem:
    return problems.read(configuration.parse([f"--model_dir={model_dir}", data]))


def _repeated(problem: Problem, n_copies: int) -> Problem:
    network, (test,) = problem
    x, label = np.tile(test.x, (n_copies, 1)), np.tile(test.summed_label, n_copies)
    return network, [replace(test, x=x, label=label)]


def _run(
    problem: Problem, pairing: str, n_draws: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Variance per draw of NLL and of its rise at each threshold; seconds a draw and threshold."""
    flags = [f"--thresholds={THRESHOLDS}", f"--num_monte_carlo={n_draws}",
             f"--pairing={pairing}", f"--seed={seed}"]  # fmt: skip
    found = sweep(problem, flags, SerialComm())
    of_nll, of_rise = (n_draws * np.square(found[name]) for name in ("nll_se", "nll_rise_se"))
    n_thresholds = len(THRESHOLDS.split(","))
    return of_nll, of_rise, found["evaluate_seconds"][0] / (n_thresholds * n_draws)


def _variance_of_nll(draws: list[NDArray[np.float32]], label: NDArray[np.int64]) -> float:
    """Variance per draw of the averaged prediction's NLL, by leaving out one draw at a time."""
    at_label = np.array([draw[np.arange(len(label)), label] for draw in draws], np.float64)
    n_draws = len(draws)
    without = (at_label.sum(axis=0) - at_label) / (n_draws - 1)
    nll = -np.log(np.maximum(without, 1e-45)).mean(axis=1)
    return float((n_draws - 1) * ((nll - nll.mean()) ** 2).sum())
