"""One draw of ResNet-18, at threshold 0, by other means: the same shapes, softmax included.

What belongs here: the network in TFP's layers, in bayesian-torch's, and in plain PyTorch and JAX,
one draw after the other and, by ``vmap``, some at once. What does not: dense networks (``peers``).

All see the same examples, in one call, on the same cores, and with as many threads; weights are
drawn anew in each. Ours makes its draws in antithetic pairs, and exact sums besides; the posterior
mean, which is one more pass over the examples, counts as a draw. Each case is a process of its own:
``python -m benchmarks.convolution_peers CASE``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bprune_hpc import blas
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
from bprune_hpc.job import memory as process_memory
from bprune_hpc.models import layers as models_layers
from bprune_hpc.posterior import pruning
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.runner.network import Network
from bprune_hpc.tensorflow_import import import_probability, import_tensorflow, limit_threads

from . import conv_networks
from .dense import Sweep
from .peers import untransformed
from .processes import python
from .record import Measured
from .timing import Peak, Settings, in_turns

Array = NDArray[np.float32]
Draw = Callable[[], NDArray[Any]]
"""Probabilities of one draw or of some."""

ASKED_FOR = ("tfp_flipout", "bayesian_torch_flipout", "bayesian_torch_reparameterization")
"""Of which there is a limit."""
_LIMIT_S = 3600


@dataclass(frozen=True)
class Case:
    """What is measured beside each other.

    Attributes
    ----------
    n_examples, width : int
    n_draws, n_at_once : int
        Of ours, and of those that make several.
    n_threads, n_repeats : int
    with_others : bool
        Whether PyTorch, bayesian-torch and JAX are.
    names : sequence of str
        The peers; all, where there are none.
    """

    n_examples: int
    width: int
    n_draws: int
    n_at_once: int
    n_threads: int
    n_repeats: int
    with_others: bool
    names: Sequence[str] = ()


def run(settings: Settings) -> Measured:
    """Measure ours and every peer that is there, in turns."""
    others = settings.with_peers
    if settings.is_quick:
        cases = {
            "": Case(4, 4, 2, 2, 1, 1, others),
            "_2_threads": Case(4, 4, 2, 2, 2, 1, others, ASKED_FOR),
        }
    else:
        cases = {
            "": Case(256, 64, 8, 4, 1, 3, others),
            **{f"_{n}": Case(n, 64, 4, 4, 1, 2, others, ASKED_FOR) for n in (128, 512)},
            "_2_threads": Case(256, 64, 4, 4, 2, 2, others, ASKED_FOR),
        }
    ratios: dict[str, float] = {}
    absolute: dict[str, Any] = {}
    for ending, case in cases.items():
        arguments = ("-m", "benchmarks.convolution_peers", json.dumps(asdict(case)))
        found = python(*arguments, limit_s=_LIMIT_S).said
        ms = found["ms_per_draw"]
        ratios |= {
            f"{name}_over_ours{ending}": one / ms["ours"]
            for name, one in ms.items()
            if name != "ours"
        }
        absolute[f"case{ending}"] = {**asdict(case), **found}
    return Measured(ratios, {**absolute, "left_out": absolute["case"]["left_out"]})


def measure(case: Case) -> dict[str, Any]:
    """Milliseconds a draw of ours and of each peer; and why others are left out."""
    blas.limit_threads(case.n_threads)
    limit_threads(case.n_threads, 1)
    process_memory.keep_freed()
    # Threads that a library starts besides do not help it.
    cores = sorted(os.sched_getaffinity(0))[-case.n_threads :]
    os.sched_setaffinity(0, cores)
    network, test = conv_networks.resnet18(case.n_examples, case.width)
    masks = pruning.pruning_masks(network.posterior, "threshold", [0.0])
    evaluator, settings = network.make_evaluator(case.n_threads, 1), Settings()
    ours = Sweep(network, test, evaluator, masks, case.n_draws, case.n_examples)
    peak = Peak(settings.clock, 2048)
    peers, left_out = draws(network, test.x, case)
    functions: dict[str, Callable[[], Any]] = {"ours": lambda: ours.seconds(settings)}
    for name, draw in peers.items():
        try:
            draw()
        except Exception as error:  # another's fault: the others are measured all the same
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            functions[name] = draw
    functions["ours"]()
    seconds = in_turns(
        {**functions, "peak": peak.sample}, case.n_repeats, time.perf_counter, warm_up=False
    )
    del seconds["peak"]
    seconds["ours"] /= case.n_draws + 1
    for name in seconds:
        if name.endswith("vmap"):
            seconds[name] /= case.n_at_once
    return {
        "ms_per_draw": {name: 1e3 * one for name, one in seconds.items()},
        "left_out": left_out,
        "peak_gflops": {key: rate / 1e9 for key, rate in peak.rates.items()},
        "n_cores": len(cores),
    }


def draws(network: Network, x: Array, case: Case) -> tuple[dict[str, Draw], dict[str, str]]:
    """A function for each peer that is installed, and what is not."""
    layers = network.graph.layers
    assert isinstance(layers, LayerGraph)
    table, images = network.posterior, x.reshape(len(x), *conv_networks.CIFAR_IMAGE)
    weights = {**network.fixed, **layers.constants, **table.loc}
    found: dict[str, Draw] = {}
    for kind in ("Flipout", "Reparameterization"):
        for is_compiled in (False, True):
            name = f"tfp_{kind.lower()}{'_xla' if is_compiled else ''}"
            if not case.names or name in case.names:
                found[name] = _of_tfp(kind, table, weights, images, case.width, is_compiled)
    left_out: dict[str, str] = {}
    for library, make in (
        ("bayesian_torch", _of_bayesian_torch),
        ("torch", _of_torch),
        ("jax", _of_jax),
    ):
        if case.names and not any(name.startswith(library) for name in case.names):
            continue
        if not case.with_others:
            left_out[library] = "not asked for: --peers"
        elif importlib.util.find_spec(library) is None:
            left_out[library] = "not installed"
        else:
            made = make(layers, table, weights, images, case)
            found |= {k: v for k, v in made.items() if not case.names or k in case.names}
    return found, left_out


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
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, case: Case
) -> dict[str, Draw]:
    """Plain PyTorch: ``loc + scale * noise``, and the layers' operations."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(case.n_threads)
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
            noise = {name: torch.randn((case.n_at_once, *loc[name].shape)) for name in loc}
            return np.asarray(torch.func.vmap(forward)(noise))

    return {"torch": one, "torch_vmap": some}


def _of_bayesian_torch(
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, case: Case
) -> dict[str, Draw]:
    """bayesian-torch's layers, between PyTorch's own."""
    import torch
    from bayesian_torch import layers as of_torch

    torch.set_num_threads(case.n_threads)
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
    layers: LayerGraph, table: Posterior, weights: Mapping[str, Array], images: Array, case: Case
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
        "jax_vmap": lambda: np.asarray(
            of_some(jax.random.split(key(), case.n_at_once), x, loc, scale)
        ),
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


if __name__ == "__main__":
    # TFP's layers warn of what Keras calls deprecated, which is not the last line.
    sys.stdout.write(f"{json.dumps(measure(Case(**json.loads(sys.argv[1]))))}\n")
