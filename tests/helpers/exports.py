"""Random networks as formats get them, without a source on disk."""

from __future__ import annotations

import math

from benchmarks.export import exported_network
from bprune_hpc.formats.pruned_network import PrunedNetwork
from bprune_hpc.metrics.tasks import Classification
from bprune_hpc.posterior.pruning import PruningMask
from bprune_hpc.runner.network import Network
from tests.helpers.random_layers import random_network


def random_export(seed: int) -> PrunedNetwork:
    """A random network of layers with a posterior, pruned."""
    made = random_network(seed)
    while not made.weights.loc:
        seed += 1000
        made = random_network(seed)
    weights = made.weights
    network = Network(
        made.graph, weights.posterior, weights.fixed, Classification(3), "made up", {}
    )
    mask = PruningMask(math.nan, math.nan, weights.is_kept, dict.fromkeys(weights.is_kept, 0.0))
    return exported_network(network, mask)
