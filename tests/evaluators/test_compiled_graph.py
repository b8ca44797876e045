"""Graphs of layers as the compiled module runs them, against plain sums and TensorFlow's graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from bprune_hpc import compiled
from bprune_hpc.evaluators.compiled_graph import CompiledGraph, is_known
from bprune_hpc.evaluators.draw_noise import DrawNoise
from bprune_hpc.evaluators.graph import GraphEvaluator, GraphNetwork
from bprune_hpc.evaluators.interface import Evaluator, Noise
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
    same_border,
)
from bprune_hpc.posterior.draws import MEAN, replicates_of
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.random_layers import random_network

UNITS = replicates_of(4, "antithetic")
N_CONVOLUTIONS, N_NETWORKS, N_WIDE = 60, 100, 12
pytestmark = pytest.mark.compiled


def noises(table: Posterior, *units: int) -> list[Noise]:
    return [
        noise
        for unit in units
        for noise in DrawNoise("shared", 0, 4).of_replicate(table, unit, UNITS, "", 0)
    ]


def outputs(
    evaluator: Evaluator, table: Posterior, x: np.ndarray, *units: int, at_once: int | None = None
) -> np.ndarray:
    pruned, drawn = evaluator.prune(table), noises(table, *units)
    batches = pruned.noise_batches(drawn, len(x))
    if at_once is not None:
        batches = [slice(at, at + at_once) for at in range(0, len(drawn), at_once)]
    return np.concatenate(list(pruned.sample(drawn).outputs(x, batches)))


def convolved(one: Convolution, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The sum over the window's taps, in double precision."""
    padded = np.pad(x.astype(float), ((0, 0), *one.borders, (0, 0)))
    out = np.zeros((len(x), *one.size, kernel.shape[-1]))
    for row, column in np.ndindex(*one.window):
        starts = row * one.dilations[0], column * one.dilations[1]
        rows, columns = (
            slice(start, start + (n - 1) * stride + 1, stride)
            for start, n, stride in zip(starts, one.size, one.strides, strict=True)
        )
        out += padded[:, rows, columns] @ kernel[row, column].astype(float)
    return out


def random_convolution(rng: np.random.Generator) -> Convolution:
    image = (
        int(rng.choice([1, *range(1, 18)])),
        int(rng.integers(1, 30)),
        int(rng.integers(1, 20)),
    )
    window = tuple(int(rng.integers(1, min(size, 5) + 1)) for size in image[:2])
    strides = tuple(int(n) for n in rng.integers(1, 4, 2))
    dilations = tuple(int(n) for n in rng.choice([1, 1, 2], 2))
    borders = tuple(map(same_border, image, window, strides, dilations))
    one = Convolution("k", window, image, strides, borders, dilations)  # type: ignore[arg-type]
    plain = Convolution("k", window, image, strides, dilations=dilations)  # type: ignore[arg-type]
    return one if rng.random() < 0.6 or min(plain.size) < 1 else plain


@pytest.mark.usefixtures("compiled_instructions")
def test_convolutions_by_their_definition() -> None:
    widths: Counter[int] = Counter()
    for seed in range(N_CONVOLUTIONS):
        rng = np.random.default_rng(seed)
        one = random_convolution(rng)
        shape = (*one.window, one.image[2], int(rng.integers(1, 20)))
        is_kept = rng.random(shape) < rng.choice([0, 0.05, 0.4, 1, 1])
        loc = (rng.normal(size=shape) * is_kept).astype(np.float32)
        table = Posterior({"k": loc}, {"k": np.abs(loc) / 3})
        bias = rng.normal(size=shape[-1]).astype(np.float32)
        graph = LayerGraph.of_chain(one.image, one, Bias("b"), Activation("Relu"))
        x = rng.normal(size=(int(rng.choice([1, 16, 70])), *one.image)).astype(np.float32)
        evaluator = CompiledGraph(graph, {"b": bias})
        found = outputs(evaluator, table, x, MEAN, 0)
        widths[evaluator.prune(table).lists[0].width] += 1  # type: ignore[attr-defined]
        (noise,) = noises(table, 0)
        assert noise.values is not None
        spread = np.abs(loc) / 3 * noise.values["k"]
        drawn = [loc, loc + spread, loc - spread]
        for kernel, of_draw in zip(drawn, found, strict=True):
            expected = np.maximum(convolved(one, x, kernel) + bias, 0).reshape(len(x), -1).T
            np.testing.assert_allclose(of_draw, expected, 0, 3e-6 * max(1, np.abs(expected).max()))
    assert min(widths[1], widths[compiled.module.FILTERS]) > 5


@pytest.mark.usefixtures("compiled_instructions")
@pytest.mark.parametrize(
    ("size", "borders"),
    [
        *(
            ((rows, columns), ((1, 1), (1, 1)))
            for rows, columns in ((2, 2), (2, 9), (3, 3), (8, 8))
        ),
        *(((rows, columns), ((0, 1), (1, 0))) for rows, columns in ((4, 4), (7, 6), (11, 17))),
    ],
)
def test_winograds_products_by_definition(
    size: tuple[int, int], borders: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    rng = np.random.default_rng(sum(size))
    one = Convolution("k", (3, 3), (*size, 21), (1, 1), borders)
    kernel = rng.normal(size=(3, 3, 21, 20)).astype(np.float32)
    table = Posterior({"k": kernel}, {"k": np.ones_like(kernel)})
    x = rng.normal(size=(37, *one.image)).astype(np.float32)
    evaluator = CompiledGraph(LayerGraph.of_chain(one.image, one), {})
    assert evaluator.prune(table).lists[0].width == 0  # type: ignore[attr-defined]
    (found,) = outputs(evaluator, table, x, MEAN)
    expected = convolved(one, x, kernel).reshape(len(x), -1).T
    np.testing.assert_allclose(found, expected, 0, 3e-6 * np.abs(expected).max())


def residual(image: tuple[int, int, int]) -> tuple[LayerGraph, Mapping[str, tuple[int, ...]]]:
    """Two blocks with sums, of which the second halves the image, a pooling and a dense layer."""
    rows, columns, n = image
    small = -(-rows // 2), -(-columns // 2)

    def convolution(
        name: str, size: tuple[int, int], channels: int, taps: int, stride: int
    ) -> Convolution:
        above, beside = (same_border(one, taps, stride) for one in size)
        strides = (stride, stride)
        return Convolution(name, (taps, taps), (*size, channels), strides, (above, beside))

    size, pooling = (rows, columns), Pooling("MaxPool", (2, 2), (2, 2), ((0, 1), (0, 1)))
    n_flat = 20 * math.prod((one + 1) // 2 for one in small)
    nodes = [
        (convolution("k0", size, n, 3, 1), EXAMPLES), (Activation("Relu"), 0),
        (convolution("k1", size, 12, 3, 1), 1), (Bias("b1"), 2), (Add(), 3, 1),
        (Activation("Relu6"), 4), (convolution("k2", size, 12, 3, 2), 5), (Activation("Elu"), 6),
        (convolution("k3", small, 20, 3, 1), 7), (convolution("k4", size, 12, 1, 2), 5),
        (Add(), 8, 9), (Activation("Relu"), 10), (pooling, 11),
        (Reshape((n_flat,), n_flat // 20), 12), (Dense("k5"), 13), (Bias("b5"), 14),
    ]  # fmt: skip
    shapes = {
        "k0": (3, 3, n, 12), "k1": (3, 3, 12, 12), "b1": (12,), "k2": (3, 3, 12, 20),
        "k3": (3, 3, 20, 20), "k4": (1, 1, 12, 20), "k5": (n_flat, 5), "b5": (5,),
    }  # fmt: skip
    return LayerGraph(tuple(LayerNode(one, inputs) for one, *inputs in nodes), image), shapes  # type: ignore[arg-type, misc]


@pytest.mark.usefixtures("compiled_instructions")
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("image", [(18, 17, 3), (6, 5, 2)])
def test_a_number_has_the_same_bits_whatever_is_beside_it(
    image: tuple[int, int, int], density: float
) -> None:
    rng = np.random.default_rng(1)
    graph, shapes = residual(image)
    loc = {
        name: (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)
        for name, shape in shapes.items()
    }
    table = Posterior(loc, {name: np.abs(value) / 5 for name, value in loc.items()})
    x = rng.normal(size=(150, *image)).astype(np.float32)
    evaluator = CompiledGraph(graph, {})
    whole = outputs(evaluator, table, x, MEAN, 0, 1)
    assert np.isfinite(whole).all() and np.ptp(whole) > 0
    np.testing.assert_array_equal(outputs(evaluator, table, x, 1), whole[3:])
    np.testing.assert_array_equal(outputs(evaluator, table, x, MEAN, 0, 1, at_once=1), whole)
    np.testing.assert_array_equal(outputs(evaluator, table, x[64:65], MEAN, 0), whole[:3, :, 64:65])
    np.testing.assert_array_equal(outputs(evaluator, table, x[33:71], MEAN, 0), whole[:3, :, 33:71])
    in_threads = CompiledGraph(graph, {}, n_threads=3)
    np.testing.assert_array_equal(outputs(in_threads, table, x, MEAN, 0, 1), whole)


@pytest.mark.usefixtures("compiled_instructions")
def test_means_are_taken_off_before_differences_are_multiplied() -> None:
    """What never changes divided by a deviation of nearly nothing, and times of day."""
    mean, factor = (-2023.0, -0.1, -1.6e9), (1e7, 1e7, 1e-4)
    graph = LayerGraph.of_chain((3,), Bias("mean"), Scale("factor"), Dense("k"))
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    fixed = {"mean": np.array(mean, np.float32), "factor": np.array(factor, np.float32)}
    x = np.tile(-fixed["mean"], (20, 1))
    x[:, 2] += (1e4 * rng.normal(size=20)).astype(np.float32)
    table = Posterior({"k": kernel}, {"k": np.zeros_like(kernel)})
    (found,) = outputs(CompiledGraph(graph, fixed), table, x, MEAN)
    shifted = (x.astype(float) + fixed["mean"]) * fixed["factor"]
    expected = (shifted @ kernel).T
    np.testing.assert_allclose(found, expected, 0, 1e-6 * np.abs(expected).max())


def test_examples_are_made_flat_in_one_branch_alone() -> None:
    shapes = {"k0": (72, 4), "k1": (18, 4)}
    nodes = [
        (Reshape((72,), 36), EXAMPLES), (Dense("k0"), 0),
        (Pooling("MaxPool", (2, 2), (2, 2)), EXAMPLES), (Reshape((18,), 9), 2), (Dense("k1"), 3),
        (Add(), 1, 4),
    ]  # fmt: skip
    graph = LayerGraph(tuple(LayerNode(one, inputs) for one, *inputs in nodes), (6, 6, 2))  # type: ignore[arg-type, misc]
    rng = np.random.default_rng(3)
    loc = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    table = Posterior(loc, {name: np.zeros_like(value) for name, value in loc.items()})
    x = rng.normal(size=(20, 6, 6, 2)).astype(np.float32)
    assert is_known(graph)
    (found,) = outputs(CompiledGraph(graph, {}), table, x, MEAN)
    of_places = x.reshape(20, 3, 2, 3, 2, 2).max(axis=(2, 4)).reshape(20, -1)
    expected = (x.reshape(20, -1) @ loc["k0"] + of_places @ loc["k1"]).T
    np.testing.assert_allclose(found, expected, 0, 1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("n_networks", "is_wide"), [(N_NETWORKS, False), (N_WIDE, True)])
def test_random_networks_against_their_graphs(
    monkeypatch: pytest.MonkeyPatch, n_networks: int, is_wide: bool
) -> None:
    n_known, with_squares = 0, Counter[bool]()
    for seed in range(n_networks):
        network = random_network(seed, is_wide=is_wide)
        layers, weights = network.graph.layers, network.weights
        if not isinstance(layers, LayerGraph) or not is_known(layers):
            continue
        n_known += 1
        evaluator = CompiledGraph(layers, weights.fixed)
        with GraphNetwork(network.graph, weights.fixed) as plain:
            for table in (weights.posterior, weights.pruned):
                expected = outputs(GraphEvaluator(plain), table, network.x, MEAN, 0)
                lists = evaluator.prune(table).lists  # type: ignore[attr-defined]
                with_squares[any(one.square_size for one in lists.values())] += 1
                for instructions in compiled.supported():
                    monkeypatch.setenv(compiled.VARIABLE, instructions)
                    found = outputs(evaluator, table, network.x, MEAN, 0)
                    error = np.abs(found - expected).max()
                    assert error <= 1e-5 * np.abs(expected).max(), (seed, network.operations)
    assert n_known > n_networks / 6
    if is_wide:
        assert min(with_squares.values()) > n_networks / 3
