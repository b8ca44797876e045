"""What pruning has made idle is left out exactly, whatever the network: random chains of layers.

The evaluator that ``auto`` takes is compared with the lifted graph, which leaves nothing out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bprune_hpc.evaluators.draw_noise import DrawNoise
from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.evaluators.selection import FORMS, choose_evaluator, make_evaluator
from bprune_hpc.graph.layer_search import find_layers
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.graph.nodes import parse_graph, parse_tensor
from bprune_hpc.posterior.draws import MEAN, replicates_of
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.tensorflow_import import import_tensorflow

N_NETWORKS = 500
LEAST_THAT_LEAVE_OUT = 300
ACTIVATIONS = (None, "relu", "relu6", "tanh", "sigmoid", "elu", "softplus")
UNITS = replicates_of(2, "antithetic")
SHARED = DrawNoise("shared", 0, seed=4)


@dataclass(frozen=True)
class Layer:
    """A convolution (with a window) or a product, in the order in which its parts are applied."""

    n_out: int
    window: int
    stride: int
    padding: str
    bias: str  # "none", "fixed" or "uncertain"
    activation: str | None
    pooling: str | None
    is_pooled_first: bool


def random_layers(rng: np.random.Generator) -> list[Layer]:
    n_convolutions = int(rng.choice([0, 1, 2, 3], p=[0.15, 0.15, 0.4, 0.3]))
    layers = []
    for k in range(n_convolutions + int(rng.integers(1, 3))):
        is_convolution = k < n_convolutions
        layers.append(
            Layer(
                n_out=int(rng.integers(1, 7)),
                window=int(rng.integers(1, 4)) if is_convolution else 0,
                stride=int(rng.integers(1, 3)),
                padding=str(rng.choice(["SAME", "VALID"], p=[0.7, 0.3])),
                bias=str(rng.choice(["none", "fixed", "uncertain"], p=[0.2, 0.5, 0.3])),
                activation=rng.choice(np.array(ACTIVATIONS, object)),
                pooling=rng.choice(np.array([None, "max_pool2d", "avg_pool2d"], object))
                if is_convolution
                else None,
                is_pooled_first=bool(rng.integers(2)),
            )
        )
    return layers


def build(layers: list[Layer]) -> tuple[LiftedGraph, dict[str, tuple[int, ...]]]:
    """The lifted graph of a network of 9 x 9 x 2 images, and the shapes of its weights."""
    tensorflow = import_tensorflow()
    shapes: dict[str, tuple[int, ...]] = {}
    with tensorflow.Graph().as_default() as graph:

        def weight(name: str, *shape: int) -> Any:
            shapes[name] = shape
            return tensorflow.compat.v1.placeholder(tensorflow.float32, shape, name=name)

        x = tensorflow.compat.v1.placeholder(tensorflow.float32, (None, 9, 9, 2), name="x")
        at = x
        for k, layer in enumerate(layers):
            n_in = at.shape[-1]
            if layer.window:
                kernel = weight(f"k{k}", layer.window, layer.window, n_in, layer.n_out)
                smallest = min(at.shape[1:3])
                padding = layer.padding if smallest >= layer.window else "SAME"
                at = tensorflow.nn.conv2d(at, kernel, layer.stride, padding)
            else:
                if len(at.shape) > 2:
                    at = tensorflow.reshape(at, (-1, int(np.prod(at.shape[1:]))))
                at = at @ weight(f"k{k}", at.shape[-1], layer.n_out)
            if layer.bias != "none":
                at = tensorflow.nn.bias_add(at, weight(f"b{k}", layer.n_out))
            parts = [layer.activation, layer.pooling]
            for part in reversed(parts) if layer.is_pooled_first else parts:
                if part in ACTIVATIONS and part is not None:
                    at = getattr(tensorflow.nn, part)(at)
                elif part is not None:
                    at = getattr(tensorflow.nn, part)(at, 2, 2, "SAME")
        output = tensorflow.identity(at, name="logits")
        graph_def = graph.as_graph_def()
    layers_found = find_layers(
        graph_def, parse_graph(graph_def), parse_tensor("x:0"), parse_tensor("logits:0"),
        {name: name for name in shapes}, {},
    )  # fmt: skip
    fixed = {f"b{k}" for k, layer in enumerate(layers) if layer.bias == "fixed"}
    graph = LiftedGraph(
        graph_def=graph_def.SerializeToString(), input_tensor="x:0", input_shape=(None, 9, 9, 2),
        input_dtype="float32", output_tensor="logits:0",
        output_shape=tuple(output.shape.as_list()),
        loc_tensors={name: f"{name}:0" for name in shapes if name not in fixed},
        fixed_tensors={name: f"{name}:0" for name in fixed}, layers=layers_found,
    )  # fmt: skip
    return graph, shapes


def random_table(
    rng: np.random.Generator, graph: LiftedGraph, shapes: dict[str, tuple[int, ...]]
) -> tuple[Posterior, Posterior, dict[str, np.ndarray]]:
    """A posterior, the same with filters, inputs, biases and single weights pruned, and the rest.

    Biases are of one sign, or of both.
    """
    sign = rng.choice([-1, 0, 1])

    def values(name: str) -> np.ndarray:
        drawn = rng.normal(size=shapes[name]).astype(np.float32)
        if name.startswith("b") and sign:
            return np.float32(sign) * np.abs(drawn)
        return drawn / np.float32(np.sqrt(np.prod(shapes[name][:-1])))

    loc = {name: values(name) for name in graph.loc_tensors}
    scale = {name: np.abs(values(name)) / 2 + np.float32(0.01) for name in loc}
    kept = {}
    for name, shape in shapes.items():
        mask = rng.random(shape) >= rng.choice([0, 0, 0.3, 0.9])
        mask &= rng.random(shape[-1]) >= rng.choice([0, 0.3, 0.7, 1])  # whole filters, or biases
        if len(shape) > 1:
            mask &= (rng.random(shape[-2]) >= rng.choice([0, 0, 0.4]))[:, None]  # whole inputs
        kept[name] = mask
    pruned = Posterior(
        {name: np.where(kept[name], value, np.float32(0)) for name, value in loc.items()},
        {name: np.where(kept[name], value, np.float32(0)) for name, value in scale.items()},
    )
    # A fixed bias is not pruned, but may well be exactly zero.
    fixed = {
        name: np.where(rng.random(shapes[name]) < 0.1, np.float32(0), values(name))
        for name in sorted(graph.fixed_tensors)
    }
    return Posterior(loc, scale), pruned, fixed


def outputs(evaluator: Evaluator, table: Posterior, x: np.ndarray) -> np.ndarray:
    noises = [
        noise for unit in (MEAN, 0) for noise in SHARED.of_replicate(table, unit, UNITS, "", 0)
    ]
    pruned = evaluator.prune(table)
    noise_batches = pruned.noise_batches(noises, len(x))
    return np.concatenate(list(pruned.sample(noises).outputs(x, noise_batches)))


@pytest.mark.slow
def test_random_networks_lose_nothing_that_counts() -> None:
    n_left_out = dict.fromkeys(FORMS, 0)
    worst = 0.0
    for seed in range(N_NETWORKS):
        rng = np.random.default_rng(seed)
        layers = random_layers(rng)
        graph, shapes = build(layers)
        whole, pruned, fixed = random_table(rng, graph, shapes)
        name = choose_evaluator("auto", graph)
        fast = make_evaluator(name, graph, fixed)
        plain = make_evaluator("graph", graph, fixed)
        x = rng.normal(size=(5, 9, 9, 2)).astype(np.float32)
        expected = outputs(plain, pruned, x)
        error = np.abs(outputs(fast, pruned, x) - expected).max()
        assert error <= 1e-5 * np.abs(expected).max(), (seed, name, layers)
        if error:
            worst = max(worst, float(error / np.abs(expected).max()))
        n_left_out[name] += fast.prune(pruned).cost < fast.prune(whole).cost
    print(f"networks of which something was left out: {n_left_out}; worst difference {worst:.1e}")
    assert sum(n_left_out.values()) >= LEAST_THAT_LEAVE_OUT
    assert n_left_out["graph"] == 0  # which would compare it with itself
