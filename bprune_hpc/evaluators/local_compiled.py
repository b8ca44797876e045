"""Runs dense layers with noise of each example's own with the compiled module.

The weights are those of the posterior, the same in every draw, so that none are made; pruned ones
are left out of both products. The first layer's two products are the same in every draw too, and
made once. Examples are worked on in tiles, each through all layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compiled
from .buffers import Threads, Workspace
from .chain_compiled import Tiles
from .compaction import Floats, GaussianSlice
from .compiled_layers import BOUNDS, DenseLayer, Form, nonzero
from .interface import Noise, Sampled, noise_batches_of
from .local_layer import LocalLayer, cost_of_units, index_of

_OUTPUT_BYTES = 2**18
"""Outputs that are worked on together: enough that calls take no time, and little memory."""
_OUTPUT_COST = 900
"""Work on an output of a draw, in operations of a product that take as long; measured."""


@dataclass(frozen=True)
class CompiledLocal:
    """A pruned chain; see :class:`bprune_hpc.evaluators.interface.Pruned`."""

    layers: tuple[LocalLayer, ...]
    workspace: Workspace
    threads: Threads

    @cached_property
    def tiles(self) -> Tiles:
        """How examples become tiles."""
        kernel = self.layers[0].mean
        left, _ = kernel.indices
        return Tiles(np.arange(len(kernel.loc)) if left is None else left)

    @cached_property
    def products(self) -> list[tuple[_Product, _Product | None]]:
        """Those of each layer's means and variances."""
        return [
            (
                _Product.of(layer, layer.mean, layer.mean_bias),
                None
                if layer.variance is None
                else _Product.of(layer, layer.variance, layer.variance_bias),
            )
            for layer in self.layers
        ]

    @property
    def n_outputs(self) -> int:
        """Outputs of an example."""
        return self.layers[-1].n_units

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        kernels = [one for layer in self.layers[1:] for one in (layer.mean, layer.variance) if one]
        products = sum(Form.of(nonzero(kernel)).cost for kernel in kernels)
        return int(products) + cost_of_units(self.layers) + _OUTPUT_COST * (self.n_outputs + 4)

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return noise_batches_of(noises, _OUTPUT_BYTES // (2 * 4 * self.n_outputs * n_examples))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _Sampled(self, noises)


@dataclass(frozen=True)
class _Product:
    """A product without the weights that are zero, as the compiled module takes it."""

    layer: DenseLayer
    bias: Floats

    @classmethod
    def of(cls, local: LocalLayer, kernel: GaussianSlice, bias: Floats) -> _Product:
        layer = DenseLayer.of(replace(local.layer, kernel=kernel), at_mean=True)
        padded = np.zeros(layer.n_padded, np.float32)
        padded[: layer.n_out] = bias
        return cls(layer, padded)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.layer.arguments(self.layer.weights.loc, self.bias)

    @property
    def n_padded(self) -> int:
        return self.layer.n_padded


@dataclass(frozen=True)
class _Sampled:
    chain: CompiledLocal
    noises: Sequence[Noise]

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        chain = self.chain
        tiles = chain.tiles.fill(x, chain.workspace, chain.threads)
        mean, variance = chain.products[0]
        means = self._multiply("means", tiles, mean)
        deviations = None
        if variance is not None:
            np.square(tiles, out=tiles)
            deviations = self._multiply("deviations", tiles, variance)
            np.sqrt(deviations, out=deviations)
        for noise_batch in noise_batches:
            some = self.noises[noise_batch]
            n_draws = sum(len(noise.draws) for noise in some)
            out = np.empty(
                (n_draws, chain.n_outputs, len(tiles) * compiled.module.TILE), np.float32
            )
            start = 0
            for noise in some:
                stop = start + len(noise.draws)
                self._run(noise, first_example, means, deviations, out[start:stop])
                start = stop
            yield out[:, :, : len(x)]

    def _multiply(self, kind: str, tiles: Floats, product: _Product) -> Floats:
        """A product of the first layer, shape (n_tiles, n_padded, TILE)."""
        chain = self.chain
        n_rows = max(1, product.n_padded)  # of a layer without units there is nothing to read
        out = chain.workspace.array(kind, len(tiles), n_rows, compiled.module.TILE)

        def run(_: Workspace, start: int, stop: int) -> None:
            compiled.module.multiply(
                compiled.instructions(), tiles, tiles.shape[1], product.arguments, out, start, stop
            )

        chain.threads.run(run, len(tiles))
        return out

    def _run(
        self,
        noise: Noise,
        first_example: int,
        means: Floats,
        deviations: Floats | None,
        out: Floats,
    ) -> None:
        """The draws of a noise, on all tiles."""
        chain, own = self.chain, noise.of_examples
        layers = tuple(
            (
                mean.arguments,
                None if variance is None else variance.arguments,
                None if own is None or layer.tensor is None else own.key(layer.tensor),
                layer.units,
                BOUNDS[layer.layer.activations],
            )
            for layer, (mean, variance) in zip(chain.layers, chain.products, strict=True)
        )
        signs = tuple(float(draw.sign) for draw in noise.draws)
        most = max(
            product.n_padded for products in chain.products for product in products if product
        )
        n_scratch = 4 * most + sum(layer.n_units for layer in chain.layers)
        n_deviations = 0 if deviations is None else deviations.shape[1]

        def run(workspace: Workspace, start: int, stop: int) -> None:
            scratch = workspace.array("scratch", n_scratch, compiled.module.TILE)
            compiled.module.forward_local(
                compiled.instructions(), means, means.shape[1], deviations, n_deviations, layers,
                signs, index_of(noise), first_example, out, scratch, start, stop,
            )  # fmt: skip

        chain.threads.run(run, len(means))
