"""Chains of layers at random, and the same written out plainly in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special

from bprune_hpc.evaluators.chain import ChainNetwork
from bprune_hpc.evaluators.im2col import Patches
from bprune_hpc.evaluators.interface import Noise, Pruned
from bprune_hpc.graph.layer_graph import (
    NO_BORDERS,
    Activation,
    Bias,
    Borders,
    Convolution,
    Dense,
    Layer,
    Operation,
    Pooling,
    Reshape,
    same_border,
)
from bprune_hpc.posterior.draws import MEAN, Draw, standard_normal
from bprune_hpc.posterior.mean_field import Posterior

AT_MEAN = Noise(MEAN, (Draw(MEAN, 0, MEAN),), None)

REFERENCE = {
    "Relu": lambda v: np.where(v > 0, v, 0),
    "Relu6": lambda v: np.minimum(np.where(v > 0, v, 0), 6),
    "Tanh": np.tanh,
    "Sigmoid": special.expit,
    "Elu": lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0))),
    "Softplus": lambda v: np.log1p(np.exp(v)),
}


def plain_convolution(
    x: np.ndarray, kernel: np.ndarray, strides: tuple[int, int], borders: Borders
) -> np.ndarray:
    """By its definition: one sum for each place."""
    window = kernel.shape[:2]
    x = np.pad(x, ((0, 0), *borders, (0, 0)))
    rows = (x.shape[1] - window[0]) // strides[0] + 1
    columns = (x.shape[2] - window[1]) // strides[1] + 1
    out = np.empty((len(x), rows, columns, kernel.shape[3]))
    for r, c in np.ndindex(rows, columns):
        seen = x[
            :,
            r * strides[0] : r * strides[0] + window[0],
            c * strides[1] : c * strides[1] + window[1],
        ]
        out[:, r, c] = np.tensordot(seen, kernel, 3)
    return out


@dataclass(frozen=True)
class PlainChain:
    """A chain, and its plain evaluation.

    Attributes
    ----------
    layers : tuple of Layer
    posterior : Posterior
    fixed : dict of str to float32 array
    x : float32 array
        Examples.
    """

    layers: tuple[Layer, ...]
    posterior: Posterior
    fixed: dict[str, np.ndarray]
    x: np.ndarray

    @property
    def n_outputs(self) -> int:
        weights = {**self.posterior.loc, **self.fixed}
        return weights[self.layers[-1].kernel].shape[1]

    def with_examples(self, n: int, seed: int = 0) -> PlainChain:
        shape = n, *self.x.shape[1:]
        return replace(self, x=np.random.default_rng(seed).normal(size=shape).astype(np.float32))

    def pruned(self, n_threads: int = 1) -> Pruned:
        return ChainNetwork(self.layers, self.fixed, n_threads).prune(self.posterior)

    def outputs(
        self,
        noises: Sequence[Noise],
        noise_batches: Sequence[slice] = (slice(None),),
        x: np.ndarray | None = None,
        n_threads: int = 1,
    ) -> np.ndarray:
        """Outputs of all draws of the batches, one after the other."""
        chosen = [slice(*noise_batch.indices(len(noises))) for noise_batch in noise_batches]
        sampled = self.pruned(n_threads).sample(noises)
        return np.concatenate(list(sampled.outputs(self.x if x is None else x, chosen)))

    def plainly(self, noises: Sequence[Noise]) -> np.ndarray:
        """The same in double precision."""
        return np.array([self._plainly(noise, draw) for noise in noises for draw in noise.draws])

    def _plainly(self, noise: Noise, draw: Draw) -> np.ndarray:
        weights: dict[str, Any] = {name: loc.astype(float) for name, loc in self.fixed.items()}
        for name, loc in self.posterior.loc.items():
            weights[name] = loc.astype(float)
            if noise.values is not None:
                scale = self.posterior.scale[name].astype(float)
                weights[name] += draw.sign * scale * noise.values[name]
        values = self.x.astype(float)
        for layer in self.layers:
            product, kernel = layer.product, weights[layer.kernel]
            if isinstance(product, Convolution):
                images = values.reshape(len(values), *product.image)
                values = plain_convolution(images, kernel, product.strides, product.borders)
            else:
                values = values.reshape(len(values), -1) @ kernel
            for one in layer.after:
                values = self._after(one, values, weights)
        return values.T

    @staticmethod
    def _after(one: Operation, values: np.ndarray, weights: dict[str, Any]) -> np.ndarray:
        if isinstance(one, Bias):
            return values + weights[one.name]
        if isinstance(one, Activation):
            return REFERENCE[one.function](values)
        if isinstance(one, Pooling):
            n, n_rows, n_columns, n_filters = values.shape
            down, right = one.window
            tiles = values.reshape(n, n_rows // down, down, n_columns // right, right, n_filters)
            return tiles.max(axis=(2, 4))
        assert isinstance(one, Reshape)
        return values.reshape(len(values), *one.shape)

    def noises(self, n: int, signs: Sequence[int] = (1, -1)) -> list[Noise]:
        """Noises with a draw for each sign."""
        return [
            Noise(
                unit,
                tuple(Draw(len(signs) * unit + at, sign, unit) for at, sign in enumerate(signs)),
                {
                    name: standard_normal(7, name, unit, loc.shape)
                    for name, loc in self.posterior.loc.items()
                },
            )
            for unit in range(n)
        ]


def random_chain(
    *sizes: int,
    kept: float = 1.0,
    activation: str | None = "Relu",
    last: str | None = None,
    bias: str = "posterior",
    fixed: Sequence[str] = (),
    convolution: Layer | None = None,
    n_filters: int = 0,
    n_examples: int = 70,
    seed: int = 0,
) -> PlainChain:
    """A chain of dense layers, perhaps after a convolution.

    Values are about 1, or several times that where an activation cuts off what is above six.

    Parameters
    ----------
    sizes : ints
        Units from the examples to the outputs; after a convolution, without those that it gives.
    kept : float
        Share of the weights that are not exactly zero.
    activation, last : str or None
        Of the layers, and of the last one.
    bias : {"posterior", "fixed", "none"}
    fixed : sequence of str
        Kernels, "k0" and so on, that have no posterior.
    """
    generator = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {}
    if convolution is not None:
        product, pooling = convolution.product, convolution.pooling
        assert isinstance(product, Convolution)
        shapes["conv"] = (*product.window, product.image[2], n_filters)
        shapes["conv bias"] = (n_filters,)
        pool = pooling.window if pooling else (1, 1)
        sizes = n_filters * Patches(product, pool).n_positions, *sizes
        of_bias = () if bias == "none" else (Bias("conv bias"),)
        flat = Reshape((sizes[0],), sizes[0] // n_filters)
        convolution = replace(convolution, after=(*of_bias, *convolution.after, flat))
    n_layers = len(sizes) - 1
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        shapes[f"k{layer}"], shapes[f"b{layer}"] = (n_in, n_out), (n_out,)
    has_relu6 = convolution is not None and "Relu6" in convolution.activations
    gain = 4.0 if has_relu6 or "Relu6" in (activation, last) else 1.0
    loc, scale = {}, {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            mask, width = np.ones(shape), 0.3
        else:
            mask = generator.random(shape) < kept
            width = gain * max(1.0, kept * np.prod(shape[:-1])) ** -0.5
        loc[name] = (mask * generator.normal(0, width, shape)).astype(np.float32)
        scale[name] = (mask * generator.uniform(0.1, 0.5, shape) * width).astype(np.float32)
    biases = [name for name, shape in shapes.items() if len(shape) == 1]
    without = biases if bias != "posterior" else []
    of_fixed = {name: loc[name] for name in (*fixed, *without)}
    for name in of_fixed:
        del loc[name], scale[name]
    if bias == "none":
        of_fixed = {name: value for name, value in of_fixed.items() if name not in biases}
    dense = tuple(
        dense_layer(
            f"k{layer}",
            None if bias == "none" else f"b{layer}",
            last if layer == n_layers - 1 else activation,
        )
        for layer in range(n_layers)
    )
    shape_of_x = (sizes[0],) if convolution is None else product.image
    x = generator.normal(size=(n_examples, *shape_of_x)).astype(np.float32)
    layers = dense if convolution is None else (convolution, *dense)
    return PlainChain(layers, Posterior(loc, scale), of_fixed, x)


def dense_layer(kernel: str, bias: str | None, activation: str | None) -> Layer:
    """A dense layer, and what follows it."""
    of_bias = () if bias is None else (Bias(bias),)
    of_activation = () if activation is None else (Activation(activation),)
    return Layer(Dense(kernel), (*of_bias, *of_activation))


def convolution_of(
    image: tuple[int, int, int],
    window: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    pool: tuple[int, int] = (1, 1),
    activation: str | None = "Relu",
) -> Layer:
    """A convolution, to which ``random_chain`` adds a bias and that it is made flat."""
    of_activation = () if activation is None else (Activation(activation),)
    of_pool = () if pool == (1, 1) else (Pooling("MaxPool", pool, pool),)
    borders = borders_of(padding, image, window, strides)
    return Layer(Convolution("conv", window, image, strides, borders), (*of_activation, *of_pool))


def borders_of(
    padding: str, image: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> Borders:
    """What TensorFlow's paddings put around an image."""
    rows, columns, *_ = map(same_border, image, window, strides)
    return (rows, columns) if padding == "SAME" else NO_BORDERS
