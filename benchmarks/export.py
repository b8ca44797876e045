"""A bundle of the over-pruned dense network: its bytes, and ``predict.py`` against plain NumPy.

Plain is what a user would write of the network with all of its weights: a product, a bias and a
maximum for each layer. Both run in a process of their own (``numpy_alone.py``). The posterior of a
checkpoint is a mean and a deviation, in float32, of each weight.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.checkpoints.case import Opening, Source
from bprune_hpc.data.fitting import NetworkInput
from bprune_hpc.formats.bundle import Bundle
from bprune_hpc.formats.pruned_network import InputFitting, PrunedNetwork
from bprune_hpc.posterior.pruning import PruningMask, mask_at_fraction
from bprune_hpc.runner.network import Network

from . import overpruned
from .numpy_alone import N_DRAWS
from .record import Measured
from .timing import Settings

_FRACTION = 0.95


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
    posterior = network.posterior
    dense = {"x": examples.x}
    for at, name in enumerate(posterior.names):
        bias = network.fixed[f"bias{at}"]
        dense |= {f"loc{at}": posterior.loc[name], f"scale{at}": posterior.scale[name]}
        dense[f"bias{at}"] = bias
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        Bundle().write(exported_network(network, mask), home)
        files = {file.name: file.read_bytes() for file in (home / "bundle").iterdir()}
        np.savez(home / "dense.npz", **dense)  # type: ignore[arg-type]
        seconds = _measured(home / "bundle", home / "dense.npz", settings)
    n_bytes = sum(map(len, files.values()))
    posterior_bytes = 8 * posterior.n_weights
    ratios = {"posterior_over_bundle_bytes": posterior_bytes / n_bytes}
    for state, of_state in seconds.items():
        for what, of_sizes in of_state.items():
            for n_examples, times in of_sizes.items():
                batch = "1" if n_examples == "1" else "1000"
                name = f"plain_over_{what}_{batch}{'' if state == 'fresh' else f'_{state}'}"
                ratios[name] = times["plain"] / times["predict"]
    return Measured(
        ratios,
        {
            "fraction": _FRACTION,
            "posterior_bytes": posterior_bytes,
            "bundle_bytes": {name: len(raw) for name, raw in files.items()},
            "bundle_gzip_bytes": {name: len(gzip.compress(raw)) for name, raw in files.items()},
            "n_draws": N_DRAWS,
            "seconds": seconds,
        },
    )


def _measured(bundle: Path, dense: Path, settings: Settings) -> dict[str, Any]:
    """What ``numpy_alone.py`` prints, on one thread."""
    command = [
        sys.executable, str(Path(__file__).with_name("numpy_alone.py")), str(bundle), str(dense),
        str(settings.choose(2, 50)), settings.clock.__name__,
    ]  # fmt: skip
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    run_alone = subprocess.run(
        command, env={**os.environ, **threads}, check=True, capture_output=True, text=True
    )
    return dict(json.loads(run_alone.stdout))
