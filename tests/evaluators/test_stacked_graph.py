"""Many draws in one call on a device, against one after the other on the processors.

Logical devices of the host stand for GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bprune_hpc.evaluators import stacked_graph
from bprune_hpc.evaluators.draw_noise import DrawNoise
from bprune_hpc.evaluators.graph import GraphEvaluator, GraphNetwork
from bprune_hpc.evaluators.interface import Evaluator, Noise
from bprune_hpc.evaluators.selection import make_evaluator
from bprune_hpc.evaluators.stacked_graph import StackedGraph
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.posterior.draws import MEAN, replicates_of
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.lifted_graphs import SHAPES, lifted
from tests.helpers.logical_devices import LogicalDevice

USED = ["k0", "b0", "k1", "k2"]
DEVICE = LogicalDevice(0)


def convolutions(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    x = tf.nn.relu(tf.nn.conv2d(tf.reshape(x, (-1, 8, 8, 2)), w["k0"], 2, "SAME") + w["b0"])
    x = tf.nn.relu(tf.nn.conv2d(x, w["k1"], 2, "SAME"))
    return tf.reshape(x, (tf.shape(x)[0], -1)) @ w["k2"]


def arrays(seed: int = 3) -> tuple[Posterior, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in USED}
    fixed = {"b0": values.pop("b0")}
    scale = {name: np.float32(0.1) * np.abs(value) for name, value in values.items()}
    return Posterior(values, scale), fixed, rng.normal(size=(6, 128)).astype(np.float32)


def noises(table: Posterior, seed: int = 4) -> list[Noise]:
    replicates = replicates_of(6, "antithetic")
    return [
        n
        for unit in (MEAN, 0, 1, 2)
        for n in DrawNoise("shared", 0, seed).of_replicate(table, unit, replicates, "", 0)
    ]


def run(evaluator: Evaluator, table: Posterior, x: np.ndarray) -> np.ndarray:
    drawn, pruned = noises(table), evaluator.prune(table)
    outputs = pruned.sample(drawn).outputs(x, pruned.noise_batches(drawn, len(x)))
    return np.concatenate([of_batch.copy() for of_batch in outputs])


@pytest.fixture(scope="module")
def graph() -> LiftedGraph:
    return lifted(convolutions, (128,), {"k0", "k1", "k2"}, USED)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_draws_in_one_call_have_the_bits_of_single_ones(
    graph: LiftedGraph, batch_size: int | None
) -> None:
    graph = replace(graph, input_shape=(batch_size, 128))
    table, fixed, x = arrays()
    expected = run(GraphEvaluator(GraphNetwork(graph, fixed)), table, x)
    stacked = make_evaluator("graph", graph, fixed, device=DEVICE)
    assert isinstance(stacked, StackedGraph)
    found = run(stacked, table, x)
    assert found.shape == (7, 5, 6) and found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert len({row.tobytes() for row in found}) == 7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_normal_has_its_deviations_in_columns_of_their_own(dtype: str) -> None:
    tf = import_tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(dtype, (None, 3), "x")
        w = tf.compat.v1.placeholder(dtype, (3, 1), "w")
        tf.exp(tf.matmul(x, w, name="loc")[:1, :1] * 0.1, name="scale")  # one for all examples
        definition = graph.as_graph_def().SerializeToString()
    normal = LiftedGraph(
        definition, "x:0", (None, 3), dtype, "loc:0", (None, 1), {"w": "w:0"}, {},
        output_tensors={"loc": "loc:0", "scale": "scale:0"},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    table = Posterior({"w": rng.normal(size=(3, 1)).astype("f")}, {"w": np.ones((3, 1), "f")})
    x_values = rng.normal(size=(4, 3))
    plain = GraphEvaluator(GraphNetwork(normal, {}, with_scale=True))
    expected = run(plain, table, x_values)
    found = run(StackedGraph(normal, {}, device=DEVICE), table, x_values)
    assert found.shape == (7, 2, 4) and found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_the_network_runs_on_the_device(
    graph: LiftedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what TensorFlow says that it ran, and where."""
    tf, kept = import_tensorflow(), []
    v1 = tf.compat.v1

    def traced(session: Any, output: Any, fed: list[Any]) -> Any:
        def call(*values: np.ndarray) -> Any:
            kept.append(v1.RunMetadata())
            options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
            return session.run(output, dict(zip(fed, values, strict=True)), options, kept[-1])

        return call

    monkeypatch.setattr(stacked_graph, "call_of", traced)
    table, fixed, x = arrays()
    run(StackedGraph(graph, fixed, device=DEVICE), table, x)
    ran = [
        (of_device.device.rpartition("/")[2], node.node_name)
        for metadata in kept
        for of_device in metadata.step_stats.dev_stats
        for node in of_device.node_stats
    ]
    of_network = [(place, name) for place, name in ran if "/network/" in name]
    assert {place for place, _ in of_network} == {"device:CPU:1"}
    assert sum(name.endswith("/network/matmul") for _, name in of_network) == 7  # one a draw


def test_weights_are_brought_to_the_device_once_for_all_batches(
    graph: LiftedGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, fixed, x = arrays()
    evaluator = StackedGraph(graph, fixed, device=DEVICE)
    n_put, put = [], evaluator._put
    monkeypatch.setattr(evaluator, "_put", lambda *values: (n_put.append(1), put(*values)))
    other, _, _ = arrays(seed=5)
    expected = [run(GraphEvaluator(GraphNetwork(graph, fixed)), one, x) for one in (table, other)]
    drawn, slices = noises(table), [slice(0, 1), slice(1, 3), slice(3, 4)]
    one, two = (evaluator.prune(each).sample(drawn) for each in (table, other))
    for sampled, of_sampled, n in ((one, 0, 1), (one, 0, 1), (two, 1, 2), (one, 0, 3)):
        found = list(sampled.outputs(x, slices))
        assert [len(part) for part in found] == [1, 4, 2]
        np.testing.assert_array_equal(np.concatenate(found), expected[of_sampled])
        assert len(n_put) == n
