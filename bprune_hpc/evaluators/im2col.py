"""Patches of images: the rows that a convolution's kernel multiplies. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..graph.chain import ConvolutionLayer
from .compaction import Floats


@dataclass(frozen=True)
class Patches:
    """The patches that a convolution sees in an image, one row each.

    Rows are ordered by their place in the pooling's windows first, so that the maximum over those
    is one of whole arrays; then by position. A row's numbers are ordered as the kernel's.
    """

    layer: ConvolutionLayer

    @property
    def n_positions(self) -> int:
        """Places of one filter after pooling."""
        rows, columns = self.layer.convolved
        return rows // self.layer.pool[0] * (columns // self.layer.pool[1])

    @property
    def n_pooled(self) -> int:
        """Places that one position is the maximum of."""
        return self.layer.pool[0] * self.layer.pool[1]

    @property
    def n_rows(self) -> int:
        """Rows of an image."""
        return self.n_pooled * self.n_positions

    def fill(self, x: Floats, out: Floats) -> None:
        """Fill in the patches of images.

        Parameters
        ----------
        x : float32 array, shape (n_examples, ...)
        out : float32 array, shape (n_examples * n_rows, window's rows * columns * channels)
        """
        images = x.reshape(len(x), *self.layer.image)
        (rows, columns), pool, strides = self.layer.convolved, self.layer.pool, self.layer.strides
        padded = np.pad(images, ((0, 0), *self._padding(rows, columns), (0, 0)))
        of_image, of_row, of_column, of_channel = padded.strides
        down, right = strides[0] * of_row, strides[1] * of_column
        window, channels = self.layer.window, self.layer.image[2]
        places = (pool[0], pool[1], rows // pool[0], columns // pool[1])
        shape = (len(x), *places, window[0], window[1] * channels)
        seen = as_strided(
            padded,
            shape,
            (of_image, down, right, pool[0] * down, pool[1] * right, of_row, of_channel),
            writeable=False,
        )
        # A window's columns are next to each other, and so are their channels.
        np.copyto(_split(out, shape), seen)

    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Where patches are in an image with the zeros that are put around it.

        Returns
        -------
        columns : int array
            Which number of the image each number of the larger one is; -1 for the zeros.
        within : int array
            Those of a patch at the beginning of the larger image, ordered as the kernel's.
        bases : int array, shape (n_positions, n_pooled)
            Where the patch of each place of a position begins.
        """
        (rows, columns), pool, strides = self.layer.convolved, self.layer.pool, self.layer.strides
        n_rows, n_columns, n_channels = self.layer.image
        numbers = np.arange(n_rows * n_columns * n_channels).reshape(self.layer.image)
        padding = self._padding(rows, columns)
        padded = np.pad(numbers, (*padding, (0, 0)), constant_values=-1)
        of_row, of_column = padded.shape[1] * n_channels, n_channels
        down, right = self.layer.window
        within = (
            np.arange(down)[:, None, None] * of_row
            + np.arange(right)[:, None] * of_column
            + np.arange(n_channels)
        )
        starts = (
            np.arange(rows)[:, None] * strides[0] * of_row
            + np.arange(columns) * strides[1] * of_column
        )
        windows = starts.reshape(rows // pool[0], pool[0], columns // pool[1], pool[1])
        bases = np.ascontiguousarray(windows.transpose(0, 2, 1, 3)).reshape(-1, self.n_pooled)
        return padded.reshape(-1), within.reshape(-1), bases

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


def _split(rows: Floats, shape: tuple[int, ...]) -> Floats:
    """A view of rows, of which there may be more columns, with other axes."""
    view = rows.view()
    view.shape = shape  # an error, and no copy, if it cannot be
    return view
