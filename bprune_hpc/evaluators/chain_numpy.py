"""Runs a pruned chain of layers with NumPy.

The first layer's products are shared by draws (``evaluators.first_layer``). A draw goes through all
layers by itself, so that its values stay in the core's cache and its bits are the same whichever
draws are evaluated beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .buffers import Workspace
from .compaction import CompactLayer, Floats, Indices
from .dense_ops import (
    activate,
    activation_of_units,
    drawn_kernels,
    multiply,
    multiply_last,
    put_one,
    width_of,
)
from .first_layer import ConvolutionFirst, DenseFirst, FirstLayer, Piece
from .im2col import Patches
from .interface import Noise, Sampled, stacks_of

_OUTPUT_BYTES = 2**19
"""Outputs that are worked on together, as the float64 that they will be: few calls, and little
that leaves the cache."""
_OUTPUT_COST = 1500
"""Work on an output of a draw, in operations of a product that take as long; measured."""


@dataclass(frozen=True)
class NumpyChain:
    """A pruned chain; see :class:`bprune_hpc.evaluators.interface.Pruned`.

    Attributes
    ----------
    layers : tuple of CompactLayer
    inputs : int array or None
        Which of a dense layer's inputs are left; None for all.
    patches : Patches or None
        Those of a convolution.
    room : Workspace
    """

    layers: tuple[CompactLayer, ...]
    inputs: Indices | None
    patches: Patches | None
    room: Workspace

    @property
    def cost(self) -> int:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        # A pair has one product of the first layer's for its two draws.
        first, *others = (layer.kernel.loc.size for layer in self.layers)
        n_rows = self.patches.n_rows if self.patches else 1
        return n_rows * first + 2 * sum(others) + _OUTPUT_COST * (self._n_outputs + 8)

    @property
    def _n_outputs(self) -> int:
        return self.layers[-1].kernel.loc.shape[1]

    def stacks(self, noises: Sequence[Noise], n_examples: int) -> list[slice]:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        return stacks_of(noises, max(1, _OUTPUT_BYTES // (2 * 8 * self._n_outputs * n_examples)))

    def sample(self, noises: Sequence[Noise]) -> Sampled:
        """See :class:`bprune_hpc.evaluators.interface.Pruned`."""
        kernels = drawn_kernels(self.layers, noises, self.room)
        starts = [0, *np.cumsum([len(noise.draws) for noise in noises]).tolist()]
        first: FirstLayer
        if self.patches is None:
            is_last = len(self.layers) == 1
            first = DenseFirst(self.layers[0], self.inputs, noises, is_last, self.room)
        else:
            first = ConvolutionFirst(self.layers[0], self.patches, noises, self.room)
        return _SampledChain(first, self.layers[1:], kernels, starts, self._n_outputs, self.room)


@dataclass(frozen=True)
class _SampledChain:
    """Draws of a pruned chain.

    Attributes
    ----------
    first : FirstLayer
    layers : tuple of CompactLayer
        The others.
    kernels : sequence of float32 array
        Theirs, in every draw (``kernels``).
    starts : sequence of int
        First draw of each noise, and the number of draws.
    """

    first: FirstLayer
    layers: tuple[CompactLayer, ...]
    kernels: Sequence[Floats]
    starts: Sequence[int]
    n_outputs: int
    room: Workspace

    def outputs(self, x: NDArray[Any], stacks: Sequence[slice]) -> Iterator[Floats]:
        """See :class:`bprune_hpc.evaluators.interface.Sampled`."""
        of_pieces = (self._of_piece(piece, stacks) for piece in self.first.pieces(x))
        if self.first.is_whole:
            yield from next(of_pieces)
            return
        pieces = [list(of_stacks) for of_stacks in of_pieces]  # each before the next is made
        for of_stack in zip(*pieces, strict=True):
            yield np.concatenate(of_stack, axis=2)

    def _of_piece(self, piece: Piece, stacks: Sequence[slice]) -> Iterator[Floats]:
        """Outputs of some examples for each stack of noises."""
        n_examples = piece.rows.stop - piece.rows.start
        between = zip(self.layers[:-1], self.kernels[:-1], strict=True)
        hidden = [
            _Hidden.of(layer, kernels, n_examples, f"values {number}", self.room)
            for number, (layer, kernels) in enumerate(between, 1)
        ]
        for stack in stacks:
            start, stop = self.starts[stack.start], self.starts[stack.stop]
            out = np.empty((stop - start, self.n_outputs, n_examples), np.float32)
            firsts = self.first.values(piece, range(stack.start, stack.stop))
            for draw, values in zip(range(start, stop), firsts, strict=True):
                for layer in hidden:
                    values = layer.run(values, draw)
                if self.layers:
                    multiply_last(values, self.kernels[-1][draw], out[draw - start])
                else:
                    out[draw - start] = values.T
            if self.layers:
                activate(self.layers[-1].activation, out)
            yield out


@dataclass(frozen=True)
class _Hidden:
    """A layer between others, on examples whose values lie at the same place in every draw.

    Attributes
    ----------
    kernels : float32 array, shape (n_draws, n_rows, n_columns)
    values : float32 array
        As the next kernel takes them.
    n_units : int
        Of the layer; the other columns are what the next kernel takes.
    activate : callable
        What works on the values.
    """

    kernels: Floats
    values: Floats
    n_units: int
    activate: Callable[[], Any]

    @classmethod
    def of(
        cls, layer: CompactLayer, kernels: Floats, n_examples: int, kind: str, room: Workspace
    ) -> _Hidden:
        """With values in a room, of a kind of their own."""
        n_units = layer.kernel.loc.shape[1]
        values = room.array(kind, n_examples, width_of(n_units))
        put_one(values, n_units)
        activate = activation_of_units(layer.activation, values, n_units)
        return cls(kernels, values, n_units, activate)

    def run(self, before: Floats, draw: int) -> Floats:
        """Its values in a draw."""
        kernel = self.kernels[draw]
        multiply(before, kernel, self.values)
        if kernel.shape[1] > self.n_units:
            put_one(self.values, self.n_units)
        self.activate()
        return self.values
