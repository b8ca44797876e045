"""Calling a lifted graph, against the same network written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.tensorflow_import import import_tensorflow


@pytest.fixture(scope="module")
def lifted() -> LiftedGraph:
    """``relu(x @ w) + b`` where x is float64 and w is mean-field."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default() as graph:
        x = tf1.placeholder(tensorflow.float64, (None, 3), name="x")
        w = tf1.placeholder(tensorflow.float32, (3, 2), name="w")
        b = tf1.placeholder(tensorflow.float32, (2,), name="b")
        total = tensorflow.nn.relu(tensorflow.cast(x, tensorflow.float32) @ w) + b
        tensorflow.identity(total, name="logits")
        content = graph.as_graph_def().SerializeToString()
    return LiftedGraph(
        content, "x:0", (None, 3), "float64", "logits:0", (None, 2), {"w": "w:0"}, {"b": "b:0"}
    )


def test_same_as_numpy(lifted: LiftedGraph) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    with GraphNetwork(lifted, {"b": b.astype(np.float32)}) as network:
        logits = network(x, {"w": w.astype(np.float32)})
        again = network(x, {"w": w.astype(np.float32)})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.maximum(x @ w, 0) + b, atol=2e-6)
    np.testing.assert_array_equal(logits, again)


def test_missing_fixed_value(lifted: LiftedGraph) -> None:
    with pytest.raises(ValueError, match=r"no value for \['b'\]"):
        GraphNetwork(lifted, {})
