"""One draw of the dense network, at threshold 0, by other means: the same sizes, softmax included.

Ours is evaluated in antithetic pairs, exact sums included, and its cost is that of all its draws
over their number. The others are called once a draw, with new noise in each.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.models.layers import keras
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.tensorflow_import import import_probability, import_tensorflow

from . import overpruned
from .dense import Sweep
from .record import Measured
from .timing import Peak, Settings, in_turns

Draw = Callable[[], Any]

logger = logging.getLogger("benchmarks")


def run(settings: Settings) -> Measured:
    """Measure every peer and ours, in turns."""
    n_examples, n_draws = settings.choose((100, 4), (10_000, 20))
    network, test = overpruned.problem(n_examples)
    table, x = network.posterior, test.x
    masks = pruning.pruning_masks(table, "threshold", [0.0])
    ours = Sweep(network, test, network.make_evaluator(1, 1), masks, n_draws)
    peak = Peak(settings.clock, settings.choose(256, 2048))
    functions: dict[str, Draw] = {
        "ours": lambda: ours.seconds(settings),
        "numpy": numpy_draw(table, x),
        "tf_function": tensorflow_draw(table, x),
        "tf_function_xla": tensorflow_draw(table, x, jit_compile=True),
        "tfp_flipout": flipout_draw(table, x),
        "peak": peak.sample,
    }
    if settings.with_peers:
        functions |= bayesian_torch_draws(table, x)
    seconds = in_turns(functions, settings.choose(1, 7), settings.clock)
    seconds["ours"] /= n_draws
    del seconds["peak"]
    floor = 2 * n_examples * table.n_weights / peak.rate
    ratios = {
        f"{name}_over_ours": one / seconds["ours"]
        for name, one in seconds.items()
        if name != "ours"
    }
    ratios |= {f"{name}_share_of_peak": floor / one for name, one in seconds.items()}
    return Measured(
        ratios,
        {
            "n_examples": n_examples,
            "n_draws_of_ours": n_draws,
            "ms_per_draw": {name: 1e3 * one for name, one in seconds.items()},
            "peak_gflops": {key: rate / 1e9 for key, rate in peak.rates.items()},
        },
    )


def numpy_draw(table: Posterior, x: NDArray[np.float32]) -> Draw:
    """``relu(x @ (loc + scale * noise))`` in NumPy."""
    rng = np.random.Generator(np.random.SFC64(0))

    def draw() -> NDArray[np.float32]:
        values = x
        for name, loc in table.loc.items():
            if values is not x:
                np.maximum(values, 0, out=values)
            noise = rng.standard_normal(loc.shape, dtype=np.float32)
            values = values @ (loc + table.scale[name] * noise)
        values -= values.max(axis=1, keepdims=True)
        np.exp(values, out=values)
        values /= values.sum(axis=1, keepdims=True)
        return values

    return draw


def tensorflow_draw(table: Posterior, x: NDArray[np.float32], jit_compile: bool = False) -> Draw:
    """The same in a ``tf.function``."""
    tf = import_tensorflow()
    weights = [
        (tf.constant(loc), tf.constant(table.scale[name])) for name, loc in table.loc.items()
    ]
    examples = tf.constant(x)

    @tf.function(jit_compile=jit_compile)
    def draw(values: Any) -> Any:
        for index, (loc, scale) in enumerate(weights):
            values = tf.nn.relu(values) if index else values
            values = tf.matmul(values, loc + scale * tf.random.normal(loc.shape))
        return tf.nn.softmax(values)

    return lambda: draw(examples).numpy()


def flipout_draw(
    table: Posterior, x: NDArray[np.float32], biases: list[NDArray[np.float32]] | None = None
) -> Draw:
    """A stack of TFP's DenseFlipout layers in a ``tf.function``; biases are zeros if not given."""
    tf = import_tensorflow()
    layers = [
        import_probability().layers.DenseFlipout(
            loc.shape[1], activation="relu" if index < len(table.loc) - 1 else None
        )
        for index, loc in enumerate(table.loc.values())
    ]
    model = keras().Sequential([keras().Input(x.shape[1:]), *layers])
    biases = biases or [np.zeros(loc.shape[1], np.float32) for loc in table.loc.values()]
    set_posterior(model.layers, table, biases)
    examples = tf.constant(x)
    draw = tf.function(lambda values: tf.nn.softmax(model(values)))
    return lambda: draw(examples).numpy()


def set_posterior(layers: list[Any], table: Posterior, biases: list[NDArray[np.float32]]) -> None:
    """Give eager Flipout layers the posterior of their kernels, and their biases."""
    for layer, (name, loc), bias in zip(layers, table.loc.items(), biases, strict=True):
        for variable in layer.trainable_variables:
            if "kernel_posterior_loc" in variable.name:
                variable.assign(loc)
            elif "untransformed_scale" in variable.name:
                variable.assign(untransformed(table.scale[name]))
            else:
                variable.assign(bias)


def untransformed(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """What TFP's softplus, and the float32 epsilon that it adds, turn into ``scale``."""
    epsilon = float(np.finfo(np.float32).eps)
    return np.log(np.expm1(scale.astype(np.float64) - epsilon)).astype(np.float32)


def bayesian_torch_draws(
    table: Posterior, x: NDArray[np.float32], biases: list[NDArray[np.float32]] | None = None
) -> dict[str, Draw]:
    """Stacks of bayesian-torch's layers; none where it is not installed."""
    if importlib.util.find_spec("bayesian_torch") is None:
        logger.info("bayesian-torch is not installed: skipped")
        return {}
    import torch
    from bayesian_torch import layers as of_torch

    torch.set_num_threads(1)
    examples = torch.from_numpy(x)
    added = [torch.from_numpy(np.array(bias)) for bias in biases or []]

    def draw_of(kind: str) -> Draw:
        layers = []
        for name, loc in table.loc.items():
            layer = getattr(of_torch, kind)(*loc.shape, bias=False)
            raw = np.log(np.expm1(table.scale[name].astype(np.float64))).astype(np.float32)
            layer.mu_weight.data = torch.from_numpy(np.ascontiguousarray(loc.T))
            layer.rho_weight.data = torch.from_numpy(np.ascontiguousarray(raw.T))
            layers.append(layer)

        def draw() -> Any:
            with torch.no_grad():
                values = examples
                for index, layer in enumerate(layers):
                    values = layer(torch.relu(values) if index else values, return_kl=False)
                    values = values + added[index] if added else values
                return torch.softmax(values, dim=1).numpy()

        return draw

    return {
        f"bayesian_torch_{kind.removeprefix('Linear').lower()}": draw_of(kind)
        for kind in ("LinearReparameterization", "LinearFlipout")
    }
