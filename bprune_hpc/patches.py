"""The first layer of a chain: how examples become the matrix that its kernel multiplies.

What belongs here: examples as they are, for a dense layer, or as patches of images, for a
convolution, and how a draw's units follow from the products. What does not: weights
(``dense_network``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .alive import Indices
from .chain import ConvolutionLayer
from .gaussian_part import Floats

_PIECE_BYTES = 2**20
"""Activations of a convolution for one draw that are worked on together: half of a core's cache."""


class Front(Protocol):
    """What comes before the first product, and right after it.

    Attributes
    ----------
    is_whole : bool
        Whether a batch is one piece.
    """

    is_whole: ClassVar[bool]

    def pieces(self, x: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        """Examples of a batch that are worked on together, and the matrix made of them.

        Yields
        ------
        slice, float32 array of shape (n_in, n_columns) or (n_pooled, n_in, n_columns)
        """

    def combine(self, at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
        """Units of one draw, before their activation, from ``at_mean + sign * spread``.

        Parameters
        ----------
        at_mean, spread : float32 array, shape (n_filters, n_columns), pooled ones before that
        out : float32 array, shape (n_units, n_examples)
        """


@dataclass(frozen=True)
class Examples:
    """Examples as they are: a row for each input that is not idle (None: for all)."""

    inputs: Indices | None
    is_whole: ClassVar[bool] = True

    def pieces(self, x: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        """See :class:`Front`."""
        rows = np.asarray(x.reshape(len(x), -1), np.float32)
        yield slice(0, len(x)), (rows if self.inputs is None else rows[:, self.inputs]).T

    def combine(self, at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
        """See :class:`Front`."""
        _signed_sum(at_mean, spread, sign, out)


@dataclass(frozen=True)
class Patches:
    """The patches that a convolution sees: a row for each of its kernel's numbers.

    Those which are pooled together are in arrays of their own, in the same order: the maximum is
    then one of whole arrays.
    """

    layer: ConvolutionLayer

    @property
    def n_positions(self) -> int:
        """Places of one filter after pooling."""
        rows, columns = self.layer.convolved
        return rows // self.layer.pool[0] * (columns // self.layer.pool[1])

    def n_examples_at_once(self, n_filters: int) -> int:
        """Examples of a piece."""
        rows, columns = self.layer.convolved
        return max(1, _PIECE_BYTES // (4 * rows * columns * max(1, n_filters)))

    def matrix(self, x: Floats) -> Floats:
        """Patches of images.

        Parameters
        ----------
        x : float32 array, shape (n_examples, rows, columns, channels)

        Returns
        -------
        float32 array, shape (n_pooled, window's rows * columns * channels, positions * n_examples)
        """
        (rows, columns), pool, strides = self.layer.convolved, self.layer.pool, self.layer.strides
        padded = np.pad(np.moveaxis(x, 0, -1), (*self._padding(rows, columns), (0, 0), (0, 0)))
        channels, n_examples = padded.shape[2:]
        shape = (rows // pool[0], pool[0], columns // pool[1], pool[1], channels, n_examples)
        places = (shape[0], shape[2], n_examples)
        out = np.empty((*pool, *self.layer.window, channels, *places), np.float32)
        for row, column in np.ndindex(*self.layer.window):
            seen = padded[
                row : row + (rows - 1) * strides[0] + 1 : strides[0],
                column : column + (columns - 1) * strides[1] + 1 : strides[1],
            ]
            out[:, :, row, column] = seen.reshape(shape).transpose(1, 3, 4, 0, 2, 5)
        return out.reshape(pool[0] * pool[1], -1, math.prod(places))

    def _padding(self, rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
        if self.layer.padding == "VALID":
            return (0, 0), (0, 0)
        out = []
        for size, after, stride, window in zip(
            self.layer.image, (rows, columns), self.layer.strides, self.layer.window, strict=False
        ):
            total = max((after - 1) * stride + window - size, 0)
            out.append((total // 2, total - total // 2))
        return out[0], out[1]


@dataclass(frozen=True)
class Convolved:
    """Images in pieces that fit in a core's cache; see :class:`Patches`."""

    patches: Patches
    n_filters: int
    is_whole: ClassVar[bool] = False

    def pieces(self, x: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        """See :class:`Front`."""
        images = np.asarray(x, np.float32).reshape(len(x), *self.patches.layer.image)
        step = self.patches.n_examples_at_once(self.n_filters)
        for start in range(0, len(x), step):
            piece = images[start : start + step]
            yield slice(start, start + len(piece)), self.patches.matrix(piece)

    def combine(self, at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
        """See :class:`Front`."""
        if not self.n_filters:
            return
        largest = out.reshape(self.n_filters, -1)
        other = np.empty_like(largest)
        for index, means in enumerate(at_mean):
            # A spread of the bias alone is the same everywhere.
            of_index = spread[index] if spread is not None and spread.ndim == 3 else spread
            _signed_sum(means, of_index, sign, other if index else largest)
            if index:
                np.maximum(largest, other, out=largest)


def _signed_sum(at_mean: Floats, spread: Floats | None, sign: int, out: Floats) -> None:
    if spread is None:
        out[...] = at_mean
    elif sign > 0:
        np.add(at_mean, spread, out=out)
    else:
        np.subtract(at_mean, spread, out=out)
