"""Chains of dense layers without their idle parts, against the same network written out plainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bprune_hpc import compiled
from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators import chain_numpy
from bprune_hpc.evaluators.chain import ChainNetwork
from bprune_hpc.evaluators.compaction import live_units
from bprune_hpc.evaluators.dense_ops import activate
from bprune_hpc.evaluators.im2col import Patches
from bprune_hpc.evaluators.interface import Noise
from bprune_hpc.evaluators.selection import choose_evaluator
from bprune_hpc.graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
    Convolution,
    Dense,
    Layer,
    LayerGraph,
    LayerNode,
    Operation,
    Pooling,
    Reshape,
    layers_of,
)
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.posterior.draws import MEAN, Draw, standard_normal
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.reference_chains import (
    AT_MEAN,
    REFERENCE,
    borders_of,
    convolution_of,
    dense_layer,
    plain_convolution,
    random_chain,
)

SIZES = (9, 7, 8, 6, 3)


class Example:
    """A random chain, a share of whose weights are exactly zero, and its plain evaluation."""

    def __init__(self, seed: int, pruned: float, activation: str | None, bias: str) -> None:
        rng = np.random.default_rng(seed)
        loc, scale, self.fixed = {}, {}, {}
        self.layers = []
        for layer, (n_in, n_out) in enumerate(pairwise(SIZES)):
            kept = rng.random((n_in, n_out)) >= pruned
            # Whole units, too.
            kept &= (rng.random((n_in, 1)) >= pruned / 2) & (rng.random((1, n_out)) >= pruned / 2)
            loc[f"k{layer}"] = np.where(kept, rng.normal(size=kept.shape), 0).astype(np.float32)
            scale[f"k{layer}"] = np.where(kept, rng.random(kept.shape), 0).astype(np.float32)
            values = rng.normal(size=n_out).astype(np.float32)
            if bias == "posterior":
                loc[f"b{layer}"] = values
                scale[f"b{layer}"] = rng.random(n_out).astype(np.float32)
            elif bias == "fixed":
                self.fixed[f"b{layer}"] = values
            last = layer == len(SIZES) - 2
            self.layers.append(
                dense_layer(
                    f"k{layer}",
                    f"b{layer}" if bias != "none" else None,
                    None if last else activation,
                )
            )
        if bias == "fixed":  # one kernel without a posterior
            self.fixed["k2"] = loc.pop("k2")
            del scale["k2"]
        self.posterior = Posterior(loc, scale)
        self.x = rng.normal(size=(11, SIZES[0])).astype(np.float32)

    @property
    def network(self) -> ChainNetwork:
        return ChainNetwork(self.layers, self.fixed)

    def outputs(self, noises: Sequence[Noise], noise_batches: Sequence[slice]) -> np.ndarray:
        sampled = self.network.prune(self.posterior).sample(noises)
        return np.concatenate(list(sampled.outputs(self.x, noise_batches)))

    def plainly(self, noise: Noise, draw: Draw) -> np.ndarray:
        weights = dict(self.fixed)
        for name, loc in self.posterior.loc.items():
            weights[name] = loc.astype(float)
            if noise.values is not None:
                weights[name] += draw.sign * (
                    self.posterior.scale[name].astype(float) * noise.values[name]
                )
        values = self.x.astype(float)
        for layer in self.layers:
            values = values @ weights[layer.kernel]
            if layer.bias is not None:
                values = values + weights[layer.bias]
            for function in layer.activations:
                values = REFERENCE[function](values)
        return values

    def pairs(self, n: int) -> list[Noise]:
        return [
            Noise(
                unit,
                (Draw(2 * unit, 1, unit), Draw(2 * unit + 1, -1, unit)),
                {
                    name: standard_normal(3, name, unit, loc.shape)
                    for name, loc in self.posterior.loc.items()
                },
            )
            for unit in range(n)
        ]


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("bias", ["none", "fixed", "posterior"])
@pytest.mark.parametrize("activation", [None, *sorted(REFERENCE)])
@pytest.mark.parametrize("pruned", [0.0, 0.5, 0.8, 1.0])
def test_leaving_out_idle_parts_is_exact(pruned: float, activation: str | None, bias: str) -> None:
    for seed in range(4):
        example = Example(seed, pruned, activation, bias)
        noises = [Noise(MEAN, (Draw(MEAN, 0, MEAN),), None), *example.pairs(3)]
        found = example.outputs(noises, [slice(0, 1), slice(1, 3), slice(3, 4)])
        plain = [example.plainly(noise, draw).T for noise in noises for draw in noise.draws]
        assert found.dtype == np.float32 and found.shape == (7, SIZES[-1], 11)
        largest = np.abs(plain).max()
        np.testing.assert_allclose(found, np.array(plain), rtol=0, atol=1e-6 * largest)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_a_draw_has_the_same_bits_whatever_is_evaluated_beside_it(activation: str) -> None:
    example = Example(5, 0.5, activation, "posterior")
    noises = example.pairs(6)
    together = example.outputs(noises, [slice(0, 6)])
    in_twos = example.outputs(noises, [slice(0, 2), slice(2, 4), slice(4, 6)])
    alone = np.concatenate([example.outputs([noise], [slice(0, 1)]) for noise in noises])
    assert together.tobytes() == in_twos.tobytes() == alone.tobytes()


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_nothing_is_left_of_numbers_that_were_not_finite(activation: str) -> None:
    example = Example(6, 0.3, activation, "posterior")
    network, noises = example.network, example.pairs(3)
    clean = example.outputs(noises, [slice(0, 3)])
    for fraction in (0.0, 0.2):  # the arrays that are used again have other sizes
        other = Example(6, fraction, activation, "posterior")
        sampled = network.prune(other.posterior).sample(noises)
        with np.errstate(invalid="ignore"):
            outputs = list(sampled.outputs(np.full_like(example.x, np.nan), [slice(0, 3)]))
        assert np.isnan(outputs).all()
    sampled = network.prune(example.posterior).sample(noises)
    again = np.concatenate(list(sampled.outputs(example.x, [slice(0, 3)])))
    assert again.tobytes() == clean.tobytes()


@pytest.mark.usefixtures("instructions")
def test_without_pairs() -> None:
    example = Example(6, 0.5, "Relu", "fixed")
    pairs = example.pairs(3)
    noises = [Noise(pair.replicate, pair.draws[:1], pair.values) for pair in pairs]
    found = example.outputs(noises, [slice(0, 3)])
    assert found.tobytes() == example.outputs(pairs, [slice(0, 3)])[::2].tobytes()


def test_live_units_by_hand() -> None:
    # Input 0 feeds unit 0, which feeds the output; unit 1 is fed by nothing and feeds the output;
    # unit 2 is fed and feeds nothing; input 1 feeds unit 2 alone.
    first = np.array([[True, False, False], [False, False, True]])
    second = np.array([[True], [True], [False]])
    inputs, hidden, outputs = live_units([first, second])
    assert inputs.varying.tolist() == [0] and inputs.constant.tolist() == []
    assert hidden.varying.tolist() == [0] and hidden.constant.tolist() == [1]
    assert outputs.varying.tolist() == [0] and outputs.constant.tolist() == []


def test_a_unit_fed_by_constants_alone_is_constant() -> None:
    zero = np.zeros((2, 2), bool)
    inputs, first, second, outputs = live_units([zero, ~zero, ~zero])
    assert inputs.varying.size == 0
    assert first.constant.tolist() == second.constant.tolist() == [0, 1]
    assert outputs.varying.tolist() == [0, 1]


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_activations_at_extremes(name: str) -> None:
    values = np.array([-1e30, -200, -1, -1e-30, 0, 1e-30, 1, 5.9, 6.1, 80], np.float32)
    expected = REFERENCE[name](values.astype(float))
    with np.errstate(all="raise", under="ignore"):
        activate([name], values)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-30)


def test_layers_of_a_chain() -> None:
    chain = Reshape((12,)), Dense("k0"), Bias("b0"), Activation("Relu"), Dense("k1")
    assert layers_of(chain) == (dense_layer("k0", "b0", "Relu"), dense_layer("k1", None, None))
    assert layers_of((Bias("b0"),)) == layers_of(()) == ()


SEEN = Convolution("conv", (3, 3), (8, 6, 1), borders=((1, 1), (1, 1)))
FLAT = Reshape((96,), 48)
POOLING = Pooling("MaxPool", (2, 2), (2, 2))


@pytest.mark.parametrize(
    ("operations", "evaluator"),
    [
        ((Reshape((12,)), Dense("k"), Bias("b"), Activation("Relu"), Dense("h")), "chain"),
        ((Dense("k"), Dense("k")), "chain"),
        ((SEEN, Bias("b"), POOLING, Activation("Elu"), FLAT, Dense("k")), "chain"),
        ((SEEN, Activation("Elu"), POOLING, FLAT, Dense("k")), "chain"),
        ((SEEN, FLAT, Dense("k"), Bias("b")), "chain"),
        ((SEEN, FLAT, Reshape((96,)), Dense("k")), "layers"),
        ((SEEN, POOLING, Bias("b"), FLAT, Dense("k")), "layers"),
        ((SEEN, Activation("Elu"), POOLING, Activation("Elu"), FLAT, Dense("k")), "layers"),
        ((SEEN, replace(POOLING, function="AvgPool"), FLAT, Dense("k")), "layers"),
        ((SEEN, replace(POOLING, strides=(1, 1)), FLAT, Dense("k")), "layers"),
        ((SEEN, replace(POOLING, window=(3, 3), strides=(3, 3)), FLAT, Dense("k")), "layers"),
        ((POOLING, replace(SEEN, image=(4, 3, 1)), Reshape((24,), 12), Dense("k")), "layers"),
        ((SEEN, FLAT), "layers"),
        ((Dense("k"), Activation("Relu"), Activation("Tanh"), Dense("h")), "layers"),
        ((SEEN, FLAT, Bias("b"), Dense("k")), "graph"),
        ((Dense("k"), Bias("b"), Bias("c")), "layers"),
        ((Dense("k"), Activation("Relu"), Bias("b")), "layers"),
        ((Activation("Relu"), Dense("k")), "layers"),
        ((), "graph"),
    ],
)
def test_which_evaluator_takes_a_chain(operations: tuple[Operation, ...], evaluator: str) -> None:
    graph = LiftedGraph(b"", "", None, "float32", "", None, {}, {})
    has_image = any(isinstance(one, Convolution) for one in operations)
    shape = SEEN.image if has_image else (12,)
    graph = replace(graph, layers=LayerGraph.of_chain(shape, *operations))
    assert choose_evaluator("auto", graph) == evaluator


def test_a_network_with_branches_is_no_chain() -> None:
    both = LayerNode(Dense("k"), (EXAMPLES,)), LayerNode(Dense("h"), (EXAMPLES,))
    layers = LayerGraph((*both, LayerNode(Add(), (0, 1))), (12,))
    assert layers.chain() is None
    graph = LiftedGraph(b"", "", None, "float32", "", None, {}, {}, layers=layers)
    assert choose_evaluator("auto", graph) == "layers"
    with pytest.raises(ConfigError, match="--evaluator: chain is for .* is another; leave"):
        choose_evaluator("chain", graph)


IMAGE, N_FILTERS = (8, 6, 2), 5


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("pruned", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("bias", ["none", "fixed", "posterior"])
@pytest.mark.parametrize("activation", ["Elu", "Relu"])
@pytest.mark.parametrize(
    ("strides", "padding", "window", "pool"),
    [
        ((1, 1), "SAME", (3, 5), (2, 2)),
        ((1, 1), "VALID", (3, 3), (2, 4)),
        ((2, 1), "SAME", (4, 2), (1, 1)),
        ((2, 2), "VALID", (2, 2), (2, 3)),
    ],
)
def test_a_convolution_before_dense_layers(
    strides: tuple[int, int], padding: str, window: tuple[int, int], pool: tuple[int, int],
    activation: str, bias: str, pruned: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(7)
    product = Convolution(
        "conv", window, IMAGE, strides, borders_of(padding, IMAGE, window, strides)
    )
    n_positions = Patches(product, pool).n_positions
    n_units = N_FILTERS * n_positions
    layer = Layer(
        product,
        (
            *([Bias("bias")] if bias != "none" else []),
            Activation(activation),
            *([Pooling("MaxPool", pool, pool)] if pool != (1, 1) else []),
            Reshape((n_units,), n_positions),
        ),
    )
    shapes = {"conv": (*window, IMAGE[2], N_FILTERS), "k0": (n_units, 4), "k1": (4, 3)}
    loc = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    scale = {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}
    gone = rng.random(N_FILTERS) < pruned
    for table in (loc, scale):
        table["conv"][..., gone] = 0
        table["k0"][: n_units // 3] *= pruned < 1
    fixed = {}
    if bias == "posterior":
        loc["bias"], scale["bias"] = rng.normal(size=(2, N_FILTERS)).astype(np.float32)
        scale["bias"] = np.abs(scale["bias"])
    elif bias == "fixed":
        fixed["bias"] = rng.normal(size=N_FILTERS).astype(np.float32)
    posterior = Posterior(loc, scale)
    layers = (layer, dense_layer("k0", None, "Relu"), dense_layer("k1", None, None))
    network = ChainNetwork(layers, fixed)
    x = rng.normal(size=(7, *IMAGE)).astype(np.float32)
    values = {name: standard_normal(1, name, 0, value.shape) for name, value in loc.items()}
    noises = [
        Noise(MEAN, (Draw(MEAN, 0, MEAN),), None),
        Noise(0, (Draw(0, 1, 0), Draw(1, -1, 0)), values),
    ]
    sampled = network.prune(posterior).sample(noises)
    found = np.concatenate(list(sampled.outputs(x, [slice(0, 1), slice(1, 2)])))
    plainly = []
    for sign in (0, 1, -1):
        w = {name: loc[name].astype(float) + sign * (scale[name] * values[name]) for name in loc}
        w |= fixed
        seen = plain_convolution(x.astype(float), w["conv"], strides, product.borders)
        seen = REFERENCE[activation](seen + w.get("bias", 0))
        rows, columns = seen.shape[1] // pool[0], seen.shape[2] // pool[1]
        tiles = seen.reshape(len(x), rows, pool[0], columns, pool[1], N_FILTERS)
        plain = tiles.max(axis=(2, 4)).reshape(len(x), -1)
        plainly.append((np.maximum(plain @ w["k0"], 0) @ w["k1"]).T)
    largest = np.abs(plainly).max()
    np.testing.assert_allclose(found, np.array(plainly), rtol=0, atol=1e-6 * largest)


def test_images_in_chunks_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy makes a convolution's products of some images at a time, however these are divided."""
    convolution = convolution_of((6, 4, 2), (3, 2), pool=(2, 2))
    chain = random_chain(9, 3, kept=0.7, convolution=convolution, n_filters=5)
    noises = [*chain.noises(3), AT_MEAN, *chain.noises(2, signs=(1,))]
    monkeypatch.setenv(compiled.VARIABLE, compiled.NONE)
    of_image = 4 * 6 * 4 * 5
    plain = chain.plainly(noises)
    for n_chunk, n_block in ((1000, 1000), (20, 3), (7, 7), (1, 1), (0, 0)):
        monkeypatch.setattr(chain_numpy, "_CHUNK_BYTES", n_chunk * of_image)
        monkeypatch.setattr(chain_numpy, "_BLOCK_BYTES", n_block * of_image)
        for noise_batches in ([slice(None)], [slice(0, 2), slice(2, 3), slice(3, None)]):
            found = chain.outputs(noises, noise_batches)
            assert np.abs(found - plain).max() <= 1e-6 * np.abs(plain).max()


@pytest.mark.usefixtures("instructions")
def test_long_sums_round_little() -> None:
    rng = np.random.default_rng(8)
    n = 20_000
    kernel = rng.normal(size=(n, 2)).astype(np.float32)
    layers = (dense_layer("k", None, "Relu"), dense_layer("h", None, None))
    first = np.eye(3, n, dtype=np.float32) + rng.random((3, n)).astype(np.float32)
    posterior = Posterior({"h": kernel}, {"h": np.zeros_like(kernel)})
    network = ChainNetwork(layers, {"k": first})
    x = rng.random((5, 3)).astype(np.float32)
    sampled = network.prune(posterior).sample([Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)])
    (found,) = sampled.outputs(x, [slice(0, 1)])
    units = (x.astype(float) @ first).astype(np.float32).astype(float)
    terms = np.abs(units) @ np.abs(kernel).astype(float)
    error = np.abs(found[0].T - units @ kernel)
    assert (error <= 4e-7 * terms).all()


def at_mean(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Outputs of a ReLU network, kernels "k0" and so on, biases "b0", at its posterior mean."""
    last = sum(name.startswith("k") for name in weights) - 1
    layers = tuple(
        dense_layer(
            f"k{layer}", f"b{layer}" if f"b{layer}" in weights else None,
            "Relu" if layer < last else None,
        )
        for layer in range(last + 1)
    )  # fmt: skip
    posterior = Posterior(weights, {k: np.full_like(v, 0.01) for k, v in weights.items()})
    network = ChainNetwork(layers, {})
    sampled = network.prune(posterior).sample([Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)])
    (found,) = sampled.outputs(x, [slice(0, 1)])
    return found[0].T


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize(
    ("n_hidden", "n_out"), [(256, 10), (319, 10), (512, 10), (1200, 10), (2000, 6), (4000, 3)]
)
def test_few_outputs_of_many_units_round_little(n_hidden: int, n_out: int) -> None:
    rng = np.random.default_rng(n_hidden)
    sizes = (64, n_hidden, n_out)
    weights = {
        f"k{layer}": rng.normal(0, n_in**-0.5, (n_in, n_after)).astype(np.float32)
        for layer, (n_in, n_after) in enumerate(pairwise(sizes))
    }
    weights["b0"] = rng.normal(size=n_hidden).astype(np.float32)
    x = rng.random((500, 64)).astype(np.float32)
    hidden = np.maximum(x.astype(float) @ weights["k0"] + weights["b0"], 0)
    plain = hidden @ weights["k1"].astype(float)
    assert np.abs(at_mean(weights, x) - plain).max() <= 1e-6 * np.abs(plain).max()


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("n_units", [7, 8])
def test_a_unit_that_overflows_spoils_no_bias(n_units: int) -> None:
    weights = {
        "k0": np.full((2, n_units), 3e38), "k1": -np.ones((n_units, n_units)),
        "b1": np.ones(n_units), "k2": np.ones((n_units, 2)), "b2": np.array([3.0, -4.0]),
    }  # fmt: skip
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        found = at_mean(weights, np.full((5, 2), 10, np.float32))
    assert found.tolist() == 5 * [[3, -4]]
