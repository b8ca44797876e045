"""A dense layer whose units are drawn: the kernels of their means and of their variances. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .._typing import Int32Array
from .compaction import CompactLayer, Floats, GaussianSlice
from .interface import Noise

NORMAL_COST = 60
"""Work on a unit of a draw, in operations of a product that take as long: half of a standard
normal, since a pair shares it, a square root and an activation; measured."""


@dataclass(frozen=True)
class LocalLayer:
    """A dense layer of a pruned chain, none of whose constants are folded."""

    layer: CompactLayer

    @cached_property
    def mean(self) -> GaussianSlice:
        """What multiplies the inputs."""
        return replace(self.layer.kernel, scale=None)

    @cached_property
    def variance(self) -> GaussianSlice | None:
        """What multiplies their squares; None where nothing of the layer varies."""
        if self.tensor is None:
            return None
        kernel = self.layer.kernel
        return replace(kernel, loc=_square(kernel.scale, kernel.loc), scale=None)

    @cached_property
    def mean_bias(self) -> Floats:
        """Mean of each unit's bias."""
        bias = self.layer.bias
        return np.zeros(self.n_units, np.float32) if bias is None else bias.loc

    @cached_property
    def variance_bias(self) -> Floats:
        """Variance of each unit's bias."""
        bias = self.layer.bias
        return _square(None if bias is None else bias.scale, self.mean_bias)

    @property
    def tensor(self) -> str | None:
        """The tensor that names the normals of its units; None where nothing varies.

        The kernel, or the bias, if that alone has a posterior.
        """
        for weights in (self.layer.kernel, self.layer.bias):
            if weights is not None and weights.scale is not None:
                return weights.name
        return None

    @property
    def n_units(self) -> int:
        """Units that are left."""
        return self.layer.kernel.loc.shape[1]

    @cached_property
    def units(self) -> Int32Array:
        """Which they are of the whole layer, so that a unit's noise is that of any pruning."""
        left = self.layer.kernel.indices[1]
        return np.asarray(np.arange(self.n_units) if left is None else left, np.int32)


def cost_of_units(layers: Sequence[LocalLayer]) -> int:
    """Work of drawing the units of all layers; see ``interface.Pruned.cost``."""
    return NORMAL_COST * sum(layer.n_units for layer in layers)


def index_of(noise: Noise) -> int:
    """Which normals a noise has; 0 of the posterior mean, which has none."""
    return 0 if noise.of_examples is None else noise.of_examples.noise


def _square(scale: Floats | None, like: Floats) -> Floats:
    return np.zeros_like(like) if scale is None else scale * scale
