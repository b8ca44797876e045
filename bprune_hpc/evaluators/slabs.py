"""Where numbers lie when examples stand side by side, and which of them a window sees. Pure.

A tensor lies as [slab][channel][row][column][example], ``SLAB`` examples to a slab; places are
counted in numbers from a slab's first channel, row and column. What belongs here: layouts, and the
tiles and windows that the compiled module works on, which follow from sizes alone. What does not:
weights, and the order of operations (``evaluators.compiled_graph``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Borders, n_places

SLAB, GROUP_SLABS, VECTORS_OF_HALF = 16, 4, 8
"""As the compiled module has them, which is looked at when it is used."""
_SQUARE_SIZES = (2, 4)
"""Rows and columns of places of Winograd's products."""

Places = NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a channel are.

    Attributes
    ----------
    n_rows, n_columns : int
    column_stride : int
        From a column to the next one: a slab, or all slabs of a group side by side.
    """

    n_rows: int
    n_columns: int
    column_stride: int = SLAB

    @property
    def row_stride(self) -> int:
        """From a row to the next one."""
        return self.n_columns * self.column_stride

    @property
    def channel_stride(self) -> int:
        """From a channel to the next one; not a power of two, so that caches hold many."""
        n_lines = self.n_rows * self.row_stride // SLAB
        return SLAB * (n_lines if n_lines < 64 else n_lines + (4 - n_lines) % 8)

    def places(self, n_channels: int) -> Places:
        """Those of an example's numbers in their own order: rows, columns, channels."""
        rows, columns, channels = (
            np.arange(n, dtype=np.int32) * np.int32(stride)
            for n, stride in (
                (self.n_rows, self.row_stride), (self.n_columns, self.column_stride),
                (n_channels, self.channel_stride),
            )
        )  # fmt: skip
        return (rows[:, None, None] + columns[:, None] + channels).reshape(-1)

    def place(self, row: int, column: int) -> int:
        """That of a row and a column of the first channel."""
        return row * self.row_stride + column * self.column_stride


@dataclass(frozen=True)
class Window:
    """How a window goes over an image of some size.

    Attributes
    ----------
    size : tuple of int
        Rows and columns of the image.
    taps : tuple of int
        Rows and columns of the window.
    strides, dilations : tuple of int
    borders : Borders
    """

    size: tuple[int, int]
    taps: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    borders: Borders = ((0, 0), (0, 0))
    dilations: tuple[int, int] = (1, 1)

    @property
    def places(self) -> tuple[int, int]:
        """Rows and columns of what it gives."""
        rows, columns = map(
            n_places, self.size, self.taps, self.strides, self.borders, self.dilations
        )
        return rows, columns

    @property
    def n_together(self) -> int:
        """Slabs that a convolution's tiles have: more, where there are few columns."""
        return next(n for n in (4, 2, 1) if self.places[1] * n <= VECTORS_OF_HALF or n == 1)

    @property
    def square_size(self) -> int:
        """Rows and columns of Winograd's products that are fewest; 0 where it is not for them."""
        is_plain = self.taps == (3, 3) and self.strides == self.dilations == (1, 1)
        if not is_plain or min(self.places) < min(_SQUARE_SIZES):
            return 0
        return min(_SQUARE_SIZES, key=self.n_products)

    def n_products(self, size: int) -> int:
        """Winograd's products of an input, a filter and all places, by squares of a size."""
        return math.prod(-(-n // size) for n in self.places) * (size + 2) ** 2

    def starts(self, row: int, column: int) -> tuple[int, int]:
        """Row and column of the image at a place's first tap."""
        return (
            row * self.strides[0] - self.borders[0][0],
            column * self.strides[1] - self.borders[1][0],
        )

    def is_inside(self, axis: int, start: int) -> list[bool]:
        """Which taps along an axis see the image, for a place that starts there."""
        step = self.dilations[axis]
        return [0 <= start + tap * step < self.size[axis] for tap in range(self.taps[axis])]


@dataclass(frozen=True)
class Tiles:
    """A convolution's places as the compiled module takes them.

    Attributes
    ----------
    tiles : int32 array, shape (n_tiles, 6)
        Where each half begins in the output, and in what is added, and how many columns it has.
    sources : int32 array, shape (n_tiles, n_sources)
        Where the vectors of a channel are that a tile's windows see; -1 outside of the image.
    offsets : int32 array, shape (n_taps,)
        Where each tap of the first place is among these, in numbers.
    half : int
        From the first half to the second one, as ``offsets``.
    n_together : int
        Slabs of a tile.
    """

    tiles: Places
    sources: Places
    offsets: Places
    half: int
    n_together: int

    @property
    def reach(self) -> int:
        """Vectors of a channel that a tile sees."""
        return self.sources.shape[1] * self.n_together


@lru_cache(maxsize=256)
def tiles_of(window: Window, before: Layout, after: Layout, other: Layout) -> Tiles:
    """The tiles of a convolution from one layout to another; ``other`` is added to its sums.

    Halves are rows, or columns after each other where there is one row.
    """
    n_rows, n_columns = window.places
    n_together = window.n_together
    of_half = VECTORS_OF_HALF // n_together
    down, right = (2, of_half) if n_rows > 1 else (1, 2 * of_half)
    seen, taps = zip(
        *(
            _seen(min(n, size), n_taps, stride, dilation)
            for n, size, n_taps, stride, dilation in zip(
                (down, right), window.places, window.taps, window.strides, window.dilations,
                strict=True,
            )
        ), strict=True,
    )  # fmt: skip
    tiles, sources = [], []
    for row, column in product(range(0, n_rows, down), range(0, n_columns, right)):
        rows, columns = (
            start + along for start, along in zip(window.starts(row, column), seen, strict=True)
        )
        places = rows[:, None] * before.row_stride + columns * before.column_stride
        is_inside = ((rows >= 0) & (rows < window.size[0]))[:, None] & (
            (columns >= 0) & (columns < window.size[1])
        )
        sources.append(np.where(is_inside, places, -1).reshape(-1))
        second = (row + 1, column) if down > 1 else (row, column + of_half)
        counts = [
            min(of_half, n_columns - one[1]) if one[0] < n_rows and one[1] < n_columns else 0
            for one in ((row, column), second)
        ]
        begins = [
            layout.place(*one) if count else 0
            for layout in (after, other)
            for one, count in zip(((row, column), second), counts, strict=True)
        ]
        tiles.append([*begins, *counts])
    vector = SLAB * n_together
    offsets = (taps[0][:, None] * len(seen[1]) + taps[1]).reshape(-1) * vector
    half = len(seen[1]) * vector if down > 1 else SLAB * VECTORS_OF_HALF
    return Tiles(
        _int32(tiles),
        np.array(sources, np.int32),
        offsets.astype(np.int32),
        half if n_rows > 1 or n_columns > of_half else 0,
        n_together,
    )


def _seen(
    n: int, n_taps: int, stride: int, dilation: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What ``n`` places see along an axis, so that those that a tap sees are next to each other.

    Returns
    -------
    seen : int array
        From where the first place's first tap is.
    taps : int array, shape (n_taps,)
        Where among these each tap of the first place is.
    """
    index, phase = np.divmod(np.arange(n_taps) * dilation, stride)
    seen: list[NDArray[np.intp]] = []
    taps, n_seen = np.zeros(n_taps, np.intp), 0
    for one in np.unique(phase):
        of_phase = index[phase == one]
        run = np.arange(of_phase[0], of_phase[-1] + n)
        taps[phase == one] = n_seen + of_phase - of_phase[0]
        seen.append(one + stride * run)
        n_seen += len(run)
    return np.concatenate(seen), taps


@lru_cache(maxsize=256)
def squares_of(window: Window, before: Layout, after: Layout, other: Layout) -> Places:
    """Places of a convolution with 3 x 3 taps, some rows and columns at a time.

    Returns
    -------
    int32 array, shape (n_squares, 7)
        Where the rows and columns of the input begin that are seen, and those of the output and of
        what is added; which of the former are inside, one bit each; how many of the latter there
        are.
    """
    squares = []
    n_rows, n_columns = window.places
    step = window.square_size
    for row, column in product(range(0, n_rows, step), range(0, n_columns, step)):
        start = window.starts(row, column)
        inside = [
            sum(1 << at for at in range(step + 2) if 0 <= first + at < size)
            for first, size in zip(start, window.size, strict=True)
        ]
        squares.append(
            [
                before.place(*start), after.place(row, column), other.place(row, column), *inside,
                min(step, n_rows - row), min(step, n_columns - column),
            ]
        )  # fmt: skip
    return np.array(squares, np.int32)


@lru_cache(maxsize=256)
def windows_of(window: Window, before: Layout, after: Layout) -> tuple[Places, Places, Places]:
    """What a pooling sees.

    Returns
    -------
    starts : int32 array, shape (n_places + 1,)
        The first entry of each place, and the number of entries.
    offsets : int32 array, shape (n_entries,)
        Where the numbers are.
    places : int32 array, shape (n_places,)
        Where the results go.
    """
    counts, offsets, places = [0], [], []
    for row, column in np.ndindex(*window.places):
        start = window.starts(row, column)
        rows, columns = (
            [
                at + tap * window.dilations[axis]
                for tap, inside in enumerate(window.is_inside(axis, at))
                if inside
            ]
            for axis, at in enumerate(start)
        )
        offsets += [before.place(*one) for one in product(rows, columns)]
        counts.append(len(offsets))
        places.append(after.place(row, column))
    return _int32(counts), _int32(offsets), _int32(places)


def _int32(numbers: Sequence[Any]) -> Places:
    return np.array(numbers, np.int32)
