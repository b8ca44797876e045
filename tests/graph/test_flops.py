"""Multiplications of a network against counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bprune_hpc.graph.flops import multiplications
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.tensorflow_import import import_tensorflow


def lifted(
    build: Callable[[Any, dict[str, Any]], Any],
    input_shape: tuple[int, ...],
    shapes: dict[str, tuple[int, ...]],
) -> tuple[LiftedGraph, np.ndarray, dict[str, np.ndarray]]:
    """A graph, one example and weights for it."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default() as graph:
        x = tf1.placeholder(tensorflow.float32, (None, *input_shape), name="x")
        w = {name: tf1.placeholder(tensorflow.float32, s, name=name) for name, s in shapes.items()}
        tensorflow.identity(build(x, w), name="y")
        content = graph.as_graph_def().SerializeToString()
    names = {name: f"{name}:0" for name in shapes}
    network = LiftedGraph(content, "x:0", None, "float32", "y:0", None, names, {})
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return network, np.ones((1, *input_shape), np.float32), weights


def test_dense_layers() -> None:
    tensorflow = import_tensorflow()

    def build(x: Any, w: dict[str, Any]) -> Any:
        hidden = tensorflow.nn.relu(x @ w["a"])
        return tensorflow.matmul(hidden, w["b"], transpose_b=True)

    assert multiplications(*lifted(build, (6,), {"a": (6, 5), "b": (3, 5)})) == 6 * 5 + 5 * 3


def test_the_weights_side_of_a_transposed_product() -> None:
    tensorflow = import_tensorflow()

    def build(x: Any, w: dict[str, Any]) -> Any:
        return tensorflow.matmul(w["a"], x, transpose_a=True, transpose_b=True)

    assert multiplications(*lifted(build, (6,), {"a": (6, 5)})) == 6 * 5


CONVOLUTIONS = {
    # 5 x 4 with stride 2 and SAME: 3 x 2 places, a window of 3 x 3 x 3 channels, 7 filters.
    "plain": (
        lambda nn, x, k: nn.conv2d(x, k, 2, "SAME"), (5, 4, 3), (3, 3, 3, 7), 6 * 27 * 7,
    ),
    # 4 x 3 places, windows of 2 x 2 of a channel each, 2 filters for each of 3 channels.
    "depthwise": (
        lambda nn, x, k: nn.depthwise_conv2d(x, k, [1, 1, 1, 1], "VALID"), (5, 4, 3), (2, 2, 3, 2),
        12 * 4 * 6,
    ),
    # Every one of 5 x 4 places of 3 channels is spread over a window of 2 x 2 of 7 channels.
    "transposed": (
        lambda nn, x, k: nn.conv2d_transpose(x, k, (1, 10, 8, 7), 2), (5, 4, 3), (2, 2, 7, 3),
        20 * 3 * 4 * 7,
    ),
    # 2 x 3 x 1 places of 2 x 2 x 2 windows.
    "of volumes": (
        lambda nn, x, k: nn.conv3d(x, k, [1, 1, 1, 1, 1], "VALID"), (3, 4, 2, 1), (2, 2, 2, 1, 5),
        6 * 8 * 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str) -> None:
    convolve, input_shape, kernel, by_hand = CONVOLUTIONS[kind]
    nn = import_tensorflow().nn
    network = lifted(lambda x, w: convolve(nn, x, w["k"]), input_shape, {"k": kernel})
    assert multiplications(*network) == by_hand
