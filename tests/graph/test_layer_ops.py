"""What operations of a graph of layers give, against their definitions, number by number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special

from bprune_hpc.graph.layer_graph import (
    ACTIVATIONS,
    NO_BORDERS,
    Activation,
    Add,
    Bias,
    Concatenation,
    Convolution,
    Dense,
    LayerGraph,
    LayerNode,
    Multiply,
    Padding,
    Pooling,
    Reshape,
    Scale,
    same_border,
    shape_of,
)
from bprune_hpc.graph.layer_ops import apply, run

BORDERS = ((1, 2), (0, 3))
EXPECTED = {
    "Relu": lambda v: max(v, 0),
    "Relu6": lambda v: min(max(v, 0), 6),
    "Elu": lambda v: v if v > 0 else np.expm1(v),
    "Selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * np.expm1(v)),
    "LeakyRelu": lambda v: v if v > 0 else 0.25 * v,
    "Gelu": lambda v: v * special.ndtr(v),
    "GeluTanh": lambda v: v * special.expit(1.5957691216057308 * (v + 0.044715 * v**3)),
    "Swish": lambda v: v * special.expit(v),
    "Tanh": np.tanh,
    "Sigmoid": special.expit,
    "Softplus": lambda v: -special.log_expit(-v),
    "Softsign": lambda v: v / (1 + abs(v)),
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations(name: str, dtype: type) -> None:
    x = np.array([[-90.0, -7.0, -1.5, -1e-3, 0.0, 1e-3, 0.5, 5.0, 7.0, 90.0]], dtype)
    found = apply(Activation(name, 0.25), [x], {})
    assert found.dtype == dtype
    expected = [EXPECTED[name](float(value)) for value in x[0]]
    np.testing.assert_allclose(found[0], expected, 8 * np.finfo(dtype).eps, 1e-7)


def value_at(x: np.ndarray, row: int, column: int) -> np.ndarray | None:
    """Channels at a place; None outside the image."""
    is_inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return x[row, column] if is_inside else None


@pytest.mark.parametrize("borders", [NO_BORDERS, BORDERS])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution(borders: tuple, strides: tuple, dilations: tuple, groups: int) -> None:
    rng = np.random.default_rng(3)
    x, kernel = rng.normal(size=(2, 6, 5, 4)), rng.normal(size=(3, 2, 4 // groups, 8))
    one = Convolution("k", (3, 2), (6, 5, 4), strides, borders, dilations, groups)
    found = apply(one, [x], {"k": kernel})
    assert found.shape[1:] == shape_of(one, [x.shape[1:]], {"k": kernel.shape})
    for place in itertools.product(*map(range, found.shape)):
        example, row, column, output = place
        group = output // (8 // groups)
        total = 0.0
        for down, right in np.ndindex(3, 2):
            seen = value_at(
                x[example],
                row * strides[0] - borders[0][0] + down * dilations[0],
                column * strides[1] - borders[1][0] + right * dilations[1],
            )
            if seen is not None:
                of_group = seen[group * 4 // groups : (group + 1) * 4 // groups]
                total += of_group @ kernel[down, right, :, output]
        assert found[place] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("function", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize("borders", [NO_BORDERS, ((1, 1), (0, 2))])
def test_pooling_leaves_borders_out(function: str, borders: tuple) -> None:
    """Numbers are below zero, so that zeros of a border would be the maximum."""
    x = np.random.default_rng(4).normal(size=(2, 6, 5, 3)) - 5
    one = Pooling(function, (3, 3), (2, 1), borders)
    found = apply(one, [x], {})
    assert found.shape[1:] == shape_of(one, [x.shape[1:]], {})
    combine = np.max if function == "MaxPool" else np.mean
    for example, row, column in np.ndindex(*found.shape[:3]):
        seen = [
            value_at(x[example], row * 2 - borders[0][0] + down, column - borders[1][0] + right)
            for down, right in np.ndindex(3, 3)
        ]
        inside = [one for one in seen if one is not None]
        np.testing.assert_allclose(found[example, row, column], combine(inside, axis=0))


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [(8, 3, 1, (1, 1)), (8, 3, 2, (0, 1)), (7, 2, 2, (0, 1)), (8, 1, 3, (0, 0)), (5, 4, 1, (1, 2))],
)
def test_borders_of_same(size: int, window: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_border(size, window, stride) == expected


def test_a_graph_with_branches() -> None:
    """Each tensor is taken by its number, however often it is used."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 6))
    weights = {"k": rng.normal(size=(6, 6)), "s": rng.normal(size=6), "b": rng.normal(size=(1, 6))}
    nodes = (
        LayerNode(Dense("k"), (-1,)),
        LayerNode(Scale("s"), (0,)),
        LayerNode(Bias("b"), (1,)),
        LayerNode(Multiply(), (0, 2)),
        LayerNode(Add(), (-1, 3, 0)),
        LayerNode(Concatenation(), (4, 0)),
        LayerNode(Reshape((2, 3, 2)), (5,)),
        LayerNode(Padding(((1, 0), (0, 1))), (6,)),
    )
    graph = LayerGraph(nodes, (6,))
    first = x @ weights["k"]
    added = x + first * (first * weights["s"] + weights["b"]) + first
    images = np.concatenate([added, first], axis=1).reshape(4, 2, 3, 2)
    expected = np.pad(images, ((0, 0), (1, 0), (0, 1), (0, 0)))
    np.testing.assert_allclose(run(graph, weights, x), expected)
    assert graph.shapes({name: value.shape for name, value in weights.items()})[-1] == (3, 4, 2)


@pytest.mark.parametrize(
    ("operation", "inputs"),
    [
        (Dense("k"), [(5,)]),
        (Dense("k"), [(2, 3, 6)]),
        (Bias("s"), [(5,)]),
        (Convolution("k", (2, 3), (4, 4, 2)), [(4, 4, 3)]),
        (Convolution("k", (5, 3), (4, 4, 2)), [(4, 4, 2)]),
        (Pooling("MaxPool", (5, 1), (1, 1)), [(4, 4, 2)]),
        (Reshape((7,)), [(6,)]),
        (Add(), [(6,), (5,)]),
        (Concatenation(), [(2, 2, 1), (2, 3, 1)]),
    ],
)
def test_what_does_not_fit_is_refused(operation: object, inputs: list) -> None:
    with pytest.raises(ValueError, match=type(operation).__name__):
        shape_of(operation, inputs, {"k": (6, 6), "s": (6,)})  # type: ignore[arg-type]
