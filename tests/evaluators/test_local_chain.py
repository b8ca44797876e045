"""Dense layers with noise of each example's own, against their definition written out plainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc import compiled, data
from bprune_hpc.evaluators.chain import ChainNetwork
from bprune_hpc.evaluators.interface import Noise
from bprune_hpc.evaluators.local_chain import LocalChain
from bprune_hpc.evaluators.local_compiled import CompiledLocal
from bprune_hpc.graph.layer_graph import LayerGraph, layers_of
from bprune_hpc.posterior.draws import Draw, ExampleNormals, replicates_of, standard_normal
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import PruningRule, mask_at_threshold, pruning_masks
from tests.helpers.reference_chains import AT_MEAN, REFERENCE, PlainChain, random_chain

SIZES = (30, 21, 70, 9, 3)


def of_examples(n: int, signs: Sequence[int] = (1, -1), dataset: str = "test set") -> list[Noise]:
    return [
        Noise(
            pair,
            tuple(Draw(len(signs) * pair + at, sign, pair) for at, sign in enumerate(signs)),
            None,
            ExampleNormals(5, dataset, pair),
        )
        for pair in range(n)
    ]


def outputs(
    chain: PlainChain, noises: Sequence[Noise], first: int = 0, n_threads: int = 1
) -> np.ndarray:
    pruned = LocalChain(chain.layers, chain.fixed, n_threads).prune(chain.posterior)
    noise_batches = pruned.noise_batches(noises, len(chain.x))
    of_batches = pruned.sample(noises).outputs(chain.x, noise_batches, first)
    return np.concatenate([one.copy() for one in of_batches])


def plainly(chain: PlainChain, noises: Sequence[Noise], first: int = 0) -> np.ndarray:
    """Each unit drawn from the Normal that the weights before it give, in double precision."""
    posterior, out = chain.posterior, []
    for noise in noises:
        for draw in noise.draws:
            values = chain.x.reshape(len(chain.x), -1).astype(float)
            for layer in chain.layers:
                mean, variance, tensor = 0.0, 0.0, None
                for name, x in ((layer.kernel, values), (layer.bias, np.ones((len(values), 1)))):
                    if name in posterior.loc:
                        loc = np.atleast_2d(posterior.loc[name].astype(float))
                        scale = np.atleast_2d(posterior.scale[name].astype(float))
                        mean, variance = mean + x @ loc, variance + x**2 @ scale**2
                        tensor = tensor or name
                    elif name is not None:
                        mean = mean + x @ np.atleast_2d(chain.fixed[name].astype(float))
                values = mean
                if noise.of_examples is not None and tensor is not None:
                    units = np.arange(mean.shape[1], dtype=np.int32)
                    examples = range(first, first + len(values))
                    z = noise.of_examples.of(tensor, examples, units).T
                    values = mean + draw.sign * np.sqrt(variance) * z
                for function in layer.activations:
                    values = REFERENCE[function](values)
            out.append(values.T)
    return np.array(out)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("bias", ["posterior", "fixed", "none"])
@pytest.mark.parametrize(
    ("kept", "activation", "fixed"),
    [(1.0, "Relu", ()), (0.3, "Relu6", ("k1",)), (0.03, "Relu", ()), (0.3, "Tanh", ("k0",)),
     (0.03, "Sigmoid", ()), (0.0, "Relu", ())],
)  # fmt: skip
def test_units_are_those_of_the_definition(
    kept: float, activation: str, fixed: tuple[str, ...], bias: str
) -> None:
    chain = random_chain(
        *SIZES, kept=kept, activation=activation, bias=bias, fixed=fixed, n_examples=150
    )
    noises = [AT_MEAN, *of_examples(3)]
    wanted = plainly(chain, noises, first=1000)
    found = outputs(chain, noises, first=1000)
    assert found.shape == wanted.shape == (7, 3, 150) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * max(1e-3, np.abs(wanted).max()))


@pytest.mark.usefixtures("instructions")
def test_what_pruning_leaves_as_noise_counts() -> None:
    """BPrune's defect: a pruned weight has mean 0 and deviation ln 2."""
    chain = random_chain(*SIZES)
    rule = PruningRule("snr", pruned_scale=float(np.log(2)))
    (mask,) = pruning_masks(chain.posterior, "fraction", [0.7], rule)
    chain = replace(chain, posterior=mask.apply(chain.posterior))
    noises = of_examples(2)
    wanted = plainly(chain, noises)
    np.testing.assert_allclose(
        outputs(chain, noises), wanted, rtol=0, atol=3e-6 * np.abs(wanted).max()
    )


@pytest.mark.usefixtures("instructions")
def test_an_example_has_its_bits_whatever_is_beside_it() -> None:
    chain = random_chain(*SIZES, kept=0.4, n_examples=200)
    whole = outputs(chain, [AT_MEAN, *of_examples(8)], first=64)
    np.testing.assert_array_equal(outputs(chain, of_examples(8)[3:4], first=64), whole[7:9])
    # BLAS rounds a smaller batch differently, and some do with other threads.
    if compiled.instructions() != compiled.NONE:
        threaded = outputs(chain, of_examples(8), first=64, n_threads=3)
        np.testing.assert_array_equal(threaded, whole[1:])
        part = replace(chain, x=chain.x[70:90])
        np.testing.assert_array_equal(outputs(part, of_examples(8), first=134), whole[1:, :, 70:90])
    other = outputs(chain, of_examples(8, dataset="out of distribution"), first=64)
    assert (other != whole[1:]).mean() > 0.99


@pytest.mark.usefixtures("instructions")
def test_noise_is_common_to_thresholds_and_opposite_in_a_pair() -> None:
    """A layer alone: what is left of a unit moves by the same normal, whatever is pruned."""
    chain = random_chain(6, 9)
    normals = {}
    for threshold in (0.0, 2.0, 4.0):
        mask = mask_at_threshold(chain.posterior, threshold)
        pruned = replace(chain, posterior=mask.apply(chain.posterior))
        at_mean, plus, minus = outputs(pruned, [AT_MEAN, *of_examples(1)])
        np.testing.assert_allclose(plus - at_mean, at_mean - minus, rtol=0, atol=1e-5)
        scale = {name: one.astype(float) for name, one in pruned.posterior.scale.items()}
        deviation = np.sqrt(chain.x.astype(float) ** 2 @ scale["k0"] ** 2 + scale["b0"] ** 2).T
        normals[threshold] = np.divide(
            plus - at_mean, deviation, where=deviation > 0.05, out=np.full_like(deviation, np.nan)
        )
    for threshold in (2.0, 4.0):
        both = np.isfinite(normals[threshold]) & np.isfinite(normals[0.0])
        assert both.mean() > 0.1
        np.testing.assert_allclose(normals[threshold][both], normals[0.0][both], atol=1e-3)


@pytest.mark.compiled
def test_the_compiled_module_runs_what_is_small_or_sparse() -> None:
    for sizes, kept, is_compiled in (
        (SIZES, 1.0, True), ((8, 700, 700, 3), 1.0, False), ((8, 700, 700, 3), 0.2, True)
    ):  # fmt: skip
        chain = random_chain(*sizes, kept=kept, n_examples=3)
        pruned = LocalChain(chain.layers, chain.fixed).prune(chain.posterior)
        assert isinstance(pruned, CompiledLocal) == is_compiled
        assert pruned.cost >= 1


def test_large_networks_are_run_by_numpy_as_by_the_compiled_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = random_chain(2100, 12, 3, kept=0.6, n_examples=70)
    noises = of_examples(2)
    mine = outputs(chain, noises)
    monkeypatch.setenv(compiled.VARIABLE, compiled.NONE)
    of_numpy = outputs(chain, noises)
    np.testing.assert_allclose(mine, of_numpy, rtol=0, atol=3e-6 * np.abs(of_numpy).max())


class _Sums:
    """Mean over pairs of draws, and its standard error, of what each draw gives an example."""

    def __init__(self) -> None:
        self.n, self.first, self.second = 0, 0.0, 0.0

    def add(self, outputs: np.ndarray) -> None:
        exponentials = np.exp((outputs - outputs.max(axis=1, keepdims=True)).astype(float))
        p = exponentials / exponentials.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1, keepdims=True)
        both = np.concatenate([p, entropy], axis=1)
        pairs = both.reshape(-1, 2, *both.shape[1:]).mean(axis=1)
        self.n += len(pairs)
        self.first = self.first + pairs.sum(axis=0)
        self.second = self.second + (pairs**2).sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.first / self.n)

    @property
    def variance(self) -> np.ndarray:
        return np.asarray((self.second / self.n - self.mean**2) / self.n)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_each_examples_predictive_is_that_of_20000_shared_draws(threshold: float) -> None:
    net, n_draws = bprune_hpc.load("embedded:digits_fc"), 20_000
    graph = net._network.lifted.layers
    assert isinstance(graph, LayerGraph)
    layers, x = layers_of(graph.chain() or ()), data.load("digits", split="test").x[:120]
    x = x.reshape(len(x), -1).astype(np.float32)
    table = mask_at_threshold(net.posterior, threshold).apply(net.posterior)
    table = Posterior(dict(table.loc), dict(table.scale))
    shared, own = _Sums(), _Sums()
    one, other = (kind(layers, net.fixed).prune(table) for kind in (ChainNetwork, LocalChain))
    replicates = replicates_of(n_draws, "antithetic")
    for start in range(0, len(replicates), 20):
        some = range(start, start + 20)
        of_weights = [
            Noise(
                pair,
                replicates[pair],
                {n: standard_normal(1, n, pair, s.shape) for n, s in table.scale.items()},
            )
            for pair in some
        ]
        of_units = [
            Noise(pair, replicates[pair], None, ExampleNormals(1, "test set", pair))
            for pair in some
        ]
        for sums, pruned, noises in ((shared, one, of_weights), (own, other, of_units)):
            for outputs_of in pruned.sample(noises).outputs(
                x, pruned.noise_batches(noises, len(x))
            ):
                sums.add(outputs_of)
    is_seen = shared.mean > 0.02
    z = ((own.mean - shared.mean) / np.sqrt(own.variance + shared.variance))[is_seen]
    assert is_seen.sum() > 200
    # Bonferroni at 0.1 % of all together; and together they are as standard normals are.
    assert np.abs(z).max() < 5.0
    assert 0.85 < z.std() < 1.15 and abs(z.mean()) < 0.25
    # Were the variance one half, or the noise the mean's alone, most would be far away.
    assert np.median(np.sqrt(own.variance[is_seen]) / shared.mean[is_seen]) < 0.02
