"""The first layer of a chain under some draws: its products are shared by them.

Its input is the same for all draws. So its product with ``loc`` is made once for many draws, and
its product with ``scale * noise`` once for the two draws of an antithetic pair.

What belongs here: how examples, or patches of images, become the first values of each draw. What
does not: patches themselves (``patches``), the layers after it (``sampled_chain``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .activations import activate
from .alive import Indices
from .compact_layer import CompactLayer
from .evaluators import Noise
from .gaussian_part import Floats
from .kernels import activate_units, put_edges, rows_of
from .patches import PatchPieces
from .workspace import Workspace


@dataclass(frozen=True)
class Piece:
    """Examples of a batch that are worked on together.

    Attributes
    ----------
    rows : slice
        Which ones.
    inputs : float32 array
        As the kernel takes them.
    at_mean : float32 array
        Their product with the kernel's ``loc``.
    """

    rows: slice
    inputs: Floats
    at_mean: Floats


class FirstLayer(Protocol):
    """A chain's beginning under some draws.

    Attributes
    ----------
    n_layers : int
        How many layers it stands for.
    is_whole : bool
        Whether a batch is one piece.
    """

    n_layers: ClassVar[int]
    is_whole: ClassVar[bool]

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """Divide a batch; one piece is in use at a time."""

    def values(self, piece: Piece, noise: int) -> Iterator[Floats]:
        """Yield what comes after the layers, in each draw of a noise (by its place).

        Yields
        ------
        float32 array, shape (n_examples, n_columns)
            After the activation; as the next kernel takes it, or outputs. It is overwritten by
            the next one.
        """


class DenseFirst:
    """A dense layer.

    Parameters
    ----------
    layer : CompactLayer
    inputs : int array or None
        Which inputs are left; None for all.
    is_last : bool
        Whether it gives the outputs.
    """

    n_layers: ClassVar[int] = 1
    is_whole: ClassVar[bool] = True

    def __init__(
        self,
        layer: CompactLayer,
        inputs: Indices | None,
        noises: Sequence[Noise],
        is_last: bool,
        room: Workspace,
    ) -> None:
        self._layer, self._inputs, self._noises, self._room = layer, inputs, noises, room
        self._n_in, self._n_out = layer.kernel.loc.shape
        n_columns = self._n_out if is_last else rows_of(self._n_out)
        shape = (rows_of(self._n_in), n_columns)
        self._loc = np.empty(shape, np.float32)
        put_edges(self._loc, self._n_in, self._n_out)
        self._loc[: self._n_in, : self._n_out] = layer.kernel.loc
        if layer.bias is not None:
            self._loc[self._n_in, : self._n_out] = layer.bias.loc
        self._deviations = room.array("deviations", len(noises), *shape)
        self._vary = [self._deviate(*each) for each in zip(noises, self._deviations, strict=True)]

    def _deviate(self, noise: Noise, out: Floats) -> bool:
        """``scale * noise`` of the kernel and bias; whether anything varies."""
        layer, n_in, n_out = self._layer, self._n_in, self._n_out
        out[n_in:] = 0
        out[:, n_out:] = 0
        parts = [(layer.kernel, out[:n_in, :n_out]), (layer.bias, out[n_in, :n_out])]
        varies = False
        for part, place in parts:
            if part is not None and part.deviation(noise, place) is not None:
                varies = True
            else:
                place[...] = 0
        return varies

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """See :class:`FirstLayer`."""
        rows = np.asarray(x.reshape(len(x), -1), np.float32)
        inputs = self._room.array("inputs", len(x), len(self._loc))
        inputs[:, : self._n_in] = rows if self._inputs is None else rows[:, self._inputs]
        inputs[:, self._n_in] = 1
        inputs[:, self._n_in + 1 :] = 0
        at_mean = self._room.array("at_mean", len(x), self._loc.shape[1])
        yield Piece(slice(0, len(x)), inputs, np.matmul(inputs, self._loc, out=at_mean))

    def values(self, piece: Piece, noise: int) -> Iterator[Floats]:
        """See :class:`FirstLayer`."""
        out = self._room.array("values 0", *piece.at_mean.shape)
        spread = self._room.array("spread", *piece.at_mean.shape)
        if self._vary[noise]:
            np.matmul(piece.inputs, self._deviations[noise], out=spread)
        for draw in self._noises[noise].draws:
            sign = draw.sign if self._vary[noise] else 0
            signed_sum(piece.at_mean, spread, sign, out)
            activate_units(self._layer, out)
            yield out


class ConvolutionFirst:
    """A convolution, perhaps pooled, and the dense layer after it, some filters at a time.

    Parameters
    ----------
    layers : sequence of CompactLayer
        Of the convolution and of the layer after it.
    pieces_of : PatchPieces
    kernels : float32 array, shape (n_draws, n_rows, n_columns)
        Of the layer after it, in each draw.
    starts : sequence of int
        The first draw of each noise.
    """

    n_layers: ClassVar[int] = 2
    is_whole: ClassVar[bool] = False

    def __init__(
        self,
        layers: Sequence[CompactLayer],
        pieces_of: PatchPieces,
        noises: Sequence[Noise],
        kernels: Floats,
        starts: Sequence[int],
        room: Workspace,
    ) -> None:
        self._layer, self._after = layers
        self._pieces_of, self._noises, self._room = pieces_of, noises, room
        self._kernels, self._starts = kernels, starts
        self._deviations = [self._layer.kernel.deviation(noise) for noise in noises]
        self._of_bias = [
            self._layer.bias.deviation(noise) if self._layer.bias else None for noise in noises
        ]

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """See :class:`FirstLayer`."""
        kernel = self._layer.kernel.loc.T
        for rows, inputs in self._pieces_of.of(x):
            room = self._room.array("at_mean", len(inputs), len(kernel), inputs.shape[-1])
            at_mean = np.matmul(kernel, inputs, out=room)
            if self._layer.bias is not None:
                at_mean += self._layer.bias.loc[:, None]
            yield Piece(rows, inputs, at_mean)

    def values(self, piece: Piece, noise: int) -> Iterator[Floats]:
        """See :class:`FirstLayer`."""
        draws = self._noises[noise].draws
        start = self._starts[noise]
        kernels = self._kernels[start : start + len(draws)]
        n_examples = piece.rows.stop - piece.rows.start
        out = self._room.array("values 0", len(draws), n_examples, kernels.shape[2])
        out[...] = kernels[:, self._after.kernel.loc.shape[0], None]  # the bias
        for filters, units in self._pieces_of.blocks():
            spread = self._spread(piece, noise, filters)
            block = self._room.array("block", units.stop - units.start, n_examples)
            for draw, kernel, of_draw in zip(draws, kernels, out, strict=True):
                self._pool(piece.at_mean[:, filters], spread, draw.sign, block)
                activate(self._layer.activation, block)
                of_draw += block.T @ kernel[units]
        for of_draw in out:
            activate_units(self._after, of_draw)
            yield of_draw

    def _spread(self, piece: Piece, noise: int, filters: slice) -> Floats | None:
        """What the deviations give; that of a bias alone is the same everywhere."""
        deviation, of_bias = self._deviations[noise], self._of_bias[noise]
        bias = None if of_bias is None else of_bias[filters, None]
        if deviation is None:
            return bias
        kernel = deviation[:, filters].T
        room = self._room.array("spread", len(piece.inputs), len(kernel), piece.inputs.shape[-1])
        spread = np.matmul(kernel, piece.inputs, out=room)
        if bias is not None:
            spread += bias
        return spread

    def _pool(self, at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
        """Largest of ``at_mean + sign * spread`` over what is pooled together."""
        largest = out.reshape(at_mean.shape[-2], -1)
        other = self._room.array("pooled", *largest.shape)
        for index, means in enumerate(at_mean):
            of_index = spread[index] if spread is not None and spread.ndim == 3 else spread
            signed_sum(means, of_index, sign, other if index else largest)
            if index:
                np.maximum(largest, other, out=largest)


def signed_sum(at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
    """``at_mean + sign * spread``."""
    if spread is None or not sign:
        out[...] = at_mean
    elif sign > 0:
        np.add(at_mean, spread, out=out)
    else:
        np.subtract(at_mean, spread, out=out)
