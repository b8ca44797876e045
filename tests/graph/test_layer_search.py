"""Lifted graphs are described as graphs of layers, or the operation is named that is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Pooling,
    Reshape,
    Scale,
    UnknownOperation,
)
from bprune_hpc.graph.layer_search import find_layers
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.lifted_graphs import lifted

SHAPES = {
    "k0": (3, 3, 2, 4), "b0": (4,), "k1": (3, 3, 4, 4), "k2": (16, 3),
    "scale": (4,), "offset": (4,), "mean": (4,), "variance": (4,),
}  # fmt: skip
NUMBERS = {"scale": 3.0, "offset": 1.0, "mean": 2.0, "variance": 0.75}
FIXED = {name: np.full(SHAPES[name], value, np.float32) for name, value in NUMBERS.items()}


def normalized(tf: Any, x: Any, w: Mapping[str, Any], is_training: bool = False) -> Any:
    scale, offset, mean, variance = (w[name] for name in ("scale", "offset", "mean", "variance"))
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=0.25,
        is_training=is_training,
    ).y  # fmt: skip


def residual(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    """Two branches that share their beginning, and meet again."""
    x = tf.nn.bias_add(tf.nn.conv2d(tf.reshape(x, (-1, 4, 4, 2)), w["k0"], 1, "SAME"), w["b0"])
    inner = tf.nn.conv2d(tf.nn.relu(normalized(tf, x, w)), w["k1"], 1, "SAME")
    x = tf.nn.avg_pool2d(tf.identity(inner + x), 2, 2, "VALID")
    return tf.reshape(x, (tf.shape(x)[0], -1)) @ w["k2"]


def test_a_network_with_branches_is_found() -> None:
    graph = lifted(residual, (32,), {"k0", "k1", "k2"}, list(SHAPES), SHAPES, FIXED)
    layers = graph.layers
    assert isinstance(layers, LayerGraph)
    first = Convolution("k0", (3, 3), (4, 4, 2), borders=((1, 1), (1, 1)))
    second = Convolution("k1", (3, 3), (4, 4, 4), borders=((1, 1), (1, 1)))
    where = {node.operation: at for at, node in enumerate(layers.nodes)}
    (scale,) = (one for one in where if isinstance(one, Scale))
    (shift,) = (one for one in where if isinstance(one, Bias) and one != Bias("b0"))
    np.testing.assert_array_equal(layers.constants[scale.name], np.full(4, 3))
    np.testing.assert_array_equal(layers.constants[shift.name], np.full(4, 1 - 2 * 3))
    expected = {
        Reshape((4, 4, 2)): None,
        first: Reshape((4, 4, 2)),
        Bias("b0"): first,
        scale: Bias("b0"),
        shift: scale,
        Activation("Relu"): shift,
        second: Activation("Relu"),
        Pooling("AvgPool", (2, 2), (2, 2)): Add(),
        Reshape((16,), 4): Pooling("AvgPool", (2, 2), (2, 2)),
        Dense("k2"): Reshape((16,), 4),
    }
    for operation, taken in expected.items():
        inputs = (EXAMPLES if taken is None else where[taken],)
        assert layers.nodes[where[operation]] == LayerNode(operation, inputs)
    assert layers.nodes[where[Add()]].inputs == (where[second], where[Bias("b0")])
    assert len(layers.nodes) == len(expected) + 1
    assert layers.nodes[-1].operation == Dense("k2")
    assert all(number < at for at, node in enumerate(layers.nodes) for number in node.inputs)
    assert layers.chain() is None and choose_evaluator("auto", graph) == "graph"


def test_a_tensor_may_be_added_to_itself() -> None:
    def doubled(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        x = x @ w["d"]
        return x + x

    graph = lifted(doubled, (2,), {"d"}, ["d"], {"d": (2, 3)})
    assert graph.layers == LayerGraph(
        (LayerNode(Dense("d"), (-1,)), LayerNode(Add(), (0, 0))), (2,)
    )


@pytest.mark.parametrize(
    ("build", "name", "operation"),
    [
        (lambda tf, x, w: tf.nn.softmax(x @ w["d"], name="s") @ w["e"], "s", "Softmax"),
        (lambda tf, x, w: tf.cos(x @ w["d"], name="c") @ w["e"], "c", "Cos"),
        (lambda tf, x, w: tf.add(x @ w["d"], x[:, :1], name="wide") @ w["e"], "wide", "AddV2"),
        (lambda tf, x, w: tf.nn.relu(x, name="r") @ tf.exp(w["d"], name="exp"), "matmul", "MatMul"),
    ],
)
def test_what_is_no_operation_of_layers_is_named(build: Any, name: str, operation: str) -> None:
    shapes = {"d": (5, 3), "e": (3, 2)}
    graph = lifted(build, (5,), {"d", "e"}, ["d", "e"], shapes)
    assert isinstance(graph.layers, UnknownOperation)
    assert graph.layers.operation == operation and graph.layers.name.startswith(name)
    found = f"this network has '{graph.layers.name}' \\({operation}\\); leave the flag out"
    with pytest.raises(ConfigError, match=found):
        choose_evaluator("channels", graph)


@pytest.mark.parametrize("what", ["training", "is_training", "epsilon"])
def test_a_normalization_whose_numbers_are_not_written_down_is_none(what: str) -> None:
    """Without the attributes their defaults count: a normalization in training."""
    tensorflow = import_tensorflow()
    placeholder = tensorflow.compat.v1.placeholder
    with tensorflow.Graph().as_default() as graph:
        x = placeholder(tensorflow.float32, (None, 4, 4, 4), name="x")
        weights = {
            name: placeholder(tensorflow.float32, SHAPES[name], name=name)
            for name in ("scale", "offset", "mean", "variance")
        }
        output = normalized(tensorflow, x, weights, what == "training")
        graph_def = graph.as_graph_def()
    (node,) = (node for node in graph_def.node if node.op == "FusedBatchNormV3")

    def found() -> Any:
        return find_layers(
            graph_def, parse_graph(graph_def), parse_tensor("x:0"), parse_tensor(output.name),
            {name: name for name in weights}, FIXED,
        )  # fmt: skip

    if what != "training":
        assert isinstance(found(), LayerGraph)
        del node.attr[what]
    assert found() == UnknownOperation(node.name, node.op)
