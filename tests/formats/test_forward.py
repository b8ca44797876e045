"""Dense layers as products alone: the numbers of operations one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bprune_hpc.formats.forward import AnyLayers, DenseChain, forward
from bprune_hpc.graph.layer_graph import (
    ACTIVATIONS,
    Activation,
    Bias,
    Dense,
    LayerGraph,
    Operation,
    Reshape,
    Scale,
)
from bprune_hpc.graph.layer_ops import run


def _weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("function", [*sorted(ACTIVATIONS), None])
@pytest.mark.parametrize("n_examples", [1, 23, 600])
def test_a_chain_gives_what_its_operations_do(function: str | None, n_examples: int) -> None:
    rng = np.random.default_rng(n_examples)
    weights = _weights(rng, a=(9, 7), b=(7, 8), c=(8, 3), bias_a=(7,), bias_c=(3,))
    between: tuple[Operation, ...] = () if function is None else (Activation(function),)
    graph = LayerGraph.of_chain(
        (9,), Dense("a"), Bias("bias_a"), *between, Dense("b"), *between, Dense("c"),
        Bias("bias_c"), *between,
    )  # fmt: skip
    inputs = np.array([1, 2, 3, 5, 8, 13, 14, 17, 19])
    chain = forward(graph, inputs, 9)
    assert isinstance(chain, DenseChain)
    matrices = chain.prepared(weights)
    memory = chain.memory(matrices)
    for x in (rng.normal(size=(n_examples, 4, 5)), rng.integers(0, 9, (n_examples, 20))):
        expected = run(graph, weights, x.reshape(n_examples, -1)[:, inputs].astype(np.float64))
        parts = range(0, n_examples, chain.most_rows)
        found = [
            chain.run(chain.rows(x[at : at + chain.most_rows], memory), matrices, memory)
            for at in parts
        ]
        assert all(one.dtype == np.float32 for one in found)
        np.testing.assert_allclose(
            np.concatenate(found), expected, rtol=0, atol=2e-6 * max(1.0, abs(expected).max())
        )


def test_outputs_are_not_those_of_the_next_call() -> None:
    rng = np.random.default_rng(0)
    chain = forward(LayerGraph.of_chain((4,), Dense("a")), None, 4)
    matrices = chain.prepared(_weights(rng, a=(4, 4)))
    memory = chain.memory(matrices)
    first = chain.run(chain.rows(np.ones((5, 4)), memory), matrices, memory)
    kept = first.copy()
    chain.run(chain.rows(np.zeros((5, 4)), memory), matrices, memory)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("shape", "operations", "is_chain"),
    [
        ((4,), (Dense("a"), Bias("b")), True),
        ((2, 2), (Reshape((4,)), Dense("a")), True),
        ((2, 4), (Dense("a"),), False),
        ((4,), (Bias("b"), Dense("a")), False),
        ((4,), (Dense("a"), Activation("Relu"), Bias("b")), False),
        ((4,), (Dense("a"), Bias("b"), Bias("b")), False),
        ((4,), (Dense("a"), Scale("b")), False),
        ((4,), (), False),
    ],
)
def test_which_graphs_are_chains(shape: Any, operations: Any, is_chain: bool) -> None:
    graph = LayerGraph.of_chain(shape, *operations)
    layers = forward(graph, None, 8)
    assert isinstance(layers, DenseChain) == is_chain
    weights = _weights(np.random.default_rng(0), a=(4, 4), b=(4,))
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    prepared = layers.prepared(weights)
    found = layers.run(layers.rows(x), prepared, layers.memory(prepared))
    expected = run(graph, weights, x)
    np.testing.assert_allclose(found, expected.reshape(3, -1), rtol=0, atol=1e-6)


def test_large_tensors_are_run_in_parts() -> None:
    layers = forward(LayerGraph.of_chain((4,), Scale("b")), None, 2**22)
    assert isinstance(layers, AnyLayers) and layers.most_rows == 2
