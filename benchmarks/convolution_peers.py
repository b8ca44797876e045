"""One draw of ResNet-18, at threshold 0, by other means: the same shapes, softmax included.

What belongs here: the network in TFP's layers, in bayesian-torch's, and in plain PyTorch and JAX,
one draw after the other and, by ``vmap``, some at once. What does not: dense networks (``peers``).

All see the same examples, in one call, on the same core; weights are drawn anew in each. Ours makes
its draws in antithetic pairs, and exact sums besides; the posterior mean, which is one more pass
over the examples, counts as a draw.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc.graph.layer_graph import (
    EXAMPLES,
    Activation,
    Add,
    Bias,
    Convolution,
    Dense,
    LayerGraph,
    Pooling,
    Reshape,
    Scale,
)
from bprune_hpc.models import layers as models_layers
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_probability, import_tensorflow

from . import conv_networks
from .dense import Sweep
from .peers import untransformed
from .record import Measured
from .timing import Peak, Settings, in_turns

Array = NDArray[np.float32]
Draw = Callable[[], NDArray[Any]]
"""Probabilities of one draw or of some."""

logger = logging.getLogger("benchmarks")


def run(settings: Settings) -> Measured:
    """Measure ours and every peer that is there, in turns."""
    n_examples, width, n_draws, n_at_once = settings.choose((4, 4, 2, 2), (256, 64, 8, 4))
    network, test = conv_networks.resnet18(n_examples, width)
    masks = pruning.pruning_masks(network.posterior, "threshold", [0.0])
    ours = Sweep(network, test, network.make_evaluator(1, 1), masks, n_draws, n_examples)
    peak = Peak(settings.clock, settings.choose(256, 2048))
    with _one_core():
        peers = draws(network, test.x, width, n_at_once, settings.with_peers)
        seconds = in_turns(
            {"ours": lambda: ours.seconds(settings), **peers, "peak": peak.sample},
            settings.choose(1, 3),
            settings.clock,
        )
    del seconds["peak"]
    seconds["ours"] /= n_draws + 1
    for name in seconds:
        if name.endswith("vmap"):
            seconds[name] /= n_at_once
    return Measured(
        {
            f"{name}_over_ours": one / seconds["ours"]
            for name, one in seconds.items()
            if name != "ours"
        },
        {
            "network": network.checkpoint,
            "n_examples": n_examples,
            "n_draws_of_ours": n_draws,
            "n_draws_at_once": n_at_once,
            "ms_per_draw": {name: 1e3 * one for name, one in seconds.items()},
            "peak_gflops": {key: rate / 1e9 for key, rate in peak.rates.items()},
        },
    )


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process to one core: threads that a library starts do not help it."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def draws(
    network: Network, x: Array, width: int, n_at_once: int, with_others: bool = True
) -> dict[str, Draw]:
    """A function for each peer that is installed."""
    layers = network.graph.layers
    assert isinstance(layers, LayerGraph)
    table, images = network.posterior, x.reshape(len(x), *conv_networks.CIFAR_IMAGE)
    weights = {**network.fixed, **layers.constants, **table.loc}
    found = {
        f"tfp_{kind.lower()}{'_xla' if is_compiled else ''}": _of_tfp(
            kind, table, weights, images, width, is_compiled
        )
        for kind in ("Flipout", "Reparameterization")
        for is_compiled in (False, True)
    }
    if not with_others:
        return found
    for name, make in (
        ("bayesian_torch", _of_bayesian_torch),
        ("torch", _of_torch),
        ("jax", _of_jax),
    ):
        if importlib.util.find_spec(name) is None:
            logger.info("%s is not installed: left out", name)
        else:
            found |= make(layers, table, weights, images, n_at_once)
    return found


# TFP's layers, in a Keras model.


@dataclass(frozen=True)
class _Layers:
    """The layers that the zoo's networks are built of, of one of TFP's estimators."""

    kind: str

    def conv(self, filters: int, size: int, **arguments: Any) -> Any:
        layer = getattr(import_probability().layers, f"Convolution2D{self.kind}")
        return layer(filters, size, padding="SAME", **arguments)

    def dense(self, units: int, **arguments: Any) -> Any:
        return getattr(import_probability().layers, f"Dense{self.kind}")(units, **arguments)


def _of_tfp(
    kind: str,
    table: Posterior,
    weights: Mapping[str, Array],
    images: Array,
    width: int,
    is_compiled: bool,
) -> Draw:
    tf, keras = import_tensorflow(), models_layers.keras()
    inputs = keras.Input(images.shape[1:])
    logits, _ = models_layers.resnet18(inputs, conv_networks.N_CLASSES, _Layers(kind), width)  # type: ignore[arg-type]
    model = keras.Model(inputs, logits)
    for variable in model.variables:
        name = variable.name.removesuffix(":0")
        of_kernel = name.replace("_untransformed_scale", "_loc")
        if name in weights:
            variable.assign(weights[name])
        elif of_kernel in table.scale:
            variable.assign(untransformed(table.scale[of_kernel]))
    examples = tf.constant(images)

    @tf.function(jit_compile=is_compiled)
    def draw(given: Any) -> Any:
        return tf.nn.softmax(model(given, training=False))

    return lambda: np.asarray(draw(examples))


# PyTorch and JAX, which run the graph of layers as it is.


@dataclass(frozen=True)
class _Library:
    """What a library makes of each operation; channels are last or first, as it has them."""

    affine: Callable[[Any, Any, Any], Any]
    relu: Callable[[Any], Any]
    mean: Callable[[Any], Any]

    def run(self, layers: LayerGraph, weights: Mapping[str, Any], x: Any, product: Any) -> Any:
        """Outputs; ``product`` gives those of a convolution or a dense layer."""
        found: dict[int, Any] = {EXAMPLES: x}
        scales: dict[int, Any] = {}
        for at, node in enumerate(layers.nodes):
            one, first = node.operation, node.inputs[0]
            values = found[first]
            if isinstance(one, Dense | Convolution):
                values = product(one, values)
            elif isinstance(one, Scale):  # its bias follows, and both are one operation
                scales[at] = weights[one.name]
            elif isinstance(one, Bias):
                values = self.affine(values, scales.get(first), weights[one.name])
            elif isinstance(one, Activation) and one.function == "Relu":
                values = self.relu(values)
            elif isinstance(one, Pooling) and one.function == "AvgPool":  # of the whole image
                values = self.mean(values)
            elif isinstance(one, Add):
                values = values + found[node.inputs[1]]
            elif not isinstance(one, Reshape):
                raise ValueError(f"not in ResNet-18: {one}")
            found[at] = values
        return found[len(layers.nodes) - 1]


def _torch_library() -> _Library:
    import torch
    from torch.nn import functional

    def affine(x: Any, scale: Any, bias: Any) -> Any:
        if x.dim() < 4 or scale is None:
            return x + bias
        mean, variance = torch.zeros_like(bias), torch.ones_like(bias)
        return functional.batch_norm(x, mean, variance, scale, bias, eps=0.0)

    return _Library(affine, torch.relu, lambda x: x.mean((2, 3)))


def _padded(one: Convolution, x: Any) -> tuple[Any, Any]:
    """Images, whose borders are made where they differ, and the padding that is left."""
    from torch.nn import functional

    (top, bottom), (left, right) = one.borders
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom)), 0


def _of_torch(
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, n_draws: int
) -> dict[str, Draw]:
    """Plain PyTorch: ``loc + scale * noise``, and the layers' operations."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    library = _torch_library()
    shapes = _kernel_shapes(layers, table)

    def turned(name: str, value: Array) -> Any:
        kernel = value.reshape(shapes[name])
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        return torch.from_numpy(np.ascontiguousarray(kernel.transpose(axes)))

    loc = {name: turned(name, value) for name, value in table.loc.items()}
    scale = {name: turned(name, value) for name, value in table.scale.items()}
    plain = {name: torch.from_numpy(value) for name, value in weights.items() if name not in loc}
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def product(kernels: Mapping[str, Any]) -> Any:
        def of(one: Dense | Convolution, values: Any) -> Any:
            if isinstance(one, Dense):
                return functional.linear(values, kernels[one.kernel])
            values, padding = _padded(one, values)
            return functional.conv2d(
                values, kernels[one.kernel], None, one.strides, padding, one.dilations
            )

        return of

    def forward(noise: Mapping[str, Any]) -> Any:
        kernels = {name: loc[name] + scale[name] * noise[name] for name in loc}
        return torch.softmax(library.run(layers, plain, x, product(kernels)), dim=1)

    def one() -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(forward({name: torch.randn_like(loc[name]) for name in loc}))

    def some() -> NDArray[Any]:
        with torch.inference_mode():
            noise = {name: torch.randn((n_draws, *loc[name].shape)) for name in loc}
            return np.asarray(torch.func.vmap(forward)(noise))

    return {"torch": one, "torch_vmap": some}


def _of_bayesian_torch(
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, n_draws: int
) -> dict[str, Draw]:
    """bayesian-torch's layers, between PyTorch's own."""
    import torch
    from bayesian_torch import layers as of_torch

    torch.set_num_threads(1)
    library, shapes = _torch_library(), _kernel_shapes(layers, table)
    plain = {name: torch.from_numpy(value) for name, value in weights.items()}
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def tensor(values: Array, axes: tuple[int, ...]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values.transpose(axes)))

    def made(one: Dense | Convolution, kind: str) -> Any:
        shape = shapes[one.kernel]
        loc = table.loc[one.kernel].reshape(shape)
        scale = table.scale[one.kernel].reshape(shape).astype(np.float64)
        raw = np.log(np.expm1(scale)).astype(np.float32)
        if isinstance(one, Dense):
            layer = getattr(of_torch, f"Linear{kind}")(*shape, bias=False)
            layer.mu_weight.data, layer.rho_weight.data = tensor(loc, (1, 0)), tensor(raw, (1, 0))
            return layer
        rows, columns = one.borders
        padding = (rows[0], columns[0]) if rows[0] == rows[1] and columns[0] == columns[1] else 0
        layer = getattr(of_torch, f"Conv2d{kind}")(
            shape[2], shape[3], shape[:2], one.strides, padding, one.dilations, bias=False
        )
        axes = (3, 2, 0, 1)
        layer.mu_kernel.data, layer.rho_kernel.data = tensor(loc, axes), tensor(raw, axes)
        return layer

    def draw_of(kind: str) -> Draw:
        own = {
            node.operation.kernel: made(node.operation, kind)
            for node in layers.nodes
            if isinstance(node.operation, Dense | Convolution)
        }

        def product(one: Dense | Convolution, values: Any) -> Any:
            if isinstance(one, Convolution):
                values, _ = _padded(one, values)
            return own[one.kernel](values, return_kl=False)

        def draw() -> NDArray[Any]:
            with torch.inference_mode():
                return np.asarray(torch.softmax(library.run(layers, plain, x, product), dim=1))

        return draw

    return {f"bayesian_torch_{kind.lower()}": draw_of(kind)
            for kind in ("Flipout", "Reparameterization")}  # fmt: skip


def _of_jax(
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, n_draws: int
) -> dict[str, Draw]:
    """JAX, compiled: a draw at a time, and some by ``vmap``."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    library = _Library(
        lambda x, scale, bias: x + bias if scale is None else x * scale + bias,
        jax.nn.relu,
        lambda x: x.mean((1, 2)),
    )
    shapes = _kernel_shapes(layers, table)
    loc, scale = (
        {name: jnp.asarray(value.reshape(shapes[name])) for name, value in values.items()}
        for values in (table.loc, table.scale)
    )
    plain = {name: jnp.asarray(value) for name, value in weights.items() if name not in loc}
    x = jnp.asarray(images)

    def forward(key: Any, x: Any, loc: Any, scale: Any) -> Any:
        keys = dict(zip(loc, jax.random.split(key, len(loc)), strict=True))

        def product(one: Dense | Convolution, values: Any) -> Any:
            name = one.kernel
            noise = jax.random.normal(keys[name], loc[name].shape)
            kernel = loc[name] + scale[name] * noise
            if isinstance(one, Dense):
                return values @ kernel
            return lax.conv_general_dilated(
                values, kernel, one.strides, one.borders, rhs_dilation=one.dilations,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip

        return jax.nn.softmax(library.run(layers, plain, x, product))

    of_one, of_some = jax.jit(forward), jax.jit(jax.vmap(forward, (0, None, None, None)))
    seeds = iter(range(2**31))

    def key() -> Any:
        return jax.random.key(next(seeds))

    return {
        "jax": lambda: np.asarray(of_one(key(), x, loc, scale)),
        "jax_vmap": lambda: np.asarray(of_some(jax.random.split(key(), n_draws), x, loc, scale)),
    }


def _kernel_shapes(layers: LayerGraph, table: Posterior) -> dict[str, tuple[int, ...]]:
    """Of each kernel: rows, columns, channels and filters, or inputs and units."""
    return {
        one.kernel: (*one.window, one.image[2], table.loc[one.kernel].size // one.n_terms)
        if isinstance(one, Convolution)
        else table.loc[one.kernel].shape
        for one in (node.operation for node in layers.nodes)
        if isinstance(one, Dense | Convolution)
    }
