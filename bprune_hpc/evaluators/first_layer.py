"""The first layer of a chain under some draws: its products are shared by them.

Its input is the same for all draws. So its product with ``loc`` is made once for many draws, and
its product with ``scale * noise`` once for the two draws of an antithetic pair.

What belongs here: how examples, or patches of images, become the first values of each draw. What
does not: patches themselves (``evaluators.im2col``), the layers after it
(``evaluators.chain_numpy``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .buffers import Workspace
from .compaction import CompactLayer, Floats, Indices
from .dense_ops import activation_of_units, columns_of, put_one, put_zeros, rows_of, width_of
from .im2col import Patches
from .interface import Noise

_BLOCK_BYTES = 2**19
"""Of the products of some images: with what is made of them, they stay in a core's cache."""
_PIECE_BYTES = 6 * 2**20
"""The same of the images whose products with ``loc`` are held at a time."""


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
    """A chain's first layer under some draws.

    Attributes
    ----------
    is_whole : bool
        Whether a batch is one piece.
    """

    is_whole: ClassVar[bool]

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """Divide a batch; one piece is in use at a time."""

    def values(self, piece: Piece, noises: range) -> Iterator[Floats]:
        """Yield what comes after the layer, in each draw of some noises (by their places).

        Yields
        ------
        float32 array, shape (n_examples, n_columns)
            After the activation; as the next kernel takes it, or outputs. It is overwritten by
            the next ones.
        """


class _SharedKernel:
    """A kernel, and its bias below it, as ``loc`` and as ``scale * noise`` of some noises.

    Parameters
    ----------
    keeps_one : bool
        Whether values are as the next kernel takes them, with a one after the units.
    """

    def __init__(
        self, layer: CompactLayer, noises: Sequence[Noise], keeps_one: bool, room: Workspace
    ) -> None:
        self.n_in, self.n_out = layer.kernel.loc.shape
        self._layer, self._room = layer, room
        n_columns = columns_of(self.n_out) if keeps_one else self.n_out
        self._width = width_of(self.n_out) if keeps_one else self.n_out
        self.loc = np.empty((rows_of(self.n_in), n_columns), np.float32)
        put_zeros(self.loc, self.n_in, self.n_out)
        self.loc[: self.n_in, : self.n_out] = layer.kernel.loc
        if layer.bias is not None:
            self.loc[self.n_in, : self.n_out] = layer.bias.loc
        deviations = room.array("deviations", len(noises), *self.loc.shape)
        self._deviations = [
            out if self._deviate(noise, out) else None
            for noise, out in zip(noises, deviations, strict=True)
        ]

    def _deviate(self, noise: Noise, out: Floats) -> bool:
        """Fill in ``scale * noise``; whether anything varies."""
        out[self.n_in :] = 0
        out[:, self.n_out :] = 0
        varies = False
        parts = [
            (self._layer.kernel, out[: self.n_in, : self.n_out]),
            (self._layer.bias, out[self.n_in, : self.n_out]),
        ]
        for part, place in parts:
            if part is not None and part.deviation(noise, place) is not None:
                varies = True
            else:
                place[...] = 0
        return varies

    def at_mean(self, inputs: Floats) -> Floats:
        """Product with ``loc``."""
        values = self._multiply("at_mean", inputs, self.loc)
        if self._width > self.n_out:
            put_one(values, self.n_out)
        return values

    def spread(self, inputs: Floats, noise: int) -> Floats | None:
        """Product with the deviations of a noise; None where nothing varies."""
        deviation = self._deviations[noise]
        if deviation is None:
            return None
        values = self._multiply("spread", inputs, deviation)
        values[:, self.loc.shape[1] :] = 0
        return values

    def _multiply(self, kind: str, inputs: Floats, kernel: Floats) -> Floats:
        values = self._room.array(kind, len(inputs), self._width)
        np.matmul(inputs, kernel, out=values[:, : kernel.shape[1]])
        return values


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

    is_whole: ClassVar[bool] = True

    def __init__(
        self,
        layer: CompactLayer,
        inputs: Indices | None,
        noises: Sequence[Noise],
        is_last: bool,
        room: Workspace,
    ) -> None:
        self._kernel = _SharedKernel(layer, noises, not is_last, room)
        self._layer, self._noises, self._room = layer, noises, room
        self._columns = None
        if inputs is not None:  # with some for what comes after the inputs
            n_more = rows_of(len(inputs)) - len(inputs)
            self._columns = np.concatenate([inputs, np.zeros(n_more, inputs.dtype)])

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """See :class:`FirstLayer`."""
        rows = np.asarray(x.reshape(len(x), -1), np.float32)
        n_in = self._kernel.n_in
        inputs = self._room.array("inputs", len(x), rows_of(n_in))
        if self._columns is None:
            inputs[:, :n_in] = rows
        else:
            np.take(rows, self._columns, axis=1, out=inputs, mode="clip")  # the fastest way
        put_one(inputs, n_in)
        yield Piece(slice(0, len(x)), inputs, self._kernel.at_mean(inputs))

    def values(self, piece: Piece, noises: range) -> Iterator[Floats]:
        """See :class:`FirstLayer`."""
        out = self._room.array("values 0", *piece.at_mean.shape)
        activate = activation_of_units(self._layer.activation, out, self._kernel.n_out)
        for noise in noises:
            spread = self._kernel.spread(piece.inputs, noise)
            for draw in self._noises[noise].draws:
                _signed_sum(piece.at_mean, spread, draw.sign, out)
                activate()
                yield out


class ConvolutionFirst:
    """A convolution, perhaps pooled, of images as their patches.

    Parameters
    ----------
    layer : CompactLayer
    patches : Patches
    """

    is_whole: ClassVar[bool] = False

    def __init__(
        self, layer: CompactLayer, patches: Patches, noises: Sequence[Noise], room: Workspace
    ) -> None:
        self._kernel = _SharedKernel(layer, noises, False, room)
        self._layer, self._patches, self._noises, self._room = layer, patches, noises, room
        self._n_rows = patches.n_rows
        self._n_units = patches.n_positions * self._kernel.n_out
        self._bytes = 4 * self._n_rows * self._kernel.n_out  # of an example's products

    def pieces(self, x: NDArray[Any]) -> Iterator[Piece]:
        """See :class:`FirstLayer`."""
        n_in = self._kernel.n_in
        for rows in _slices(len(x), _PIECE_BYTES // max(1, self._bytes)):
            n_rows = (rows.stop - rows.start) * self._n_rows
            inputs = self._room.array("inputs", n_rows, rows_of(n_in))
            self._patches.fill(np.asarray(x[rows], np.float32), inputs[:, :n_in])
            put_one(inputs, n_in)
            yield Piece(rows, inputs, self._kernel.at_mean(inputs))

    def values(self, piece: Piece, noises: range) -> Iterator[Floats]:
        """See :class:`FirstLayer`."""
        for noise in noises:
            for out in self._pooled(piece, noise):
                put_one(out, self._n_units)
                activation_of_units(self._layer.activation, out, self._n_units)()
                yield out

    def _pooled(self, piece: Piece, noise: int) -> Floats:
        """Before the activation, in both draws of a noise: they share a block's product."""
        draws = self._noises[noise].draws
        n_examples = piece.rows.stop - piece.rows.start
        values = self._room.array("values 0", len(draws), n_examples, rows_of(self._n_units))
        for some in _slices(n_examples, _BLOCK_BYTES // max(1, self._bytes)):
            rows = slice(some.start * self._n_rows, some.stop * self._n_rows)
            spread = self._kernel.spread(piece.inputs[rows], noise)
            at_mean = piece.at_mean[rows]
            summed = self._room.array("summed", *at_mean.shape)
            of_pooled = summed.reshape(some.stop - some.start, self._patches.n_pooled, -1)
            for draw, out in zip(draws, values, strict=True):
                _signed_sum(at_mean, spread, draw.sign, summed)
                np.maximum.reduce(of_pooled, axis=1, out=out[some, : self._n_units])
        return values


def _slices(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, max(1, step)):
        yield slice(start, min(start + max(1, step), size))


def _signed_sum(at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
    """``at_mean + sign * spread``."""
    if spread is None or not sign:
        out[...] = at_mean
    elif sign > 0:
        np.add(at_mean, spread, out=out)
    else:
        np.subtract(at_mean, spread, out=out)
