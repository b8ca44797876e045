"""Compiled chains against the same network written out plainly; bits; numbers not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bprune_hpc import compiled
from bprune_hpc.evaluators.chain_compiled import CompiledChain, is_faster
from bprune_hpc.evaluators.compaction import CompactLayer, GaussianSlice
from bprune_hpc.evaluators.interface import Noise
from tests.helpers.reference_chains import AT_MEAN, PlainChain, convolution_of, random_chain

pytestmark = pytest.mark.usefixtures("compiled_instructions")

SHAPES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "small": ((9, 7, 8, 6, 3), {"kept": 0.5}),
    "smallest": ((1, 1), {}),
    "whole blocks": ((256, 512, 256, 4), {"kept": 0.2}),
    "one more than blocks": ((257, 513, 257, 5), {"kept": 0.2}),
    "several blocks, dense": ((300, 270, 530, 10), {}),
    "several blocks, sparse": ((784, 600, 530, 10), {"kept": 0.03}),
    "one output of many terms": ((64, 1100, 1), {}),
    "many terms": ((1500, 30, 6), {"last": "Relu"}),
    "hundreds of outputs": ((20, 30, 333), {"activation": "Relu6"}),
    "many layers": ((9, 8, 30, 70, 65, 66, 33, 2), {}),
    "one layer": ((40, 11), {"kept": 0.5}),
    "one layer of many terms": ((4000, 6), {"last": "Relu"}),
    "one layer of many outputs": ((30, 777), {"kept": 0.6}),
    "no activation": ((30, 20, 9), {"activation": None}),
    "no biases": ((300, 40, 5), {"bias": "none", "kept": 0.4}),
    "fixed biases": ((300, 40, 5), {"bias": "fixed", "kept": 0.4}),
    "fixed kernels": ((30, 20, 18, 5), {"fixed": ["k0", "k2"], "kept": 0.4}),
    "a fixed kernel": ((30, 270, 18, 5), {"fixed": ["k1"]}),
    "constants": ((40, 60, 50, 5), {"kept": 0.03}),
    "nothing left": ((40, 60, 50, 5), {"kept": 0.0}),
    "nothing left of one layer": ((300, 3), {"kept": 0.0}),
    "nothing left, no biases": ((40, 60, 5), {"kept": 0.0, "bias": "none"}),
}  # fmt: skip


def draws_of_all_kinds(chain: PlainChain, n_pairs: int = 5) -> list[Noise]:
    """Pairs, single draws of both signs, and the posterior mean in between."""
    pairs = chain.noises(n_pairs + 3)
    plus, minus, swapped = (
        replace(pair, draws=draws)
        for pair, draws in zip(
            pairs[n_pairs:],
            [pairs[-3].draws[:1], pairs[-2].draws[1:], pairs[-1].draws[::-1]],
            strict=True,
        )
    )
    return [pairs[0], plus, AT_MEAN, minus, *pairs[1:n_pairs], swapped]


def assert_as_plainly(chain: PlainChain, noises: Sequence[Noise], found: np.ndarray) -> None:
    plain = chain.plainly(noises)
    assert found.dtype == np.float32 and found.shape == plain.shape
    assert np.abs(found - plain).max() <= 1e-6 * np.abs(plain).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_are_those_of_the_network_written_out(shape: str) -> None:
    sizes, wishes = SHAPES[shape]
    chain = random_chain(*sizes, **wishes)
    noises = draws_of_all_kinds(chain)
    assert isinstance(chain.pruned(), CompiledChain)
    assert_as_plainly(chain, noises, chain.outputs(noises, [slice(0, 3), slice(3, None)]))


def test_values_are_cut_off_at_both_ends() -> None:
    chain = random_chain(20, 30, 9, activation="Relu6", last="Relu6")
    noises = draws_of_all_kinds(chain)
    found, plain = chain.outputs(noises), chain.plainly(noises)
    for end in (0, 6):
        assert ((found == end) == (plain == end)).all() and (found == end).any()
    assert ((found > 0) & (found < 6)).any()


@pytest.mark.parametrize("n_examples", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_batches_of_any_size(n_examples: int, n_threads: int) -> None:
    convolution = convolution_of((5, 4, 2), (2, 3), pool=(1, 2))
    for chain in (
        random_chain(30, 20, 7, kept=0.5),
        random_chain(20, 7, kept=0.5, convolution=convolution, n_filters=3),
    ):
        some = chain.with_examples(n_examples)
        noises = draws_of_all_kinds(some)
        assert_as_plainly(some, noises, some.outputs(noises, n_threads=n_threads))


@pytest.mark.parametrize("n_terms", [1000, 2000, 4000])
def test_long_sums_round_little(n_terms: int) -> None:
    wide = random_chain(n_terms, 5, 3, seed=n_terms)
    within = random_chain(32, n_terms, 3, seed=n_terms)
    for chain in (wide, within):
        noises = draws_of_all_kinds(chain, 2)
        assert_as_plainly(chain, noises, chain.outputs(noises))


def test_long_sums_of_positive_terms_round_little() -> None:
    # As they grow, so does what is rounded off; and nothing cancels.
    n_terms = 4000
    image = convolution_of((1, n_terms // 2, 2), (1, n_terms // 2), padding="VALID")
    for chain in (
        random_chain(n_terms, 9, n_examples=64, bias="none"),
        random_chain(1, convolution=image, n_filters=9, n_examples=64, bias="none"),
    ):
        loc, scale = chain.posterior.loc, chain.posterior.scale
        name = "conv" if "conv" in loc else "k0"
        loc[name][:] = 0
        scale[name] += np.float32(0.1)
        if name == "conv":
            loc["k0"][:], scale["k0"][:] = np.eye(9, 1), 0
        chain = replace(chain, x=np.abs(chain.x))
        noises = chain.noises(3, signs=(1,))
        for noise in noises:
            assert noise.values is not None
            np.abs(noise.values[name], out=noise.values[name])
        apart = np.abs(chain.outputs(noises) / chain.plainly(noises) - 1).max()
        assert apart < 5e-7


@pytest.mark.parametrize("n_out", [31, 64, 66])
@pytest.mark.parametrize(("kept", "width"), [(1.0, 4), (0.7, 4), (0.3, 1), (0.02, 1)])
def test_units_share_inputs_where_that_takes_less_time(kept: float, width: int, n_out: int) -> None:
    chain = random_chain(600, 301, n_out, 3, kept=kept)
    assert widths(chain)[:2] == [width, width]
    noises = draws_of_all_kinds(chain, 2)
    assert_as_plainly(chain, noises, chain.outputs(noises))


def test_few_weights_in_the_same_places_are_shared() -> None:
    chain = random_chain(600, 301, 40, 3)
    generator = np.random.default_rng(0)
    mask = np.repeat(generator.random((301, 10)) < 0.1, 4, axis=1)
    for table in (chain.posterior.loc, chain.posterior.scale):
        table["k0"] *= generator.random(table["k0"].shape) < 0.05
        table["k1"] *= mask
    assert widths(chain)[:2] == [1, 4]
    noises = draws_of_all_kinds(chain, 2)
    assert_as_plainly(chain, noises, chain.outputs(noises))


def widths(chain: PlainChain) -> list[int]:
    """How many units of each layer share their inputs."""
    pruned = chain.pruned()
    assert isinstance(pruned, CompiledChain) and pruned.mean is not None
    return [layer.width for layer in (pruned.mean, *pruned.dense)]


CONVOLUTIONS = {
    "as large": convolution_of((16, 12, 3), (3, 5)),
    "without its edge": convolution_of((11, 9, 2), (4, 3), padding="VALID", pool=(2, 1)),
    "every other row": convolution_of((9, 8, 3), (4, 2), strides=(2, 1)),
    "with steps, in twos": convolution_of((12, 16, 1), (3, 3), strides=(3, 2), pool=(2, 2)),
    "with steps, without its edge": convolution_of(
        (17, 13, 2), (2, 2), strides=(2, 2), padding="VALID", pool=(2, 3)
    ),
    "in twos": convolution_of((16, 12, 4), (5, 5), pool=(2, 2)),
    "up to six": convolution_of((8, 6, 3), (3, 3), pool=(2, 3), activation="Relu6"),
    "without activation": convolution_of((8, 6, 3), (3, 3), pool=(2, 2), activation=None),
    "many channels": convolution_of((4, 4, 40), (3, 3), padding="VALID"),
    "one place of all rows": convolution_of((3, 2, 1), (1, 1), pool=(3, 1)),
    "one place of all": convolution_of((4, 6, 2), (2, 3), pool=(4, 6)),
}


@pytest.mark.parametrize("bias", ["none", "fixed", "posterior"])
@pytest.mark.parametrize("kept", [1.0, 0.3, 0.01])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_before_dense_layers(name: str, kept: float, bias: str) -> None:
    chain = random_chain(
        9, 3, kept=kept, bias=bias, convolution=CONVOLUTIONS[name], n_filters=7, seed=len(name)
    )
    noises = draws_of_all_kinds(chain, 4)
    assert_as_plainly(chain, noises, chain.outputs(noises, [slice(0, 4), slice(4, None)]))


def test_filters_that_see_nothing_are_constants() -> None:
    for n_gone in (2, 5):
        chain = random_chain(6, 3, convolution=CONVOLUTIONS["in twos"], n_filters=5, kept=0.5)
        for table in (chain.posterior.loc, chain.posterior.scale):
            table["conv"][..., :n_gone] = 0
        noises = draws_of_all_kinds(chain)
        assert_as_plainly(chain, noises, chain.outputs(noises))


CHAINS = {
    "dense": random_chain(300, 270, 530, 10, n_examples=200),
    "sparse": random_chain(300, 270, 70, 7, kept=0.05, n_examples=200),
    "one layer": random_chain(300, 13, kept=0.4, n_examples=200),
    "convolution": random_chain(
        9, 3, kept=0.5, convolution=CONVOLUTIONS["in twos"], n_filters=7, n_examples=130
    ),
    "convolution without pooling": random_chain(
        9, 3, convolution=CONVOLUTIONS["every other row"], n_filters=7, n_examples=130
    ),
}
of_all_chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def by_draw(chain: PlainChain, noises: Sequence[Noise], found: np.ndarray) -> dict[int, bytes]:
    draws = [draw.index for noise in noises for draw in noise.draws]
    return {index: out.tobytes() for index, out in zip(draws, found, strict=True)}


@of_all_chains
def test_a_draw_has_the_same_bits_whichever_draws_are_beside_it(chain: PlainChain) -> None:
    chain = replace(chain, x=chain.x[:70])
    noises = draws_of_all_kinds(chain, 7)
    whole = by_draw(chain, noises, chain.outputs(noises))
    assert len(set(whole.values())) == len(whole)
    for noise_batches in (
        [slice(at, at + 1) for at in range(len(noises))],
        [slice(0, 3), slice(3, 9), slice(9, None)],  # not those that are made together
        [slice(0, 2), slice(2, 3), slice(3, None)],
    ):
        assert by_draw(chain, noises, chain.outputs(noises, noise_batches)) == whole
    for some in (
        *(noises[:n] for n in range(1, len(noises))),
        [noises[3]],
        noises[::-1],
        noises[1:7:2],
        [AT_MEAN],
        [*noises[4:6], AT_MEAN],
    ):
        found = by_draw(chain, some, chain.outputs(some))
        assert found == {index: whole[index] for index in found}
    for at in (0, 1):  # one of each pair
        pairs = [noise for noise in noises if len(noise.draws) == 2]
        halves = [replace(pair, draws=pair.draws[at : at + 1]) for pair in pairs]
        found = by_draw(chain, halves, chain.outputs(halves))
        assert found == {index: whole[index] for index in found}


@of_all_chains
def test_an_example_has_the_same_bits_wherever_it_stands(chain: PlainChain) -> None:
    noises = draws_of_all_kinds(chain, 2)
    whole, n = chain.outputs(noises), len(chain.x)
    backwards = chain.outputs(noises, x=chain.x[::-1])
    assert backwards[:, :, ::-1].tobytes() == whole.tobytes()
    for start, stop in ((0, 1), (1, 64), (1, 65), (n - 65, n), (63, 128)):
        part = chain.outputs(noises, x=chain.x[start:stop])
        assert part.tobytes() == whole[:, :, start:stop].tobytes()


@of_all_chains
def test_threads_change_no_bit(chain: PlainChain) -> None:
    noises = draws_of_all_kinds(chain)
    one, two, three = (chain.outputs(noises, n_threads=n).tobytes() for n in (1, 2, 3))
    assert one == two == three


def test_room_is_used_again_for_other_networks_and_batches() -> None:
    network = CHAINS["dense"]
    noises = draws_of_all_kinds(network)
    pruned = network.pruned(2)
    fresh = network.outputs(noises)
    for n_noises, n_examples in ((3, 10), (len(noises), 200), (1, 65), (len(noises), 200)):
        some = noises[:n_noises]
        (found,) = pruned.sample(some).outputs(network.x[:n_examples], [slice(0, n_noises)])
        assert found.tobytes() == fresh[: len(found), :, :n_examples].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["dense", "convolution", "convolution without pooling"])
def test_an_example_that_is_not_finite_stays_alone(name: str, value: float) -> None:
    chain = CHAINS[name]
    chain = random_chain(
        *((40, 33, 10) if name == "dense" else (9, 3)), n_filters=7, n_examples=130,
        convolution={"dense": None, "convolution": CONVOLUTIONS["in twos"]}.get(
            name, CONVOLUTIONS["every other row"]
        ),
    )  # fmt: skip
    noises = draws_of_all_kinds(chain, 2)
    clean = chain.outputs(noises)
    bad = [0, 62, 63, 64, 129]
    x = chain.x.copy()
    x.reshape(len(x), -1)[bad] = value
    found = chain.outputs(noises, x=x)
    assert not np.isfinite(found[:, :, bad]).any()
    others = np.delete(np.arange(130), bad)
    assert found[:, :, others].tobytes() == clean[:, :, others].tobytes()


def test_the_mean_of_an_infinite_example_is_infinite() -> None:
    pooled = convolution_of((2, 2, 1), (1, 1), pool=(2, 2))
    for chain in (
        random_chain(1, 5),
        random_chain(2, convolution=pooled, n_filters=1),
        random_chain(2, convolution=convolution_of((1, 1, 1), (1, 1)), n_filters=1),
    ):
        for table in chain.posterior.loc.values():
            np.abs(table, out=table)
        x = np.full_like(chain.x, np.inf)
        for noises in ([AT_MEAN], [*chain.noises(1), AT_MEAN]):
            assert (chain.outputs(noises, x=x)[-1] == np.inf).all()


@pytest.mark.parametrize("activation", ["Relu", "Relu6"])
def test_no_activation_hides_that_a_number_is_none(activation: str) -> None:
    sizes = (20, 17, 300, 6, 5)
    chain = random_chain(*sizes, activation=activation, last=activation, n_examples=66)
    x = chain.x.copy()
    x[np.arange(66), np.arange(66) % 20] = np.nan
    found = chain.outputs(draws_of_all_kinds(chain, 2), x=x)
    assert np.isnan(found).all()


@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (2, 3)])
def test_pooling_hides_no_number_that_is_none(pool: tuple[int, int]) -> None:
    rows, columns = 4, 6
    chain = random_chain(
        8, 3, convolution=convolution_of((rows, columns, 1), (1, 1), pool=pool), n_filters=4
    )
    n_pixels = rows * columns
    chain = chain.with_examples(2 * n_pixels)
    noises = draws_of_all_kinds(chain, 1)
    clean = chain.outputs(noises)
    x = chain.x.copy()
    x.reshape(2 * n_pixels, -1)[np.arange(n_pixels), np.arange(n_pixels)] = np.nan
    found = chain.outputs(noises, x=x)
    assert np.isnan(found[:, :, :n_pixels]).all()
    assert found[:, :, n_pixels:].tobytes() == clean[:, :, n_pixels:].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["k0", "b0", "k1", "b1", "k2", "b2", "conv", "conv bias"])
def test_a_draw_that_is_not_finite_stays_alone(tensor: str, value: float) -> None:
    if tensor.startswith("conv"):
        chain = random_chain(
            9, 8, 3, convolution=CONVOLUTIONS["in twos"], n_filters=7, last="Relu6"
        )
    else:
        chain = random_chain(40, 30, 33, 5)
    noises = draws_of_all_kinds(chain)
    clean = chain.outputs(noises)
    starts = np.cumsum([0, *(len(noise.draws) for noise in noises)])
    for at in (0, 4, len(noises) - 1):
        values = {name: noise.copy() for name, noise in (noises[at].values or {}).items()}
        values[tensor][:] = value
        spoilt = [*noises[:at], replace(noises[at], values=values), *noises[at + 1 :]]
        found = chain.outputs(spoilt)
        own = range(starts[at], starts[at + 1])
        if np.isnan(value):
            assert np.isnan(found[own]).all()
        else:
            assert (found[own] != clean[own]).any(axis=(1, 2)).all()
        others = np.delete(np.arange(starts[-1]), own)
        assert found[others].tobytes() == clean[others].tobytes()


def test_the_mean_knows_nothing_of_noise_beside_it() -> None:
    for chain in (CHAINS["dense"], CHAINS["convolution"]):
        (pair,) = chain.noises(1)
        values = {name: np.full_like(noise, np.nan) for name, noise in (pair.values or {}).items()}
        for noises in (
            [replace(pair, values=values), AT_MEAN],
            [AT_MEAN, replace(pair, values=values)],
        ):
            found = chain.outputs(noises)
            at = noises.index(AT_MEAN) * 2
            assert found[at].tobytes() == chain.outputs([AT_MEAN])[0].tobytes()


def layers_of(*shapes: tuple[int, int], kept: float = 1.0) -> list[CompactLayer]:
    """Layers with as many weights, the first ones of which are not zero."""
    layers = []
    for shape in shapes:
        loc = np.zeros(shape, np.float32)
        loc.reshape(-1)[: int(kept * loc.size)] = 1
        kernel = GaussianSlice("k", loc, None, shape, (None, None))
        layers.append(CompactLayer(kernel, None, None, None, None, 0, ("Relu",)))
    return layers


def test_numpy_runs_what_is_large_and_hardly_pruned() -> None:
    assert is_faster(layers_of((784, 256), (256, 256), (256, 10)))
    large = (784, 1000), (1000, 1000), (1000, 10)
    assert not is_faster(layers_of(*large))
    assert not is_faster(layers_of(*large, kept=0.5))
    assert is_faster(layers_of(*large, kept=0.4))


def test_numpy_runs_what_32_bits_cannot_count() -> None:
    (layer,) = layers_of((4, 3))
    for shape, taken in (((2**16, 2**15), False), ((2**16, 2**15 - 1), True)):
        kernel = replace(layer.kernel, shape=shape, indices=(np.arange(4), np.arange(3)))
        assert is_faster([replace(layer, kernel=kernel)]) == taken
    assert not is_faster(layers_of((2**24 + 1, 1), kept=0.01))


def test_numpy_runs_a_chain_of_very_many_layers() -> None:
    most = compiled.module.MOST_LAYERS
    chain = random_chain(*[4] * (most + 1), kept=0.9)
    noises = draws_of_all_kinds(chain)
    assert isinstance(chain.pruned(), CompiledChain)
    assert_as_plainly(chain, noises, chain.outputs(noises))
    assert not isinstance(random_chain(*[4] * (most + 2)).pruned(), CompiledChain)


def test_numpy_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    for chain in CHAINS.values():
        noises = draws_of_all_kinds(chain, 2)
        ours = chain.outputs(noises)
        with monkeypatch.context() as patch:
            patch.setenv(compiled.VARIABLE, compiled.NONE)
            assert not isinstance(chain.pruned(), CompiledChain)
            theirs = chain.outputs(noises)
        assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()
