"""A bundle of the over-pruned dense network: its bytes, and ``predict.py`` against plain NumPy.

Plain is what a user would write of the network with all of its weights: a product, a bias and a
maximum for each layer. The posterior of a checkpoint is a mean and a deviation, in float32, of
each weight.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.checkpoints.case import Opening, Source
from bprune_hpc.data.fitting import NetworkInput
from bprune_hpc.formats.bundle import Bundle, opened
from bprune_hpc.formats.pruned_network import InputFitting, PrunedNetwork
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.posterior.pruning import PruningMask, mask_at_fraction
from bprune_hpc.runner.network import Network

from . import overpruned
from .record import Measured
from .timing import Settings, in_turns

_FRACTION = 0.95
_N_DRAWS = 10


def exported_network(network: Network, mask: PruningMask) -> PrunedNetwork:
    """A network as formats get it, without a source on disk."""
    source = Source("tf1", "made up", "", None, {}, {}, {})
    taken = NetworkInput(network.graph.input_shape)
    return PrunedNetwork(
        network, mask, None, "made up", source, Opening("made up"), InputFitting(taken)
    )


def run(settings: Settings) -> Measured:
    """Measure the bundle."""
    network, examples = overpruned.problem(settings.choose(100, 1000))
    mask = mask_at_fraction(network.posterior, _FRACTION)
    n_repeats = settings.choose(2, 50)
    with tempfile.TemporaryDirectory() as name:
        Bundle().write(exported_network(network, mask), Path(name))
        files = {file.name: file.read_bytes() for file in (Path(name) / "bundle").iterdir()}
        with opened(Path(name) / "bundle") as predict:
            net = predict.load()
    loc = network.posterior.loc
    seconds = {}
    for n_examples in (1, len(examples.x)):
        x = examples.x[:n_examples]
        functions = {
            "plain": lambda x=x: _plain(x, loc, network.fixed),
            "predict": lambda x=x: net.mean(x, len(x)),
        }
        of_batch = in_turns(functions, n_repeats, settings.clock)
        draws = {
            "plain": lambda x=x: _drawn(x, network),
            "predict": lambda x=x: net.sample(x, 0, _N_DRAWS, batch_size=len(x)),
        }
        of_draws = in_turns(draws, max(2, n_repeats // 10), settings.clock)
        seconds[n_examples] = of_batch, of_draws
    n_bytes = sum(map(len, files.values()))
    posterior_bytes = 8 * network.posterior.n_weights
    ratios = {"posterior_over_bundle_bytes": posterior_bytes / n_bytes}
    for n_examples, (of_batch, of_draws) in seconds.items():
        batch = "1" if n_examples == 1 else "1000"
        ratios[f"plain_over_mean_{batch}"] = of_batch["plain"] / of_batch["predict"]
        ratios[f"plain_over_sample_{batch}"] = of_draws["plain"] / of_draws["predict"]
    return Measured(
        ratios,
        {
            "fraction": _FRACTION,
            "posterior_bytes": posterior_bytes,
            "bundle_bytes": {name: len(raw) for name, raw in files.items()},
            "bundle_gzip_bytes": {name: len(gzip.compress(raw)) for name, raw in files.items()},
            "n_draws": _N_DRAWS,
            "seconds_mean": {n: of_batch for n, (of_batch, _) in seconds.items()},
            "seconds_sample": {n: of_draws for n, (_, of_draws) in seconds.items()},
        },
    )


def _plain(
    x: NDArray[Any], weights: Mapping[str, NDArray[Any]], fixed: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Outputs under some weights, all of them."""
    last = len(weights) - 1
    for layer, kernel in enumerate(weights.values()):
        x = x @ kernel + fixed[f"bias{layer}"]
        if layer < last:
            x = np.maximum(x, 0)
    return x


def _drawn(x: NDArray[Any], network: Network) -> None:
    """The same under each of some draws, in pairs."""
    posterior = network.posterior
    for pair in range(_N_DRAWS // 2):
        deviation = {
            name: scale * standard_normal(0, name, pair, scale.shape)
            for name, scale in posterior.scale.items()
        }
        for together in (np.add, np.subtract):
            weights = {name: together(loc, deviation[name]) for name, loc in posterior.loc.items()}
            _plain(x, weights, network.fixed)
