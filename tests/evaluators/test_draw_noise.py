"""Who gets which standard normals: a function of seed, tensor, pair and place, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.compaction import Weights
from bprune_hpc.evaluators.draw_noise import DrawNoise, default_block
from bprune_hpc.evaluators.selection import choose_draw_noise
from bprune_hpc.graph.layer_graph import (
    Activation,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    Pooling,
    Reshape,
    UnknownOperation,
)
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.graph.weight_uses import multiplications, weight_uses
from bprune_hpc.posterior.draws import MEAN, replicates_of, standard_normal
from bprune_hpc.posterior.mean_field import Posterior

CONVOLUTION = Convolution("c", (3, 3), (8, 8, 2), borders=((1, 1), (1, 1)))
SHAPES = {
    "k0": (8, 8), "b0": (8,), "k1": (8, 8), "b1": (8,),
    "c": (3, 3, 2, 1), "e": (1,), "f": (16, 10),
}  # fmt: skip
DENSE = LayerGraph.of_chain(
    (2, 4, 1), Reshape((8,)), Dense("k0"), Bias("b0"), Activation("Relu"), Dense("k1"), Bias("b1")
)
TIED = LayerGraph.of_chain((8,), Dense("k0"), Activation("Relu"), Dense("k0"))
SAME_BIAS = LayerGraph.of_chain((8,), Dense("k0"), Bias("b0"), Dense("k1"), Bias("b0"))
WITH_IMAGES = LayerGraph.of_chain(
    (8, 8, 2), CONVOLUTION, Bias("e"), Pooling("MaxPool", (2, 2), (2, 2)), Reshape((16,), 16),
    Dense("f"),
)  # fmt: skip


def lifted(layers: LayerGraph | UnknownOperation | None) -> LiftedGraph:
    return LiftedGraph(b"", "x:0", (None, 8), "float32", "y:0", None, {}, {}, layers=layers)


def posterior(*names: str) -> Posterior:
    return Posterior(
        {name: np.zeros(SHAPES[name], np.float32) for name in names},
        {name: np.ones(SHAPES[name], np.float32) for name in names},
    )


def weights(*names: str) -> Weights:
    """All of the networks' weights, of which some have a posterior."""
    fixed = {name: np.zeros(shape) for name, shape in SHAPES.items() if name not in names}
    return Weights(posterior(*names), fixed)


def test_uses_are_counted_for_one_example() -> None:
    assert weight_uses(DENSE, SHAPES) == {"k0": 1, "b0": 1, "k1": 1, "b1": 1}
    assert weight_uses(TIED, SHAPES) == {"k0": 2}
    assert weight_uses(SAME_BIAS, SHAPES)["b0"] == 2
    assert weight_uses(WITH_IMAGES, SHAPES) == {"c": 64, "e": 64, "f": 1}
    assert multiplications(WITH_IMAGES, SHAPES) == 64 * 18 + 160
    assert multiplications(TIED, SHAPES) == 128


@pytest.mark.parametrize(
    ("layers", "evaluator", "reason"),
    [
        (TIED, "chain", "'k0' is used 2 times"),
        (SAME_BIAS, "chain", "'b0' is used 2 times"),
        (WITH_IMAGES, "chain", "'c' is used 64 times"),
        (DENSE, "graph", "by the evaluator graph"),
        (UnknownOperation("lstm/while", "While"), "graph", r"'lstm/while' \(While\)"),
        (None, "graph", "two outputs"),
    ],
)
def test_what_rules_noise_of_its_own_out_is_named(
    layers: LayerGraph | UnknownOperation | None, evaluator: str, reason: str
) -> None:
    graph, table = lifted(layers), weights(*SHAPES)
    with pytest.raises(ConfigError, match=rf"--draw_noise: per_example .*{reason}"):
        choose_draw_noise("per_example", evaluator, graph, table, False)
    assert choose_draw_noise("auto", evaluator, graph, table, False) == "per_block"
    assert choose_draw_noise("auto", evaluator, graph, table, True) == "shared"


def test_deviations_that_cannot_be_squared_rule_it_out() -> None:
    table = weights("k0", "k1")
    table.posterior.scale["k1"][2, 3] = 3e19
    with pytest.raises(ConfigError, match="'k1' has a deviation of 3e\\+19"):
        choose_draw_noise("per_example", "chain", lifted(DENSE), table, False)
    assert choose_draw_noise("auto", "chain", lifted(DENSE), table, False) == "per_block"


def test_dense_layers_have_noise_of_each_examples_own() -> None:
    table = weights("k0", "b0", "k1")
    for is_one_network in (False, True):
        found = choose_draw_noise("auto", "chain", lifted(DENSE), table, is_one_network)
        assert found == "per_example"
    for asked in ("shared", "per_block", "per_example"):
        assert choose_draw_noise(asked, "chain", lifted(DENSE), table, False) == asked
    # A weight without a posterior may be used as often as it likes.
    assert choose_draw_noise("auto", "chain", lifted(TIED), weights("k1"), False) == "per_example"


def test_a_block_has_its_noise_whatever_the_run_and_rank() -> None:
    table, replicates = posterior("k0", "b1"), replicates_of(8, "antithetic")
    noise = DrawNoise("per_block", 20, seed=3)
    assert list(noise.runs(range(7, 65))) == [
        range(7, 20), range(20, 40), range(40, 60), range(60, 65)
    ]  # fmt: skip

    def values(example: int, dataset: str = "test set", replicate: int = 1) -> np.ndarray:
        (one,) = noise.of_replicate(table, replicate, replicates, dataset, example)
        assert one.values is not None and one.draws == replicates[replicate]
        return np.concatenate([one.values["k0"].ravel(), one.values["b1"].ravel()])

    np.testing.assert_array_equal(values(20), values(39))
    others = [values(40), values(20, "out of distribution"), values(20, replicate=2)]
    for other in others:
        assert (other != values(20)).all()
    (mean,) = noise.of_replicate(table, MEAN, replicates, "test set", 20)
    assert mean.is_mean and mean.values is None


def test_shared_noise_is_as_it_was() -> None:
    table, replicates = posterior("k0"), replicates_of(8, "antithetic", 2)
    noise = DrawNoise("shared", 0, seed=3)
    assert list(noise.runs(range(7, 65))) == [range(7, 65)]
    for at, one in enumerate(noise.of_replicate(table, 1, replicates, "any", 99)):
        assert one.values is not None
        wanted = standard_normal(3, "k0", 2 + at, (8, 8))
        np.testing.assert_array_equal(one.values["k0"], wanted)


def test_blocks_are_by_the_network_alone_and_whole_batches() -> None:
    for n_weights, n_multiplications in ((6_464, 6_464), (10**6, 10**6), (10**5, 10**8)):
        block = default_block(n_weights, n_multiplications)
        assert 64 <= block <= 1024 and block & (block - 1) == 0
    noise = DrawNoise("per_block", 60, 0)
    assert [noise.batch_size(most) for most in (1000, 60, 59, 30, 7)] == [60, 60, 30, 30, 6]
    assert DrawNoise("shared", 0, 0).batch_size(77) == 77
    with pytest.raises(ConfigError, match=r"--noise_block: 997 .* --batch_size=500"):
        DrawNoise("per_block", 997, 0).batch_size(500)
