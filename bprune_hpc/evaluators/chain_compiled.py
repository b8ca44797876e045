"""Runs a chain of layers with the compiled module, without the weights that pruning has zeroed.

Examples are worked on in tiles, each through all layers, so that values stay in the core's cache.
The first layer's inputs are read once for the mean and for several noises, and a convolution's
pooling is done while its numbers are at hand. A number's terms are added in the same order whatever
is beside it, so that its bits are the same whichever draws, examples and threads there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compiled
from .buffers import Threads, Workspace
from .compaction import CompactLayer, Floats
from .compiled_layers import BOUNDS, DenseLayer, FirstLayer, Form, nonzero
from .dense_ops import drawn_biases
from .im2col import Patches
from .interface import Noise, Sampled, noise_batches_of

_OUTPUT_BYTES = 2**18
"""Outputs that are worked on together: enough that calls take no time, and little memory."""
_OUTPUT_COST = 900
"""Work on an output of a draw, in operations of a product that take as long; measured."""
NEAR_BYTES = 2**20
"""Numbers of a draw that stay in a core's cache from one tile to the next."""
SPARSE = 0.45
"""Share of weights up to which leaving out the others gains more than reading once; measured."""
_MOST_INPUTS, _MOST_WEIGHTS = 2**24, 2**31 - 1
"""That places are counted to, in 32 bits."""


def is_faster(layers: Sequence[CompactLayer]) -> bool:
    """Whether to run layers here: follows from them and the installation alone.

    All numbers are read again for each tile, from a core's cache as long as they are few. Where
    they are many, a network that is hardly pruned is faster as whole matrices, which are read once
    for all examples.
    """
    if not can_run(layers):
        return False
    kernels = [layer.kernel for layer in layers]
    first, *others = (int(np.count_nonzero(nonzero(kernel))) for kernel in kernels)
    is_near = 4 * (first // 2 + sum(others)) <= NEAR_BYTES
    return is_near or first + sum(others) < SPARSE * sum(kernel.loc.size for kernel in kernels)


def can_run(layers: Sequence[CompactLayer]) -> bool:
    """Whether there is a compiled module, and it has what the layers need."""
    if compiled.instructions() == compiled.NONE or len(layers) > compiled.module.MOST_LAYERS:
        return False
    return all(
        layer.activations in BOUNDS
        and layer.kernel.loc.shape[0] <= _MOST_INPUTS
        and math.prod(layer.kernel.shape) <= _MOST_WEIGHTS
        for layer in layers
    )


class Tiles:
    """How examples become tiles.

    Attributes
    ----------
    columns : int32 array, shape (n_rows,)
        The number of an example that each row of a tile has; -1 for zeros.
    """

    def __init__(self, columns: NDArray[Any]) -> None:
        # A tile has a row even where no input is left.
        self.columns = np.asarray(columns if len(columns) else [-1], np.int32)

    def fill(self, x: NDArray[Any], workspace: Workspace, threads: Threads) -> Floats:
        """Examples as tiles, shape (n_tiles, n_rows, TILE)."""
        rows = np.ascontiguousarray(x.reshape(len(x), -1), np.float32)
        n_tiles = -(-len(x) // compiled.module.TILE)
        tiles = workspace.array("tiles", n_tiles, len(self.columns), compiled.module.TILE)

        def run(_: Workspace, start: int, stop: int) -> None:
            compiled.module.fill_tiles(rows, *rows.shape, self.columns, tiles, start, stop)

        threads.run(run, n_tiles)
        return tiles


@dataclass(frozen=True)
class CompiledChain:
    """A pruned chain; see :class:`bprune_hpc.evaluators.interface.Pruned`.

    Attributes
    ----------
    layers : tuple of CompactLayer
    patches : Patches or None
        Those of a convolution.
    workspace : Workspace
    threads : Threads
    """

    layers: tuple[CompactLayer, ...]
    patches: Patches | None
    workspace: Workspace
    threads: Threads

    @cached_property
    def tiles(self) -> Tiles:
        """How examples become tiles."""
        if self.patches is not None:
            columns, _, _ = self.patches.places()
            return Tiles(columns)
        kernel = self.layers[0].kernel
        left, _ = kernel.indices
        return Tiles(np.arange(len(kernel.loc)) if left is None else left)

    @cached_property
    def first(self) -> FirstLayer:
        """The first layer."""
        rows, bases = np.arange(self.layers[0].kernel.loc.shape[0]), np.zeros((1, 1), np.intp)
        if self.patches is not None:
            _, rows, bases = self.patches.places()
        tile = compiled.module.TILE
        return FirstLayer.of(
            self.layers[0], (rows * tile).astype(np.int32), (bases * tile).astype(np.int32)
        )

    @cached_property
    def mean(self) -> DenseLayer | None:
        """The first layer as one whose products with ``loc`` are made once for many draws.

        None for a convolution, which makes them with those of a group of noises: they are many.
        """
        return None if self.patches else DenseLayer.of(self.layers[0], at_mean=True)

    @cached_property
    def dense(self) -> tuple[DenseLayer, ...]:
        """The other layers."""
        return tuple(DenseLayer.of(layer) for layer in self.layers[1:])

    @property
    def n_outputs(self) -> int:
        """Outputs of an example."""
        return self.layers[-1].kernel.loc.shape[1]

    @property
    def noises_of_group(self) -> int:
        """Noises whose products of the first layer are made together."""
        n_columns: int = compiled.module.SHARED
        return n_columns - (self.patches is not None)  # whose mean is one of the columns

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        first, *others = (nonzero(layer.kernel) for layer in self.layers)
        products = float(np.count_nonzero(first))  # once for two draws
        if self.patches is not None:  # and the mean beside a group of noises
            products *= self.patches.n_rows * (1 + 1 / self.noises_of_group)
        products += sum(Form.of(kept).cost for kept in others)
        return int(products) + _OUTPUT_COST * (self.n_outputs + 4)

    def noise_batches(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`; whole groups."""
        most = _OUTPUT_BYTES // (2 * 4 * self.n_outputs * n_examples)
        return noise_batches_of(noises, most, self.noises_of_group)

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return _Sampled(self, noises)


@dataclass(frozen=True)
class _Group:
    """Draws that are made together.

    Attributes
    ----------
    start, stop : int
        Of all draws.
    columns : tuple of int
        The first layer's column of each draw; -1 for the mean.
    signs : tuple of float
    weights, bias : float32 array, shape (n_weights or n_filters, n_columns)
        Of the first layer: ``loc`` where its products are made here, and ``scale * noise`` of each
        noise.
    """

    start: int
    stop: int
    columns: tuple[int, ...]
    signs: tuple[float, ...]
    weights: Floats
    bias: Floats


class _Sampled:
    """Draws of a compiled chain."""

    def __init__(self, chain: CompiledChain, noises: Sequence[Noise]) -> None:
        self._chain = chain
        self._starts = np.cumsum([0, *(len(noise.draws) for noise in noises)]).tolist()
        n_draws = self._starts[-1]
        self._dense = []
        biases = drawn_biases(chain.layers, noises)
        for number, (layer, bias) in enumerate(zip(chain.dense, biases, strict=True), 1):
            drawn = chain.workspace.array(f"weights {number}", n_draws, len(layer.weights))
            layer.weights.draws(noises, drawn)
            padded = np.zeros((n_draws, layer.n_padded), np.float32)
            padded[:, : layer.n_out] = bias
            self._dense.append((layer, drawn, padded))
        self._groups = list(self._grouped(noises))

    def _grouped(self, noises: Sequence[Noise]) -> Iterator[_Group]:
        chain = self._chain
        groups = noise_batches_of(noises, chain.noises_of_group)
        n_before, n_rows = int(chain.mean is None), len(chain.first.rows)
        n_noises = [sum(noise.values is not None for noise in noises[group]) for group in groups]
        n_most = n_before + max(n_noises, default=0)
        held = chain.workspace.array("weights 0", len(groups), n_rows * n_most)
        for group, n_own, of_group in zip(groups, n_noises, held, strict=True):
            some, n_columns = noises[group], n_before + n_own
            weights = of_group[: n_rows * n_columns].reshape(n_rows, n_columns)
            chain.first.weights.columns(some, n_before, weights)
            bias = np.zeros((chain.first.n_filters, n_columns), np.float32)
            if chain.first.bias is not None:
                chain.first.bias.columns(some, n_before, bias)
            columns, signs = [], []
            next_column = n_before
            for noise in some:
                columns += [
                    next_column if noise.values and draw.sign else -1 for draw in noise.draws
                ]
                signs += [float(draw.sign) for draw in noise.draws]
                next_column += noise.values is not None
            yield _Group(
                self._starts[group.start], self._starts[group.stop], tuple(columns), tuple(signs),
                weights, bias,
            )  # fmt: skip

    def outputs(
        self, x: NDArray[Any], noise_batches: Sequence[slice], first_example: int = 0
    ) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        chain = self._chain
        tiles = chain.tiles.fill(x, chain.workspace, chain.threads)
        means = self._means(tiles)
        n_columns = len(tiles) * compiled.module.TILE
        for noise_batch in noise_batches:
            start, stop = self._starts[noise_batch.start], self._starts[noise_batch.stop]
            out = np.empty((stop - start, chain.n_outputs, n_columns), np.float32)
            for group in self._groups:
                first, last = max(start, group.start), min(stop, group.stop)
                if first < last:
                    some = slice(first - group.start, last - group.start)
                    self._run(group, some, tiles, means, out[first - start : last - start])
            yield out[:, :, : len(x)]

    def _means(self, tiles: Floats) -> Floats | None:
        """Products of the first layer with ``loc``, shape (n_tiles, n_units or more, TILE)."""
        chain = self._chain
        layer, bias = chain.mean, chain.first.bias
        if layer is None:
            return None
        padded = np.zeros(layer.n_padded, np.float32)
        if bias is not None:
            padded[: layer.n_out] = bias.loc
        arguments = layer.arguments(layer.weights.loc, padded)
        means = chain.workspace.array("means", len(tiles), layer.n_padded, compiled.module.TILE)

        def run(_: Workspace, start: int, stop: int) -> None:
            compiled.module.multiply(
                compiled.instructions(), tiles, tiles.shape[1], arguments, means, start, stop
            )

        chain.threads.run(run, len(tiles))
        return means

    def _run(
        self, group: _Group, some: slice, tiles: Floats, means: Floats | None, out: Floats
    ) -> None:
        """Some draws of a group, on all tiles."""
        chain = self._chain
        first = chain.first.arguments(group.weights, group.bias)
        draws = slice(group.start + some.start, group.start + some.stop)
        dense = tuple(
            layer.arguments(weights[draws], bias[draws]) for layer, weights, bias in self._dense
        )
        padded = [layer.n_padded for layer in chain.dense]
        n_scratch = len(out) * (compiled.module.BLOCK + sum(padded[:1]))
        n_scratch += 2 * max(padded[1:], default=0)

        def run(workspace: Workspace, start: int, stop: int) -> None:
            scratch = workspace.array("scratch", n_scratch, compiled.module.TILE)
            compiled.module.forward(
                compiled.instructions(), tiles, tiles.shape[1], first, means, group.columns[some],
                group.signs[some], dense, out, scratch, start, stop,
            )  # fmt: skip

        chain.threads.run(run, len(tiles))
