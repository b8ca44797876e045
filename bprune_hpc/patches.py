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

_BLOCK_FILTERS = 8
_BLOCK_BYTES = 2**17
"""Filters, and bytes of what they give after pooling, that are worked on together: with the
products that they are made of, they stay in a core's cache."""


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
class PatchPieces:
    """Patches of images, in pieces that fit in a core's cache."""

    patches: Patches
    n_filters: int

    @property
    def n_columns(self) -> int:
        """Columns of the matrix for an example."""
        return math.prod(self.patches.layer.convolved)

    def of(self, x: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        """Yield which examples of a batch, and their patches (:meth:`Patches.matrix`)."""
        images = np.asarray(x, np.float32).reshape(len(x), *self.patches.layer.image)
        step = max(1, _BLOCK_BYTES // (4 * _BLOCK_FILTERS * self.patches.n_positions))
        for start in range(0, len(x), step):
            piece = images[start : start + step]
            yield slice(start, start + len(piece)), self.patches.matrix(piece)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Filters that are worked on together, and the units that they give."""
        n_positions = self.patches.n_positions
        for start in range(0, self.n_filters, _BLOCK_FILTERS):
            stop = min(start + _BLOCK_FILTERS, self.n_filters)
            yield slice(start, stop), slice(start * n_positions, stop * n_positions)
