"""A chain's layers without what is idle: which numbers of which weights are left. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alive import Alive, Indices
from .chain import ConvolutionLayer, DenseLayer
from .gaussian_part import GaussianPart
from .posterior import Posterior


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
