"""Patches of images: the rows that a convolution's kernel multiplies. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.layer_graph import Convolution
from .compaction import Indices


@dataclass(frozen=True)
class Patches:
    """The patches that a convolution sees in an image, in the order of its kernel's numbers.

    Attributes
    ----------
    convolution : Convolution
    pool : tuple of int
        Rows and columns of the windows, which tile the convolution, whose maximum is taken; (1, 1)
        for no pooling.
    """

    convolution: Convolution
    pool: tuple[int, int]

    @property
    def n_positions(self) -> int:
        """Places of one filter after pooling."""
        rows, columns = self.convolution.size
        return rows // self.pool[0] * (columns // self.pool[1])

    @property
    def n_pooled(self) -> int:
        """Places that one position is the maximum of."""
        return self.pool[0] * self.pool[1]

    @property
    def n_rows(self) -> int:
        """Patches of an image."""
        return self.n_pooled * self.n_positions

    def places(self) -> tuple[Indices, Indices, Indices]:
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
        convolution, pool = self.convolution, self.pool
        (rows, columns), strides = convolution.size, convolution.strides
        n_rows, n_columns, n_channels = convolution.image
        numbers = np.arange(n_rows * n_columns * n_channels).reshape(convolution.image)
        padded = np.pad(numbers, (*convolution.borders, (0, 0)), constant_values=-1)
        of_row, of_column = padded.shape[1] * n_channels, n_channels
        down, right = convolution.window
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
