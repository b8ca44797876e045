"""The evaluators that need a special form, against the one that runs any graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.draw_noise import DrawNoise
from bprune_hpc.evaluators.interface import Evaluator
from bprune_hpc.evaluators.selection import choose_evaluator, make_evaluator
from bprune_hpc.graph.layer_graph import LayerGraph
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.draws import MEAN, replicates_of
from bprune_hpc.posterior.mean_field import Posterior
from tests.helpers.lifted_graphs import SHAPES, Build, lifted


def two_convolutions(padding: str, pool: str, activation: str) -> Build:
    def build(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
        act = getattr(tf.nn, activation)
        x = tf.reshape(x, (-1, 8, 8, 2))
        x = act(tf.nn.bias_add(tf.nn.conv2d(x, w["k0"], 1, padding), w["b0"]))
        x = getattr(tf.nn, pool)(x, 2, 2, "SAME")
        x = act(tf.nn.conv2d(x, w["k1"], 2, padding) + w["b1"])
        return tf.reshape(x, (tf.shape(x)[0], -1)) @ w["k2"] + w["b2"]

    return build


def run(evaluator: Evaluator, table: Posterior, x: np.ndarray) -> np.ndarray:
    noises = [n for unit in (MEAN, 0, 1) for n in SHARED.of_replicate(table, unit, UNITS, "", 0)]
    noise_batches = [slice(k, k + 1) for k in range(len(noises))]
    return np.concatenate(list(evaluator.prune(table).sample(noises).outputs(x, noise_batches)))


UNITS = replicates_of(4, "antithetic")
SHARED = DrawNoise("shared", 0, seed=4)


@pytest.mark.parametrize("bias", ["negative", "positive", "posterior"])
@pytest.mark.parametrize(
    ("padding", "pool", "activation"),
    [
        ("SAME", "max_pool2d", "relu"),
        ("SAME", "avg_pool2d", "elu"),
        ("SAME", "max_pool2d", "sigmoid"),
    ],
)
def test_idle_channels_are_left_out_exactly(
    padding: str, pool: str, activation: str, bias: str
) -> None:
    rng = np.random.default_rng(3)
    used = ["k0", "b0", "k1", "b1", "k2", "b2"]
    uncertain = {"k0", "k1", "k2"} | ({"b0", "b1", "b2"} if bias == "posterior" else set())
    graph = lifted(two_convolutions(padding, pool, activation), (128,), uncertain, used)
    assert choose_evaluator("auto", graph) == "layers"
    values = {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in used}
    if bias != "posterior":
        sign = 1 if bias == "positive" else -1
        values |= {name: sign * np.abs(values[name]) for name in ("b0", "b1", "b2")}
    loc = {name: values[name] for name in used if name in uncertain}
    # Filters differ in strength, so that whole ones are pruned. All are small: a sigmoid of the
    # difference of large numbers has their rounding, in whichever order they are added up.
    strength = {name: np.exp(rng.normal(0, 2, value.shape[-1])) for name, value in loc.items()}
    loc = {name: (0.1 * value * strength[name]).astype(np.float32) for name, value in loc.items()}
    posterior = Posterior(loc, {name: np.full_like(value, 0.1) for name, value in loc.items()})
    fixed = {name: values[name] for name in used if name not in uncertain}
    assert choose_evaluator("channels", graph) == "layers"  # as it was once called
    fast = make_evaluator("layers", graph, fixed)
    plain = make_evaluator("graph", graph, fixed)
    x = rng.normal(size=(6, 128)).astype(np.float32)
    for threshold in (0.0, 1.0, 3.0, 10.0, 1e9):
        cut = pruning.mask_at_threshold(posterior, threshold)
        table = cut.apply(posterior)
        expected = run(plain, table, x)
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(run(fast, table, x), expected, rtol=0, atol=atol)
    assert cut.pruned_fraction == 1


@pytest.mark.compiled
def test_channels_that_feed_or_are_fed_by_nothing_are_gone() -> None:
    used = ["k0", "b0", "k1", "b1", "k2", "b2"]
    graph = lifted(two_convolutions("SAME", "max_pool2d", "relu"), (128,), set(used[::2]), used)
    loc = {name: np.ones(SHAPES[name], np.float32) for name in used[::2]}
    loc["k0"][..., [1, 2]] = 0  # fed by nothing
    loc["k1"][:, :, 5] = 0  # feeds nothing
    table = Posterior(loc, {name: np.zeros_like(value) for name, value in loc.items()})
    fixed = {name: np.full(SHAPES[name], -0.5, np.float32) for name in used[1::2]}
    fixed["b0"][2] = 0.5  # a constant that is not zero
    fast = make_evaluator("layers", graph, fixed)
    pruned = fast.prune(table)
    weights = pruned.network.weights  # type: ignore[attr-defined]
    sizes = [weights[name].loc.shape for name in used]
    assert sizes == [(9, 2, 6), (6,), (9, 6, 6), (6,), (24, 5), (5,)]


def test_what_constant_channels_feed_stays() -> None:
    """By plain arithmetic: a pruned filter leaves its bias, which the next layer sums."""
    used = ["k0", "b0", "k1", "b1", "k2", "b2"]
    build = two_convolutions("VALID", "max_pool2d", "relu")  # 8 x 8, 6 x 6, 3 x 3, 1 x 1
    shapes = {**SHAPES, "k2": (6, 5)}
    graph = lifted(build, (128,), set(used[::2]), used, shapes)
    rng = np.random.default_rng(0)
    loc = {name: np.abs(rng.normal(size=shapes[name])).astype(np.float32) for name in used[::2]}
    loc["k0"][...] = 0
    table = Posterior(loc, {name: np.zeros_like(value) for name, value in loc.items()})
    fixed = {
        "b0": np.full(8, 1, np.float32), "b1": np.full(6, -0.1, np.float32), "b2": np.zeros(5, "f"),
    }  # fmt: skip
    evaluator = make_evaluator(choose_evaluator("auto", graph), graph, fixed)
    x = rng.normal(size=(2, 128)).astype(np.float32)
    hidden = np.maximum(np.float64(loc["k1"]).sum(axis=(0, 1, 2)) - 0.1, 0)
    expected = np.broadcast_to((hidden @ loc["k2"])[:, None], (5, 2))
    np.testing.assert_allclose(run(evaluator, table, x)[0], expected, rtol=1e-6)


def reshaped_first(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    """As of 28 x 28 numbers that become an image of one channel."""
    return two_convolutions("SAME", "max_pool2d", "relu")(tf, tf.reshape(x, (-1, 8, 8, 2)), w)


def flat_twice(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    x = tf.nn.conv2d(tf.reshape(x, (-1, 8, 8, 2)), w["k0"], 2, "SAME") + w["b0"]
    x = tf.reshape(tf.nn.conv2d(tf.nn.relu(x), w["k1"], 2, "SAME"), (-1, 24))
    return tf.reshape(x, (tf.shape(x)[0], 24)) @ w["k2"]


def bias_by_place(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    x = tf.nn.conv2d(tf.reshape(x, (-1, 8, 8, 2)), w["k0"], 2, "SAME") + w["b0"]
    x = tf.reshape(tf.nn.conv2d(tf.nn.relu(x), w["k1"], 2, "SAME"), (-1, 24)) + w["f1"]
    return tf.nn.relu(x) @ w["k2"]


@pytest.mark.parametrize(
    ("build", "shape", "used", "evaluator"),
    [
        (reshaped_first, (4, 32), ["k0", "b0", "k1", "b1", "k2", "b2"], "layers"),
        (flat_twice, (128,), ["k0", "b0", "k1", "k2"], "layers"),
        (bias_by_place, (128,), ["k0", "b0", "k1", "f1", "k2"], "graph"),
    ],
)
def test_other_shapes_than_images_that_are_made_flat_once(
    build: Build, shape: tuple[int, ...], used: list[str], evaluator: str
) -> None:
    shapes = {**SHAPES, "f1": (24,)}
    uncertain = {name for name in used if name.startswith("k")}
    graph = lifted(build, shape, uncertain, used, shapes)
    assert isinstance(graph.layers, LayerGraph)
    assert choose_evaluator("auto", graph) == evaluator
    rng = np.random.default_rng(2)
    values = {name: rng.normal(size=shapes[name]).astype(np.float32) for name in used}
    values["k1"][..., 2:] = 0
    loc = {name: values.pop(name) for name in sorted(uncertain)}
    table = Posterior(loc, {name: np.float32(0.1) * np.abs(value) for name, value in loc.items()})
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    expected = run(make_evaluator("graph", graph, values), table, x)
    found = run(make_evaluator(evaluator, graph, values), table, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def dense(tf: Any, x: Any, w: Mapping[str, Any]) -> Any:
    return tf.nn.tanh(x @ w["d0"] + w["e0"]) @ w["d1"]


@pytest.mark.parametrize(
    "build",
    [
        lambda tf, x, w: tf.nn.relu(x @ w["d0"] + x[:, :7]) @ w["d1"],
        lambda tf, x, w: tf.nn.relu(2 * x @ w["d0"]) @ w["d1"],
        lambda tf, x, w: tf.nn.relu(x @ w["d0"] + tf.exp(w["e0"])) @ w["d1"],
        lambda tf, x, w: tf.nn.relu(x @ (w["d0"] + w["e0"])) @ w["d1"],
        lambda tf, x, w: tf.nn.softmax(x @ w["d0"]) @ w["d1"],
        lambda tf, x, w: tf.matmul(x @ w["d0"], tf.transpose(w["d1"]), transpose_b=True),
        lambda tf, x, w: (
            tf.reshape(tf.reshape(x, (-1, 1)) @ w["d0"][:1], (-1, 112))[:, :7] @ w["d1"]
        ),
        lambda tf, x, w: tf.stop_gradient(x) @ w["d0"] @ w["d1"] + tf.reduce_mean(x),
    ],
)
def test_what_is_no_chain_is_not_taken_for_one(build: Build) -> None:
    graph = lifted(build, (16,), {"d0", "d1"}, ["d0", "e0", "d1"])
    assert choose_evaluator("auto", graph) != "chain"
    with pytest.raises(ConfigError, match="--evaluator: chain is for dense layers"):
        choose_evaluator("chain", graph)


@pytest.mark.parametrize("uncertain", [{"d0", "d1"}, {"d0", "d1", "e0"}, {"d1"}])
def test_dense_layers_against_the_graph(uncertain: set[str]) -> None:
    rng = np.random.default_rng(5)
    used = ["d0", "e0", "d1"]
    graph = lifted(dense, (16,), uncertain, used)
    assert choose_evaluator("auto", graph) == "chain"
    values = {name: rng.normal(size=SHAPES[name]).astype(np.float32) for name in used}
    posterior = Posterior(
        {name: values[name] for name in used if name in uncertain},
        {name: np.full(SHAPES[name], 0.5, np.float32) for name in used if name in uncertain},
    )
    fixed = {name: values[name] for name in used if name not in uncertain}
    x = rng.normal(size=(9, 16)).astype(np.float32)
    for fraction in (0.0, 0.5, 0.9):
        table = pruning.mask_at_fraction(posterior, fraction).apply(posterior)
        fast, plain = (
            run(make_evaluator(name, graph, fixed), table, x) for name in ("chain", "graph")
        )
        np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-6 * np.abs(plain).max())
