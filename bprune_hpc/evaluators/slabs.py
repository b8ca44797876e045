"""Where numbers lie when examples stand side by side, and which of them a window sees. Pure.

A tensor lies as [slab][channel][row][column][example], ``SLAB`` examples to a slab; places are
counted in numbers from a slab's first channel, row and column. What belongs here: layouts, and the
tiles and windows that the compiled module works on, which follow from sizes alone. What does not:
weights, and the order of operations (``evaluators.compiled_graph``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.layer_graph import Borders, n_places

SLAB, STEPS, BASES = 16, 4, 4
"""As the compiled module has them, which is looked at when it is used."""
_FEWEST_COLUMNS = 8
"""Of a convolution whose steps are columns; below, they are slabs."""
_FEWEST_OF_SQUARES = 4
"""Rows and columns; of fewer, much of a window is outside, which sums by taps leave out."""

Places = NDArray[np.int32]


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a channel are.

    Attributes
    ----------
    n_rows, n_columns : int
    left, right : int
        Columns of zeros beside each row.
    column_stride : int
        From a column to the next one: a slab, or all slabs of a group side by side.
    """

    n_rows: int
    n_columns: int
    left: int = 0
    right: int = 0
    column_stride: int = SLAB

    @property
    def row_stride(self) -> int:
        """From a row to the next one."""
        return (self.left + self.n_columns + self.right) * self.column_stride

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
    def is_across(self) -> bool:
        """Whether a convolution's steps are slabs, not columns."""
        return self.places[1] < _FEWEST_COLUMNS

    @property
    def outside(self) -> tuple[int, int]:
        """Columns of zeros that it needs beside the image, if its steps are columns."""
        if self.is_across:
            return 0, 0
        reach = (self.places[1] - 1) * self.strides[1] + (self.taps[1] - 1) * self.dilations[1] + 1
        (_, (left, _)), columns = self.borders, self.size[1]
        return left, max(0, reach - left - columns)

    @property
    def reach(self) -> int:
        """Vectors of a channel that a tile sees."""
        rows, columns = (min(n, 4) for n in self.places)
        if self.is_across:
            rows = min(rows, max(1, BASES // columns))
        spans = [
            min(size, (n - 1) * stride + (taps - 1) * dilation + 1)
            for n, size, stride, taps, dilation in zip(
                (rows, columns), self.size, self.strides, self.taps, self.dilations, strict=True
            )
        ]
        return math.prod(spans) * (STEPS if self.is_across else 1)

    @property
    def has_squares(self) -> bool:
        """Whether it is one for Winograd's products of 2 x 2 places."""
        is_plain = self.taps == (3, 3) and self.strides == self.dilations == (1, 1)
        return is_plain and min(self.places) >= _FEWEST_OF_SQUARES

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
    tiles : int32 array, shape (n_tiles, 3 * BASES + 2)
        Where bases are in the input, the output and what is added, how many, and their steps.
    masks : uint8 array, shape (n_tiles, n_classes)
        Bases at which the taps of a class are inside of the image, one bit each.
    taps, classes : int32 array, shape (n_taps,)
        Taps in the order in which their terms are added, and the class of each of these.
    offsets : int32 array, shape (n_taps,)
        Where each tap is, from the first one.
    step : int
        From a step to the next one in the input; 0 where these are slabs.
    """

    tiles: Places
    masks: NDArray[np.uint8]
    taps: Places
    classes: Places
    offsets: Places
    step: int

    @cached_property
    def n_runs(self) -> float:
        """Parts, on average, into which a list is divided by what is inside of the image."""
        return 1 + float(np.count_nonzero(np.diff(self.masks.astype(int)), axis=1).mean())


@lru_cache(maxsize=256)
def tiles_of(window: Window, before: Layout, after: Layout, other: Layout) -> Tiles:
    """The tiles of a convolution from one layout to another; ``other`` is added to its sums."""
    tiles, masks = [], []
    for places, n_steps in _tiles(window):
        starts = [window.starts(*place) for place in places]
        unused = [0] * (BASES - len(places))
        into = [before.place(*start) for start in starts]
        out, added = ([layout.place(*place) for place in places] for layout in (after, other))
        tiles.append([*into, *unused, *out, *unused, *added, *unused, len(places), n_steps])
        inside = [_is_inside(window, row, column) for row, column in starts]
        masks.append(sum(of_base.astype(np.uint8) << at for at, of_base in enumerate(inside)))
    of_taps = np.array(masks, np.uint8)
    # Taps that come after each other and are inside together need no list of their own. Steps that
    # are slabs have their places in one row: most are inside together with those above and below.
    order = np.arange(math.prod(window.taps)).reshape(window.taps)
    taps = (order.T if window.is_across else order).reshape(-1)
    of_taps = of_taps[:, taps]
    is_new = np.append(True, (of_taps[:, 1:] != of_taps[:, :-1]).any(axis=0))
    rows, columns = np.divmod(np.arange(len(taps)), window.taps[1])
    down, right = window.dilations
    offsets = rows * down * before.row_stride + columns * right * before.column_stride
    return Tiles(
        np.array(tiles, np.int32),
        np.ascontiguousarray(of_taps[:, is_new]),
        taps.astype(np.int32),
        (np.cumsum(is_new) - 1).astype(np.int32),
        offsets.astype(np.int32),
        0 if window.is_across else window.strides[1] * before.column_stride,
    )


def _tiles(window: Window) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Bases of each tile, as places, and its number of steps."""
    n_rows, n_columns = window.places
    if window.is_across:
        down = max(1, min(n_rows, BASES // n_columns))
        n_parts = -(-n_columns // BASES)
        ends = [n_columns * at // n_parts for at in range(n_parts + 1)]
        for row, (start, stop) in product(range(0, n_rows, down), pairwise(ends)):
            rows = range(row, min(row + down, n_rows))
            yield list(product(rows, range(start, stop))), STEPS
        return
    whole = n_columns // STEPS * STEPS
    if n_rows < BASES:  # one row's columns
        for row in range(n_rows):
            for column in range(0, whole, BASES * STEPS):
                starts = range(column, min(column + BASES * STEPS, whole), STEPS)
                yield [(row, start) for start in starts], STEPS
            if whole < n_columns:
                yield [(row, whole)], n_columns - whole
        return
    for row, column in product(range(0, n_rows, BASES), range(0, n_columns, STEPS)):
        rows = range(row, min(row + BASES, n_rows))
        yield [(one, column) for one in rows], min(STEPS, n_columns - column)


def _is_inside(window: Window, row: int, column: int) -> NDArray[Any]:
    """Which taps see the image; columns of zeros count as inside where steps are columns."""
    rows = np.array(window.is_inside(0, row))
    columns = np.array(window.is_inside(1, column))
    if not window.is_across:
        columns[:] = True
    return (rows[:, None] & columns).reshape(-1)


@lru_cache(maxsize=256)
def squares_of(window: Window, before: Layout, after: Layout, other: Layout) -> Places:
    """Places of a convolution with 3 x 3 taps, two rows and columns at a time.

    Returns
    -------
    int32 array, shape (n_squares, 7)
        Where four rows and columns of the input begin, and two of the output and of what is added;
        which of the former are inside, one bit each; how many there are of the latter.
    """
    squares = []
    n_rows, n_columns = window.places
    for row, column in product(range(0, n_rows, 2), range(0, n_columns, 2)):
        start = window.starts(row, column)
        inside = [
            sum(1 << at for at in range(4) if 0 <= first + at < size)
            for first, size in zip(start, window.size, strict=True)
        ]
        squares.append(
            [
                before.place(*start), after.place(row, column), other.place(row, column), *inside,
                min(2, n_rows - row), min(2, n_columns - column),
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


def _int32(numbers: Sequence[int]) -> Places:
    return np.array(numbers, np.int32)
