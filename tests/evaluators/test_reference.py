"""The plain evaluator of graphs of layers, against TensorFlow's own graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bprune_hpc.evaluators.compact_graph import compact_graph
from bprune_hpc.evaluators.compaction import Weights
from bprune_hpc.evaluators.draw_noise import DrawNoise
from bprune_hpc.evaluators.graph import GraphEvaluator, GraphNetwork
from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.evaluators.reference import ReferenceNetwork, drawn
from bprune_hpc.graph.layer_graph import LayerGraph
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.posterior.draws import MEAN, replicates_of
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.random_layers import random_network

UNITS = replicates_of(2, "antithetic")
N_NETWORKS = 120


def outputs(evaluator: Evaluator, table: Posterior, x: np.ndarray) -> np.ndarray:
    noises = [
        noise
        for unit in (MEAN, 0)
        for noise in DrawNoise("shared", 0, 4).of_replicate(table, unit, UNITS, "", 0)
    ]
    pruned = evaluator.prune(table)
    noise_batches = pruned.noise_batches(noises, len(x))
    return np.concatenate(list(pruned.sample(noises).outputs(x, noise_batches)))


def check_networks(seeds: range) -> Counter[str]:
    """Compare networks; what happened, by its name."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        network = random_network(seed)
        layers, weights = network.graph.layers, network.weights
        assert isinstance(layers, LayerGraph), (seed, layers, network.operations)
        reference = ReferenceNetwork(layers, weights.fixed)
        with GraphNetwork(network.graph, weights.fixed) as plain:
            for table in (weights.posterior, weights.pruned):
                expected = outputs(GraphEvaluator(plain), table, network.x)
                error = np.abs(outputs(reference, table, network.x) - expected).max()
                assert error <= 1e-5 * np.abs(expected).max(), (seed, network.operations)
        cost = [reference.prune(one).cost for one in (weights.posterior, weights.pruned)]
        seen["smaller"] += cost[1] < cost[0]
        fixed = {**weights.fixed, **layers.constants}
        smaller = compact_graph(layers, Weights(weights.pruned, fixed))
        seen["constants"] += bool(smaller.bias_names)
        _, noise = [
            n
            for unit in (MEAN, 0)
            for n in DrawNoise("shared", 0, 4).of_replicate(weights.pruned, unit, UNITS, "", 0)
        ]
        seen["of places"] += any(
            smaller.biases(noise)[0][name].ndim == 3 for name in smaller.bias_names
        )
        whole = compact_graph(layers, Weights(weights.pruned, fixed), folds_constants=False)
        assert not whole.bias_names
        found = run(whole.graph, drawn(whole, noise)[0], whole.take(network.x))
        expected = outputs(reference, weights.pruned, network.x)[1]
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found.reshape(len(found), -1).T, expected, 0, 1e-5 * largest)
    return seen


def test_random_networks() -> None:
    seen = check_networks(range(N_NETWORKS))
    assert min(seen["smaller"], 2 * seen["constants"]) > N_NETWORKS / 2, seen
    assert seen["of places"] > 1, seen


@pytest.mark.slow
def test_many_random_networks() -> None:
    check_networks(range(N_NETWORKS, N_NETWORKS + 300))
