"""A description by layers that is not the graph's is found out by its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bprune_hpc.graph import layer_check, lifting
from bprune_hpc.graph.layer_check import agrees
from bprune_hpc.graph.layer_graph import (
    Activation,
    Convolution,
    LayerGraph,
    LayerNode,
    Pooling,
    UnknownOperation,
)
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.lifted_graphs import SHAPES, lifted


def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    x = tf.reshape(x, (-1, 8, 8, 2))
    x = tf.nn.relu(tf.nn.conv2d(x, w["k0"], 2, "SAME") + w["b0"])
    x = tf.nn.max_pool2d(tf.nn.tanh(tf.nn.conv2d(x, w["k1"], 1, "SAME")), 2, 2, "SAME")
    return tf.reshape(x, (tf.shape(x)[0], -1)) @ w["k2"]


@pytest.fixture(scope="module")
def case() -> tuple[LiftedGraph, Posterior, dict[str, np.ndarray]]:
    graph = lifted(build, (128,), {"k0", "k1", "k2"}, ["k0", "b0", "k1", "k2"])
    rng = np.random.default_rng(2)
    loc = {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in graph.loc_tensors}
    scale = {name: np.full_like(value, 0.1) for name, value in loc.items()}
    return graph, Posterior(loc, scale), {"b0": rng.normal(size=8).astype(np.float32)}


def changed(layers: LayerGraph, which: type, **values: Any) -> LayerGraph:
    """With another value in the first operation of a kind."""
    nodes = list(layers.nodes)
    at = next(at for at, node in enumerate(nodes) if isinstance(node.operation, which))
    operation: Any = nodes[at].operation
    nodes[at] = LayerNode(replace(operation, **values), nodes[at].inputs)
    return replace(layers, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("which", "values"),
    [
        (Activation, {"function": "Gelu"}),
        (Pooling, {"function": "AvgPool"}),
        (Convolution, {"borders": ((1, 0), (1, 0))}),
    ],
)
def test_another_network_does_not_agree(case: Any, which: type, values: dict[str, Any]) -> None:
    graph, posterior, fixed = case
    assert agrees(graph.layers, graph, posterior, fixed)
    assert not agrees(changed(graph.layers, which, **values), graph, posterior, fixed)


def test_a_network_that_gives_all_the_same_is_tried_at_a_draw(case: Any) -> None:
    graph, posterior, fixed = case
    pruned = {**posterior.loc, "k0": 0 * posterior.loc["k0"]}
    at_zero = Posterior(pruned, posterior.scale)
    assert agrees(graph.layers, graph, at_zero, fixed)
    wrong = changed(graph.layers, Convolution, borders=((1, 0), (1, 0)))
    assert not agrees(wrong, graph, at_zero, fixed)


def test_what_is_too_large_to_be_tried_is_not_believed(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, posterior, fixed = case
    monkeypatch.setattr(layer_check, "_MOST_NUMBERS", 127)
    assert not agrees(graph.layers, graph, posterior, fixed)


def test_a_wrong_description_leaves_the_graph_to_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from bprune_hpc.checkpoints.case import read_case

    assert isinstance(read_case("embedded:digits_fc").graph.layers, LayerGraph)
    right = lifting.find_layers

    def wrong(*arguments: Any) -> LayerGraph:
        return changed(right(*arguments), Activation, function="Tanh")

    monkeypatch.setattr(lifting, "find_layers", wrong)
    assert isinstance(read_case("embedded:digits_fc").graph.layers, UnknownOperation)
