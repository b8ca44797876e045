"""Layers without what pruning has made idle: live units, and the weights that are left. Pure.

A unit that no varying unit feeds is a constant; a unit that feeds nothing is not needed. Leaving
both out is exact. Running what is left does not belong here (``evaluators.chain``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.chain import ConvolutionLayer, DenseLayer
from ..posterior.mean_field import Posterior
from .interface import Noise

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Alive:
    """The units between two layers that the outputs depend on.

    Attributes
    ----------
    varying : int array
        Those that depend on the example, in ascending order.
    constant : int array
        Those that do not; their value is that of their bias and of other constants.
    """

    varying: Indices
    constant: Indices


def alive_units(nonzero: Sequence[NDArray[np.bool_]]) -> list[Alive]:
    """Find the units that are left in a chain of dense layers.

    Parameters
    ----------
    nonzero : sequence of bool array, shape (n_in, n_out) of each layer
        Where a weight is not exactly zero.

    Returns
    -------
    list of Alive
        One more than there are layers: the inputs first, of which none is constant, and the
        outputs last, all of which count as varying.
    """
    varies = [np.ones(nonzero[0].shape[0], bool)]
    for mask in nonzero:
        varies.append(mask[varies[-1]].any(axis=0))
    varies[-1][:] = True
    needed = [np.ones(nonzero[-1].shape[1], bool)]
    for mask in reversed(nonzero):
        needed.append(mask[:, needed[-1]].any(axis=1))
    needed.reverse()
    constant = [needed[0] & False]
    constant += [need & ~vary for need, vary in zip(needed[1:], varies[1:], strict=True)]
    return [
        Alive(np.flatnonzero(need & vary), np.flatnonzero(fixed))
        for need, vary, fixed in zip(needed, varies, constant, strict=True)
    ]


Floats = NDArray[np.float32]

_BLOCK_NUMBERS = 2**15
"""Weights that are drawn at a time."""


@dataclass(frozen=True)
class GaussianPart:
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
    ) -> GaussianPart:
        """The part with the given indices along each axis of ``shape``."""
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

    def deviation(self, noise: Noise, out: Floats) -> Floats | None:
        """``scale * noise``, in an array that is given; None if nothing varies."""
        if self.scale is None or noise.values is None:
            return None
        values = _taken(noise.values[self.name].reshape(self.shape), self.indices)
        return np.multiply(self.scale, values, out=out)

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the part in every draw: shape (n_draws, ...)."""
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
        """Parts along the first axis, of about so many numbers where its steps are not larger."""
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
    """A layer without what is idle, and its constant units and what they feed.

    Attributes
    ----------
    kernel : GaussianPart
        From varying units to varying units; of a convolution, as it multiplies patches.
    bias : GaussianPart or None
        Of the varying units.
    from_constants : GaussianPart or None
        The kernel from the constant units before to the varying ones.
    constants, constants_bias : GaussianPart or None
        The kernel from constant units to constant units, and the bias of those.
    n_constants : int
        Constant units after the layer.
    activation : str or None
    """

    kernel: GaussianPart
    bias: GaussianPart | None
    from_constants: GaussianPart | None
    constants: GaussianPart | None
    constants_bias: GaussianPart | None
    n_constants: int
    activation: str | None


@dataclass(frozen=True)
class Weights:
    """All weights of a network, with and without a posterior."""

    table: Posterior
    fixed: Mapping[str, NDArray[Any]]

    def nonzero(self, name: str) -> NDArray[np.bool_]:
        """Where a tensor's weights are not exactly zero."""
        if name in self.table.loc:
            return (self.table.loc[name] != 0) | (self.table.scale[name] != 0)
        return self.fixed[name] != 0

    def part(self, name: str, shape: tuple[int, ...], *indices: Indices) -> GaussianPart:
        """Part of a tensor, by indices along each axis of a shape."""
        loc = self.table.loc[name] if name in self.table.loc else self.fixed[name]
        return GaussianPart.of(name, loc, self.table.scale.get(name), shape, indices)

    def compact(self, layer: DenseLayer, before: Alive, after: Alive) -> CompactLayer:
        """A dense layer between units that are left."""
        shape = self.nonzero(layer.kernel).shape
        inputs, fed, constant = before.varying, before.constant, after.constant
        kernel, bias = layer.kernel, layer.bias
        return CompactLayer(
            kernel=self.part(kernel, shape, inputs, after.varying),
            bias=self.part(bias, shape[1:], after.varying) if bias else None,
            from_constants=self.part(kernel, shape, fed, after.varying) if len(fed) else None,
            constants=(
                self.part(kernel, shape, fed, constant) if len(fed) and len(constant) else None
            ),
            constants_bias=self.part(bias, shape[1:], constant) if bias and len(constant) else None,
            n_constants=len(constant),
            activation=layer.activation,
        )

    def compact_convolution(
        self, layer: ConvolutionLayer, filters: Indices, constant: Indices
    ) -> CompactLayer:
        """The convolution as a product with patches."""
        n_filters = self.nonzero(layer.kernel).shape[3]
        n_each = self.nonzero(layer.kernel).size // n_filters
        of_constants = constant % n_filters
        bias = layer.bias
        return CompactLayer(
            kernel=self.part(layer.kernel, (n_each, n_filters), np.arange(n_each), filters),
            bias=self.part(bias, (n_filters,), filters) if bias else None,
            from_constants=None,
            constants=None,
            constants_bias=(
                self.part(bias, (n_filters,), of_constants) if bias and len(constant) else None
            ),
            n_constants=len(constant),
            activation=layer.activation,
        )
