"""How good a pruned network is in each of the ways that it can be used in, on the same examples.

The network at its mean, an ensemble of a few drawn members, and the posterior are three predictors:
the files of an export hold one or another. The comparison of a file with the network belongs to
each format; the sweep's own numbers are in its results file.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..metrics.definitions import ALL
from ..metrics.estimates import Metric
from ..metrics.intervals import TAIL, of_share
from ..metrics.quantiles import normal_quantile
from ..metrics.regression import RegressionStatistics
from ..posterior.draws import draws_per_replicate
from ..posterior.mean_field import Posterior
from ..runner.prediction import statistics_of
from .onnx import N_MEMBERS
from .pruned_network import PrunedNetwork


@dataclass(frozen=True)
class Measured:
    """A metric of one predictor.

    Attributes
    ----------
    value, se, se_data : float
        ``se`` is the Monte Carlo error, 0 of what has no draws left to be drawn.
    low, high : float or None
        Ends of the 95 % interval of a share, which is not symmetric.
    """

    value: float
    se: float
    se_data: float
    low: float | None = None
    high: float | None = None


def measure(network: PrunedNetwork) -> dict[str, dict[str, Any]]:
    """Accuracy (of a regression RMSE) and NLL of the three predictors; nothing without labels.

    Returns
    -------
    dict
        By predictor and metric, of what JSON can hold.
    """
    if network.examples is None or network.examples.label is None:
        return {}
    posterior, sampling = network.posterior, network.sampling
    size = draws_per_replicate(sampling.pairing, network.task.noises_per_replicate)
    nothing = {name: np.zeros_like(scale) for name, scale in posterior.scale.items()}
    found = {
        "mean network": _measured(network, Posterior(posterior.loc, nothing), size, True),
        f"ensemble of {N_MEMBERS}": _measured(network, posterior, N_MEMBERS, True),
        f"posterior, {sampling.n_draws} draws": _measured(
            network, posterior, sampling.n_draws, False
        ),
    }
    return {
        name: {metric: asdict(measured) for metric, measured in of_one.items()}
        for name, of_one in found.items()
    }


def _measured(
    network: PrunedNetwork, posterior: Posterior, n_draws: int, is_definite: bool
) -> dict[str, Measured]:
    """Metrics of the average over draws; a definite one is of these draws, and no estimate."""
    examples, threads = network.examples, network.opening.threads
    assert examples is not None
    kind, block = ("shared", 0) if is_definite else network.draw_noise
    pruned = replace(network.pruned, posterior=posterior, draw_noise=kind, noise_block=block)
    sampling = network.sampling
    batch_size = pruned.noise(sampling.seed).batch_size(sampling.batch_size)
    statistics = statistics_of(
        pruned,
        pruned.make_evaluator(*threads),
        examples.x,
        examples.label,
        replace(sampling, n_draws=n_draws, batch_size=batch_size),
    )
    is_regression = isinstance(statistics, RegressionStatistics)
    names = ("rmse", "nll") if is_regression else ("accuracy", "nll")
    if not is_definite:
        metrics: dict[str, Metric] = statistics.metrics()
        return {
            name: Measured(
                float(metrics[name].value[0]),
                float(metrics[name].se[0]),
                float(metrics[name].se_data[0]),
                *_share_interval(name, metrics[name]),
            )
            for name in names
        }
    found = {}
    for name in names:
        of_examples = statistics.per_example("squared_error" if name == "rmse" else name)[0]
        value = float(of_examples.mean())
        n = len(of_examples)
        error = float(of_examples.std(ddof=1)) / n**0.5 if n > 1 else math.nan
        if name == "rmse":
            value = value**0.5
            error = error / (2 * value) if value else 0.0
        found[name] = Measured(value, 0.0, error)
        if ALL[name].interval == "share":
            none, t = np.zeros(1), np.array([normal_quantile(TAIL)])
            low, high = of_share(np.array([value]), len(of_examples), none, t)
            found[name] = replace(found[name], low=float(low[0]), high=float(high[0]))
    return found


def _share_interval(name: str, metric: Metric) -> tuple[float, ...]:
    if ALL[name].interval != "share" or metric.low is None or metric.high is None:
        return ()
    return float(metric.low[0]), float(metric.high[0])
