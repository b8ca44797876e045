"""What pruning leaves of a graph of layers gives the same, and no channel stays that need not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bprune_hpc.evaluators.compact_graph import CompactGraph, compact_graph
from bprune_hpc.evaluators.compaction import Weights
from bprune_hpc.evaluators.interface import Noise
from bprune_hpc.evaluators.reference import drawn
from bprune_hpc.graph.layer_graph import (
    EXAMPLES,
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
)
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.posterior.draws import Draw
from bprune_hpc.posterior.mean_field import Posterior

SAME = ((1, 1), (1, 1))
IMAGE = (5, 4, 2)
N_FILTERS = 4
RELU = Activation("Relu")
FLAT = Reshape((5 * 4 * N_FILTERS,), 20)
DEAD = 1
"""A filter without weights."""


def conv(name: str, n_in: int, borders: Any = SAME) -> Convolution:
    return Convolution(name, (3, 3), (5, 4, n_in), borders=borders)


SHAPES = {
    "c0": (3, 3, 2, N_FILTERS), "c1": (3, 3, N_FILTERS, N_FILTERS), "b": (N_FILTERS,),
    "b1": (N_FILTERS,), "d": (80, 3), "s": (N_FILTERS,), "g": (N_FILTERS, 3),
    **dict.fromkeys(("m0", "m1", "m2"), (N_FILTERS, N_FILTERS)),
}  # fmt: skip


class Case:
    """A graph with random weights, some of which are set; the others have a posterior."""

    def __init__(self, graph: LayerGraph, fixed: dict[str, Any], **pruned: Any) -> None:
        rng = np.random.default_rng(8)
        used = {
            getattr(node.operation, key)
            for node in graph.nodes
            for key in ("kernel", "name")
            if hasattr(node.operation, key)
        }
        self.graph = graph
        self.fixed = {name: np.asarray(value, np.float32) for name, value in fixed.items()}
        loc = {
            name: rng.normal(size=SHAPES[name]).astype(np.float32)
            for name in sorted(used - set(fixed))
        }
        scale = {name: np.abs(rng.normal(size=value.shape)) / 2 for name, value in loc.items()}
        scale = {name: value.astype(np.float32) for name, value in scale.items()}
        for name, index in pruned.items():
            loc[name][index] = scale[name][index] = 0
        self.posterior = Posterior(loc, scale)
        values = {name: rng.normal(size=v.shape).astype(np.float32) for name, v in loc.items()}
        self.noise = Noise(0, (Draw(0, 1, 0), Draw(1, -1, 0)), values)
        self.x = rng.normal(size=(3, *graph.input_shape)).astype(np.float32)

    def compact(self, folds_constants: bool = True) -> CompactGraph:
        """What is left, which gives the same."""
        smaller = compact_graph(
            self.graph, Weights(self.posterior, self.fixed), folds_constants=folds_constants
        )
        for draw, weights in zip(self.noise.draws, drawn(smaller, self.noise), strict=True):
            whole = dict(self.fixed)
            for name, loc in self.posterior.loc.items():
                assert self.noise.values is not None
                whole[name] = (
                    loc + draw.sign * self.posterior.scale[name] * (self.noise.values[name])
                )
            expected = run(self.graph, whole, self.x.astype(float))
            found = run(smaller.graph, weights, smaller.take(self.x).astype(float))
            atol = 1e-6 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
        return smaller

    def left(self, at: int, folds_constants: bool = True) -> list[int]:
        """Channels of a node that are left."""
        return self.compact(folds_constants).channels[at].tolist()


OTHERS = [0, 2, 3]


def chain(*operations: Any) -> LayerGraph:
    return LayerGraph.of_chain(IMAGE, *operations)


def test_a_constant_at_a_border_is_a_bias_of_each_place() -> None:
    graph = chain(conv("c0", 2), Bias("b"), RELU, conv("c1", N_FILTERS), FLAT, Dense("d"))
    case = Case(graph, {"b": [1, 2, -1, 0.5]}, c0=(..., DEAD))
    smaller = case.compact()
    assert smaller.channels[2].tolist() == OTHERS
    (name,) = smaller.bias_names
    (bias, _) = (of_draw[name] for of_draw in smaller.biases(case.noise))
    assert bias.shape == (5, 4, N_FILTERS)
    inside = bias[1:-1, 1:-1].reshape(-1, N_FILTERS)
    np.testing.assert_allclose(inside, inside[:1].repeat(len(inside), 0), rtol=1e-5)
    assert (np.abs(bias[0, 0] - inside[0]) > 1e-3).all()
    assert case.left(2, folds_constants=False) == [0, 1, 2, 3]


def test_a_constant_without_borders_is_a_bias_of_channels() -> None:
    graph = chain(
        conv("c0", 2), Bias("b"), RELU, conv("c1", N_FILTERS, NO_BORDERS),
        Pooling("AvgPool", (3, 2), (1, 1)), Reshape((N_FILTERS,)), Dense("g"),
    )  # fmt: skip
    case = Case(graph, {"b": [1, 2, -1, 0.5]}, c0=(..., DEAD))
    smaller = case.compact()
    (bias,) = smaller.biases(case.noise)[0].values()
    assert bias.shape == (N_FILTERS,) and smaller.channels[2].tolist() == OTHERS


@pytest.mark.parametrize(
    ("activation", "bias", "is_zero"),
    [
        ("Relu", -2.0, True), ("Relu", 0.0, True), ("Relu", 2.0, False), ("Tanh", 0.0, True),
        ("Sigmoid", 0.0, False), ("Softplus", 0.0, False), ("LeakyRelu", -2.0, False),
        ("Gelu", 0.0, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_folded", [True, False])
def test_what_an_activation_makes_zero_is_left_out(
    activation: str, bias: float, is_zero: bool, is_folded: bool
) -> None:
    graph = chain(
        conv("c0", 2), Bias("b"), Activation(activation, 0.1), conv("c1", N_FILTERS), FLAT,
        Dense("d"),
    )  # fmt: skip
    case = Case(graph, {"b": [1, bias, -1, 0.5]}, c0=(..., DEAD))
    assert bool(case.compact(is_folded).bias_names) == (is_folded and not is_zero)
    assert case.left(2, is_folded) == (OTHERS if is_folded or is_zero else [0, 1, 2, 3])


def test_pruned_biases_of_dead_filters_are_zero() -> None:
    graph = chain(conv("c0", 2), Bias("b"), RELU, conv("c1", N_FILTERS), FLAT, Dense("d"))
    case = Case(graph, {}, c0=(..., DEAD), b=DEAD)
    assert not case.compact().bias_names and case.left(2, folds_constants=False) == OTHERS


@pytest.mark.parametrize("function", ["MaxPool", "AvgPool"])
def test_pooling_of_a_negative_constant_is_that_constant(function: str) -> None:
    """Also at a border, where neither a zero nor minus infinity comes in."""
    pooling = Pooling(function, (3, 3), (1, 1), SAME)
    graph = chain(conv("c0", 2), Bias("b"), pooling, FLAT, Dense("d"))
    case = Case(graph, {"b": [1, -2, -1, 0.5]}, c0=(..., DEAD))
    smaller = case.compact()
    assert smaller.channels[2].tolist() == OTHERS
    (bias,) = smaller.biases(case.noise)[0].values()
    assert case.noise.values is not None
    kernel = case.posterior.loc["d"] + case.posterior.scale["d"] * case.noise.values["d"]
    np.testing.assert_allclose(bias, -2 * kernel[DEAD::N_FILTERS].sum(axis=0), rtol=1e-5)


def test_zeros_around_a_constant() -> None:
    """What was one number everywhere is so no longer, and a maximum can be of the border."""
    padding = Padding(SAME)
    pooling = Pooling("MaxPool", (3, 3), (1, 1))
    graph = chain(conv("c0", 2), Bias("b"), padding, pooling, FLAT, Dense("d"))
    for value in (-2, 2):
        case = Case(graph, {"b": [1, value, -1, 0.5]}, c0=(..., DEAD))
        assert case.left(3) == OTHERS and len(case.compact().bias_names) == 1


def test_normalization_before_a_border_makes_a_constant() -> None:
    """Shifted zeros are no zeros, but those of the border are."""
    graph = chain(
        conv("c0", 2), Scale("s"), Bias("b"), conv("c1", N_FILTERS), FLAT, Dense("d"),
    )  # fmt: skip
    fixed = {"s": [1, 2, 0, 3], "b": [0.5, 0.25, 1, 2]}  # a scale of zero kills a filter too
    case = Case(graph, fixed, c0=(..., DEAD))
    assert case.left(0) == [0, 3] and case.left(2) == [0, 3]


def residual(*after: LayerNode) -> LayerGraph:
    """A sum of a convolution and of what a second one makes of it."""
    nodes = (
        LayerNode(conv("c0", 2), (EXAMPLES,)),
        LayerNode(Bias("b"), (0,)),
        LayerNode(conv("c1", N_FILTERS), (1,)),
        LayerNode(Add(), (1, 2)),
        LayerNode(FLAT, (3,)),
        LayerNode(Dense("d"), (4,)),
    )
    return LayerGraph((*nodes, *after), IMAGE)


def test_a_sum_keeps_what_any_of_its_parts_has() -> None:
    fixed = {"b": [1, 2, -1, 0.5]}
    case = Case(residual(), fixed, c0=(..., [1, 2]), c1=(..., [2, 3]))
    assert case.left(3) == [0, 1, 3]  # 2 is a constant of both
    assert len(case.compact().bias_names) == 2
    case = Case(residual(), fixed, d=slice(DEAD, None, N_FILTERS), c1=np.s_[:, :, DEAD])
    assert case.left(3) == OTHERS  # nothing takes it
    case = Case(residual(), fixed, d=slice(DEAD, None, N_FILTERS))
    assert case.left(0) == [0, 1, 2, 3]  # the second convolution does


def test_what_a_constant_feeds_stays_where_that_is_added_to_what_varies() -> None:
    """The constant stays for the sum's sake, and is a bias of nothing then."""
    nodes = (
        LayerNode(Dense("m0"), (EXAMPLES,)),
        LayerNode(Bias("b"), (0,)),
        LayerNode(Dense("m1"), (1,)),
        LayerNode(Dense("m2"), (2,)),
        LayerNode(Add(), (1, 3)),
        LayerNode(Dense("g"), (4,)),
    )
    case = Case(
        LayerGraph(nodes, (N_FILTERS,)), {"b": [1, 2, -1, 0.5]},
        m0=(..., DEAD), m1=(OTHERS, [2, 2, 2]),
    )  # fmt: skip
    assert case.left(1) == [0, 1, 2, 3]
    assert case.left(2) == [0, 1, 2, 3]  # the third is of the constant alone
    case = Case(
        LayerGraph(nodes, (N_FILTERS,)), {"b": [1, 2, -1, 0.5]},
        m0=(..., DEAD), m1=(OTHERS, [2, 2, 2]), m2=(..., DEAD),
    )  # fmt: skip
    assert case.left(1) == OTHERS and case.left(2) == [0, 1, 3]  # all is constant there


def concatenated(first: int, n_channels: int, dense: str) -> LayerGraph:
    """A tensor and a convolution with a bias, channels after each other."""
    nodes = (
        LayerNode(conv("c0", 2), (EXAMPLES,)),
        LayerNode(Bias("b"), (0,)),
        LayerNode(Concatenation(), (first, 1)),
        LayerNode(Reshape((20 * n_channels,), 20), (2,)),
        LayerNode(Dense(dense), (3,)),
    )
    SHAPES[dense] = (20 * n_channels, 3)
    return LayerGraph(nodes, IMAGE)


def test_channels_after_each_other_are_left_out_one_by_one() -> None:
    fixed = {"b": [1, 2, -1, 0.5]}
    case = Case(concatenated(EXAMPLES, 6, "d6"), fixed, c0=(..., DEAD))
    assert case.left(2) == [0, 1, 2, 4, 5]
    # Of what is taken in another way, too, all stays that either takes.
    case = Case(concatenated(EXAMPLES, 6, "d6"), fixed, d6=slice(0, None, 6))
    assert case.left(2) == [0, 1, 2, 3, 4, 5]
    not_taken = [at for at in range(160) if at % 8 in (DEAD, DEAD + 4)]
    case = Case(concatenated(0, 8, "d8"), fixed, d8=not_taken)
    assert case.left(2) == [0, 2, 3, 4, 6, 7] and case.left(0) == OTHERS


def test_a_product_with_zero_is_zero() -> None:
    nodes = (
        LayerNode(conv("c0", 2), (EXAMPLES,)),
        LayerNode(conv("c2", 2), (EXAMPLES,)),
        LayerNode(Multiply(), (0, 1)),
        LayerNode(FLAT, (2,)),
        LayerNode(Dense("d"), (3,)),
    )
    SHAPES["c2"] = SHAPES["c0"]
    case = Case(LayerGraph(nodes, IMAGE), {}, c0=(..., DEAD))
    assert case.left(2) == OTHERS and case.left(1) == OTHERS


@pytest.mark.parametrize(("n_out", "groups"), [(4, 4), (8, 4), (4, 2)])
def test_groups_keep_their_channels(n_out: int, groups: int) -> None:
    SHAPES["grouped"] = (3, 3, 4 // groups, n_out)
    SHAPES["last"] = (20 * n_out, 3)
    one = Convolution("grouped", (3, 3), (5, 4, 4), borders=SAME, groups=groups)
    flat = Reshape((20 * n_out,), 20)
    graph = chain(conv("c0", 2), Bias("b"), RELU, one, flat, Dense("last"))
    case = Case(graph, {"b": [1, 2, -1, 0.5]}, c0=(..., DEAD))
    assert case.left(3) == (OTHERS if n_out == groups else list(range(n_out)))
    case = Case(graph, {"b": [1, 2, 3, 0.5]}, c0=...)  # all before it is constant
    assert case.left(3) == []


@pytest.mark.parametrize("pruned", [{"c0": ...}, {"d": ...}, {"c0": ..., "d": ..., "b": ...}])
def test_nothing_but_constants_may_be_left(pruned: dict[str, Any]) -> None:
    graph = chain(conv("c0", 2), Bias("b"), RELU, conv("c1", N_FILTERS), FLAT, Dense("d"))
    case = Case(graph, {}, **pruned)
    assert case.left(3) == []
    assert case.left(5) == [0, 1, 2]


def test_a_tensor_that_is_used_twice_is_cut_twice() -> None:
    graph = chain(
        conv("c0", 2), RELU, conv("c1", N_FILTERS), RELU, conv("c1", N_FILTERS), FLAT, Dense("d")
    )
    case = Case(graph, {}, c0=(..., DEAD))
    smaller = case.compact()
    shapes = [smaller.weights[name].loc.shape for name in smaller.weights]
    assert shapes == [(9, 2, 3), (9, 3, 4), (9, 4, 4), (80, 3)]


def test_numbers_of_an_example_that_nothing_takes_are_left_out() -> None:
    graph = LayerGraph.of_chain((80,), Dense("d"))
    case = Case(graph, {}, d=[3, 70])
    assert case.compact().graph.input_shape == (78,)
