"""A chain of layers without what pruning has made idle: live neurons, and the weights left. Pure.

A neuron or filter that no varying one feeds is a constant; one that feeds nothing is not needed.
Leaving both out is exact. What does not belong here: running it (``evaluators.chain``), and any
other network (``evaluators.compact_graph``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Convolution, Layer
from ..posterior.mean_field import Posterior
from ..posterior.pruning import Mask
from .interface import Noise

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class LiveUnits:
    """The neurons or channels between two layers that the outputs depend on, in ascending order.

    Attributes
    ----------
    varying : int array
        Those that depend on the example.
    constant : int array
        The others; their value is that of their bias and of other constants.
    """

    varying: Indices
    constant: Indices


def live_units(feeds: Sequence[Mask]) -> list[LiveUnits]:
    """Find what is left between layers that follow one another.

    Parameters
    ----------
    feeds : sequence of bool array, shape (n_in, n_out)
        Of each layer: whether any weight from a neuron or channel to another one is not zero.

    Returns
    -------
    list of LiveUnits
        One more than there are layers: the inputs first, of which none is constant, and the
        outputs last, all of which count as varying.
    """
    varies = [np.ones(feeds[0].shape[0], bool)]
    for layer in feeds:
        varies.append(layer[varies[-1]].any(axis=0))
    varies[-1] = np.ones_like(varies[-1])
    needed = [np.ones_like(varies[-1])]
    for layer in reversed(feeds):
        needed.append(layer[:, needed[-1]].any(axis=1))
    needed.reverse()
    return [
        LiveUnits(np.flatnonzero(need & vary), np.flatnonzero(need & ~vary))
        for need, vary in zip(needed, varies, strict=True)
    ]


Floats = NDArray[np.float32]

_BLOCK_NUMBERS = 2**15
"""Weights that are drawn at a time."""


@dataclass(frozen=True)
class GaussianSlice:
    """Means and deviations of some of a tensor's weights.

    Attributes
    ----------
    name : str
        Of the tensor.
    loc : float32 array
    scale : float32 array or None
        None for weights that are fixed.
    shape : tuple of int
        In which the whole tensor is indexed.
    indices : sequence of int array or None
        Which numbers of the tensor, along each axis of ``shape``; None for all.
    """

    name: str
    loc: Floats
    scale: Floats | None
    shape: tuple[int, ...]
    indices: Sequence[Indices | None]

    @classmethod
    def of(
        cls,
        name: str,
        loc: Floats,
        scale: Floats | None,
        shape: tuple[int, ...],
        indices: Sequence[Indices],
    ) -> GaussianSlice:
        """Those with the given indices along each axis of ``shape``."""
        chosen = [
            None if np.array_equal(index, np.arange(size)) else index
            for index, size in zip(indices, shape, strict=True)
        ]
        return cls(
            name,
            _taken(loc.reshape(shape), chosen),
            None if scale is None else _taken(scale.reshape(shape), chosen),
            shape,
            chosen,
        )

    def without(self, inputs: NDArray[np.bool_], outputs: NDArray[np.bool_]) -> GaussianSlice:
        """The same with zeros for some inputs and outputs, its last two axes."""
        idle = inputs[:, None] | outputs
        if not idle.any():
            return self
        scale = None if self.scale is None else np.where(idle, np.float32(0), self.scale)
        return replace(self, loc=np.where(idle, np.float32(0), self.loc), scale=scale)

    def deviation(self, noise: Noise, out: Floats) -> Floats | None:
        """``scale * noise``, in an array that is given; None if nothing varies."""
        if self.scale is None or noise.values is None:
            return None
        values = _taken(noise.values[self.name].reshape(self.shape), self.indices)
        return np.multiply(self.scale, values, out=out)

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the weights of every draw: shape (n_draws, ...)."""
        at = 0
        for noise in noises:
            of_noise = out[at : at + len(noise.draws)]
            at += len(noise.draws)
            if self.scale is None or noise.values is None:
                of_noise[...] = self.loc
                continue
            values = _taken(noise.values[self.name].reshape(self.shape), self.indices)
            for rows in self._blocks():
                deviation = self.scale[rows] * values[rows]
                for draw, weights in zip(noise.draws, of_noise, strict=True):
                    add = np.add if draw.sign > 0 else np.subtract
                    add(self.loc[rows], deviation, out=weights[rows])

    def _blocks(self) -> Iterator[slice]:
        """Slices along the first axis, of about so many numbers where its steps are not larger."""
        step = max(1, _BLOCK_NUMBERS * len(self.loc) // max(1, self.loc.size))
        for start in range(0, len(self.loc), step):
            yield slice(start, start + step)


def _taken(values: Floats, indices: Sequence[Indices | None]) -> Floats:
    """The numbers with some indices along each axis; whole rows first, which is the fastest."""
    for axis, index in enumerate(indices):
        if index is not None:
            values = np.take(values, index, axis=axis, mode="clip")
    return values


@dataclass(frozen=True)
class CompactLayer:
    """A layer without what is idle, and its constants and what they feed.

    Attributes
    ----------
    kernel : GaussianSlice
        A matrix from varying neurons to varying neurons. Its rows are, of a convolution, those of
        each place of the window; of a dense layer behind an image, those of each place of it.
    bias : GaussianSlice or None
        Of the varying neurons.
    from_constants : GaussianSlice or None
        The kernel from constants before the layer to varying neurons.
    constants, constants_bias : GaussianSlice or None
        The kernel from constants to constants, and the bias of those.
    n_constants : int
        Constants after the layer, those of each place where an image is made flat.
    activations : tuple of str
        In their order.
    """

    kernel: GaussianSlice
    bias: GaussianSlice | None
    from_constants: GaussianSlice | None
    constants: GaussianSlice | None
    constants_bias: GaussianSlice | None
    n_constants: int
    activations: tuple[str, ...]


@dataclass(frozen=True)
class Weights:
    """All weights of a network, with and without a posterior."""

    posterior: Posterior
    fixed: Mapping[str, NDArray[Any]]

    def nonzero(self, name: str) -> Mask:
        """Where a tensor's weights are not exactly zero."""
        if name in self.posterior.loc:
            return (self.posterior.loc[name] != 0) | (self.posterior.scale[name] != 0)
        return self.fixed[name] != 0

    def matrix(self, name: str, *indices: Indices) -> GaussianSlice:
        """Some of a tensor, by its indices along all axes but the last, and along that."""
        loc = self._loc(name)
        shape = (loc.size // loc.shape[-1], loc.shape[-1])[-len(indices) :]
        return GaussianSlice.of(name, loc, self.posterior.scale.get(name), shape, indices)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        return {name: value.shape for name, value in {**self.fixed, **self.posterior.loc}.items()}

    def slice(self, name: str, shape: tuple[int, ...], *indices: Indices) -> GaussianSlice:
        """Some of a tensor, by its indices along the axes of another shape of it."""
        loc = self._loc(name).reshape(shape)
        return GaussianSlice.of(name, loc, self.posterior.scale.get(name), loc.shape, indices)

    def _loc(self, name: str) -> NDArray[Any]:
        return self.posterior.loc[name] if name in self.posterior.loc else self.fixed[name]


def compact(
    layers: Sequence[Layer], weights: Weights, *, folds_constants: bool = True
) -> tuple[CompactLayer, ...]:
    """The layers of a chain, of which the first alone may be a convolution, without what is idle.

    Parameters
    ----------
    folds_constants : bool
        Whether constants become a part of the biases that they feed; a convolution takes whole
        images. Else they stay: with noise of each example's own a bias that varies is no constant.
    """
    kernels = [weights.nonzero(layer.kernel) for layer in layers]
    n_units = [kernels[0].shape[-2], *(kernel.shape[-1] for kernel in kernels)]
    by_row = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]
    live = live_units(
        [
            kernel.reshape(-1, n_before, kernel.shape[1]).any(axis=0)
            for kernel, n_before in zip(by_row, n_units, strict=False)
        ]
    )
    varying, constant = [units.varying for units in live], [units.constant for units in live]
    if not folds_constants:
        varying = [np.union1d(units.varying, units.constant) for units in live]
        constant = [units.constant[:0] for units in live]
    if isinstance(layers[0].product, Convolution):
        varying[0] = np.arange(n_units[0])
    inputs, fed = [], []
    for at, kernel in enumerate(by_row):
        rows = np.arange(len(kernel)).reshape(-1, n_units[at])
        inputs.append(rows[:, varying[at]].ravel())
        of_constants = rows[:, constant[at]].ravel()
        left = np.concatenate([varying[at + 1], constant[at + 1]])
        fed.append(of_constants[kernel[of_constants][:, left].any(axis=1)])
    fed.append(constant[-1])
    out = []
    for at, layer in enumerate(layers):
        after, constants = varying[at + 1], fed[at + 1] % n_units[at + 1]
        has_fed, has_constants = len(fed[at]) > 0, len(constants) > 0
        matrix, bias = partial(weights.matrix, layer.kernel), layer.bias
        out.append(
            CompactLayer(
                kernel=matrix(inputs[at], after),
                bias=weights.matrix(bias, after) if bias else None,
                from_constants=matrix(fed[at], after) if has_fed else None,
                constants=matrix(fed[at], constants) if has_fed and has_constants else None,
                constants_bias=weights.matrix(bias, constants) if bias and has_constants else None,
                n_constants=len(constants),
                activations=layer.activations,
            )
        )
    return tuple(out)
