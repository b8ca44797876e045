"""What the structure in front of a tensor says of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bprune_hpc.graph.endpoints import is_of_any_sign
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.tensorflow_import import import_graphs
from tests.helpers.lifted_graphs import lifted

SHAPES = {"k": (4, 3), "b": (3,)}


def flipout(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    return tf.nn.bias_add(x @ w["k"] + tf.sign(x)[:, :3] * (x @ w["k"]), w["b"])


def average_of_sigmoids(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    return tf.sigmoid(x @ w["k"] + w["b"]) @ tf.constant([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1.0]])


@pytest.mark.parametrize(
    ("build", "is_expected"),
    [
        (flipout, True),
        (lambda tf, x, w: tf.reshape(tf.identity(x @ w["k"]), (-1, 3)), True),
        (lambda tf, x, w: tf.sigmoid(x @ w["k"]) @ tf.constant(-1.0, shape=(3, 3)), True),
        (average_of_sigmoids, False),
        (lambda tf, x, w: tf.sigmoid(x @ w["k"]) + w["b"], False),
        (lambda tf, x, w: tf.nn.relu(x @ w["k"] + w["b"]), False),
        (lambda tf, x, w: tf.square(x @ w["k"]), False),
    ],
)
def test_a_linear_layers_numbers_have_any_sign(build: Any, is_expected: bool) -> None:
    graph = lifted(build, (4,), {"k"}, list(SHAPES), SHAPES)
    nodes = parse_graph(import_graphs().GraphDef.FromString(graph.graph_def))
    assert is_of_any_sign(nodes, parse_tensor(graph.output_tensor)) == is_expected


def test_of_no_graph_nothing_is_told() -> None:
    assert not is_of_any_sign({}, ("logits", 0))
