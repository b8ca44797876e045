"""Layers without their zeros, as the compiled module takes them: which weights, and where.

A weight that is exactly zero is left out, not only a neuron that has no other ones. What belongs
here: the order of a layer's weights, and their values in every draw. What does not: running them
(``evaluators.chain_compiled``).

Examples lie in tiles of ``TILE``: for each input a row with its numbers in these examples. Places
of rows are counted in numbers, from the beginning of a tile, or of a block of ``BLOCK`` inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compiled
from .compaction import CompactLayer, Floats, GaussianSlice
from .interface import Noise

Places = NDArray[np.int32]

BOUNDS = {(): (-math.inf, math.inf), ("Relu",): (0.0, math.inf), ("Relu6",): (0.0, 6.0)}
"""The activations that the compiled module has, as the numbers between which they leave values."""

_COST_ALONE = 1.9
"""Time of a weight whose neuron shares no inputs with others, relative to one whose neuron does.
The first has to wait for its inputs, the second for arithmetic; measured with AVX-512."""


@dataclass(frozen=True)
class Values:
    """Some of a tensor's weights in some order, to be drawn.

    Attributes
    ----------
    name : str
        Of the tensor.
    loc : float32 array, shape (n,)
    scale : float32 array, shape (n,)
        Empty for weights that are fixed.
    index : int32 array, shape (n,)
        Which of the tensor's numbers each is; as empty.
    is_fixed : bool
        Whether they have no posterior, or are wanted at its mean alone.
    """

    name: str
    loc: Floats
    scale: Floats
    index: Places
    is_fixed: bool

    @classmethod
    def of(cls, weights: GaussianSlice, chosen: Places, is_fixed: bool = False) -> Values:
        """Some of a slice, by their places among its numbers; -1 for a weight that is zero."""
        is_none = chosen < 0
        has_none = bool(is_none.any())

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            if not values.size:
                return np.zeros(len(chosen), values.dtype)
            out = values.reshape(-1).take(chosen, mode="wrap")
            if has_none:
                out[is_none] = 0
            return out

        if weights.scale is None or is_fixed:
            return cls(
                weights.name,
                taken(weights.loc),
                np.zeros(0, np.float32),
                np.zeros(0, np.int32),
                True,
            )
        return cls(
            weights.name, taken(weights.loc), taken(weights.scale), taken(index_of(weights)), False
        )

    def __len__(self) -> int:
        return len(self.loc)

    def columns(self, noises: Sequence[Noise], n_before: int, out: Floats) -> None:
        """Fill in columns of (n, n_columns): ``loc``, if one is before, and ``scale * noise``."""
        out[:, :n_before] = self.loc[:, None]
        column = n_before
        for noise in noises:
            if noise.values is not None:
                if self.is_fixed:
                    out[:, column] = 0
                else:
                    compiled.module.draw_values(
                        None, self.scale, noise.values[self.name], self.index, 1.0, out, column,
                        out.shape[1],
                    )  # fmt: skip
                column += 1

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the weights of every draw, shape (n_draws, n)."""
        at = 0
        for noise in noises:
            for draw in noise.draws:
                if self.is_fixed or noise.values is None:
                    out[at] = self.loc
                else:
                    compiled.module.draw_values(
                        self.loc, self.scale, noise.values[self.name], self.index,
                        float(draw.sign), out[at], 0, 1,
                    )  # fmt: skip
                at += 1


def index_of(weights: GaussianSlice) -> Places:
    """Where a slice's numbers are in its tensor."""
    along = [
        np.arange(size) if index is None else index
        for index, size in zip(weights.indices, weights.shape, strict=True)
    ]
    out = np.zeros((), np.int32)
    for index, size in zip(along, weights.shape, strict=True):
        out = out[..., None] * np.int32(size) + index.astype(np.int32)
    return out


def nonzero(weights: GaussianSlice) -> NDArray[np.bool_]:
    """Where weights of a slice are not exactly zero."""
    is_nonzero: NDArray[np.bool_] = weights.loc != 0
    return is_nonzero if weights.scale is None else is_nonzero | (weights.scale != 0)


@dataclass(frozen=True)
class FirstLayer:
    """A chain's first layer: its neurons are those of each filter at each position.

    Attributes
    ----------
    starts : int32 array, shape (n_filters + 1,)
        First weight of each filter, and the number of weights.
    rows : int32 array, shape (n_weights,)
        The row of a weight's input, for a position at the beginning of the tile.
    bases : int32 array, shape (n_positions, n_places)
        Where positions begin; one is the largest of its places, which the pooling takes.
    weights : Values
    bias : Values or None
    bounds : tuple of float
    """

    starts: Places
    rows: Places
    bases: Places
    weights: Values
    bias: Values | None
    bounds: tuple[float, float]

    @classmethod
    def of(cls, layer: CompactLayer, rows: Places, bases: Places) -> FirstLayer:
        """With the row of each of its inputs."""
        n_in, n_out = layer.kernel.loc.shape
        filters, inputs = _places(nonzero(layer.kernel).T)
        starts = np.searchsorted(filters, np.arange(n_out + 1, dtype=np.int32))
        return cls(
            starts.astype(np.int32),
            rows[inputs] if n_in else np.zeros(0, np.int32),
            bases,
            Values.of(layer.kernel, inputs * np.int32(n_out) + filters),
            None if layer.bias is None else Values.of(layer.bias, np.arange(n_out, dtype=np.int32)),
            BOUNDS[layer.activations],
        )

    def arguments(self, weights: Floats, bias: Floats) -> tuple[Any, ...]:
        """What the compiled module is given, with values as columns."""
        n_places, n_columns = self.bases.shape[1], weights.shape[1]
        return self.starts, self.rows, self.bases, n_places, n_columns, self.bounds, weights, bias

    @property
    def n_filters(self) -> int:
        """Filters, or neurons of a dense layer."""
        return len(self.starts) - 1


@dataclass(frozen=True)
class DenseLayer:
    """A layer after the first.

    Neurons are taken in groups of ``width``, whose inputs are those of any of them.

    Attributes
    ----------
    starts : int32 array, shape (n_blocks * n_groups + 1,)
        First entry of each group in each block of inputs, and the number of entries.
    rows : int32 array, shape (n_entries,)
        The row of an entry's input, from the beginning of its block.
    width : int
    n_out : int
    weights : Values
        ``width`` of them an entry.
    bounds : tuple of float
    """

    starts: Places
    rows: Places
    width: int
    n_out: int
    weights: Values
    bounds: tuple[float, float]

    @classmethod
    def of(cls, layer: CompactLayer, at_mean: bool = False) -> DenseLayer:
        """In the form that takes less time; with weights at their mean alone, if asked for."""
        kept = nonzero(layer.kernel)
        n_in, n_out = kept.shape
        width, block = Form.of(kept).width, compiled.module.BLOCK
        of_groups = _any_of(kept, width)
        n_groups = of_groups.shape[1]
        counts, found = [np.zeros(1, int)], []
        for start in range(0, max(1, n_in), block):
            groups, inputs = _places(of_groups[start : start + block].T)
            counts.append(np.bincount(groups, minlength=n_groups))
            found.append((groups, inputs, np.int32(start) + inputs))
        groups, within, inputs = (np.concatenate(parts) for parts in zip(*found, strict=True))
        neurons = groups[:, None] * np.int32(width) + np.arange(width, dtype=np.int32)
        places = inputs[:, None] * np.int32(n_out) + neurons
        places[neurons >= n_out] = -1
        return cls(
            np.cumsum(np.concatenate(counts)).astype(np.int32),
            within * np.int32(compiled.module.TILE),
            width,
            n_out,
            Values.of(layer.kernel, places.reshape(-1), is_fixed=at_mean),
            BOUNDS[() if at_mean else layer.activations],
        )

    def arguments(self, weights: Floats, bias: Floats) -> tuple[Any, ...]:
        """What the compiled module is given, with values of some draws, one after the other."""
        return self.starts, self.rows, self.width, self.n_out, self.bounds, weights, bias

    @property
    def n_padded(self) -> int:
        """Units, those that fill the last group included."""
        return -(-self.n_out // self.width) * self.width


@dataclass(frozen=True)
class Form:
    """How neurons of a layer are taken: ``n_entries`` groups of ``width``, each with an input."""

    width: int
    n_entries: int

    @classmethod
    def of(cls, kept: NDArray[np.bool_]) -> Form:
        """The one that takes less time for the weights that are not zero, shape (n_in, n_out)."""
        group = compiled.module.GROUP
        together, alone = int(np.count_nonzero(_any_of(kept, group))), int(np.count_nonzero(kept))
        return cls(group, together) if group * together < _COST_ALONE * alone else cls(1, alone)

    @property
    def cost(self) -> float:
        """Operations of an example, in the time of those whose neurons share inputs."""
        return 2 * self.n_entries * (_COST_ALONE if self.width == 1 else self.width)


def _places(mask: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Where a mask is true, row by row."""
    rows, columns = np.nonzero(mask)
    return rows.astype(np.int32), columns.astype(np.int32)


def _any_of(kept: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Whether any of each ``width`` neurons has a weight, shape (n_in, n_groups)."""
    n_in, n_out = kept.shape
    n_groups = -(-n_out // width)
    padded = np.zeros((n_in, n_groups * width), bool)
    padded[:, :n_out] = kept
    any_of: NDArray[np.bool_] = padded.reshape(n_in, n_groups, width).any(axis=2)
    return any_of
