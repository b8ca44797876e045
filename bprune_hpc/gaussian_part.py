"""A part of a tensor of weights: what is left of it, and its value in every draw. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .alive import Indices
from .evaluators import Noise

Floats = NDArray[np.float32]

_BLOCK_NUMBERS = 2**15
"""Weights that are drawn at a time."""


@dataclass(frozen=True)
class GaussianPart:
    """Means and deviations of some of a tensor's weights.

    Attributes
    ----------
    name : str
        Of the tensor.
    loc : float32 array
    scale : float32 array or None
        None for weights that are fixed.
    shape : tuple of int
        In which the whole tensor is indexed.
    indices : sequence of int array or None
        Which numbers of the tensor, along each axis of ``shape``; None for all.
    """

    name: str
    loc: Floats
    scale: Floats | None
    shape: tuple[int, ...]
    indices: Sequence[Indices | None]

    @classmethod
    def of(
        cls,
        name: str,
        loc: Floats,
        scale: Floats | None,
        shape: tuple[int, ...],
        indices: Sequence[Indices],
    ) -> GaussianPart:
        """The part with the given indices along each axis of ``shape``."""
        chosen = [
            None if np.array_equal(index, np.arange(size)) else index
            for index, size in zip(indices, shape, strict=True)
        ]
        return cls(
            name,
            _taken(loc.reshape(shape), chosen),
            None if scale is None else _taken(scale.reshape(shape), chosen),
            shape,
            chosen,
        )

    def deviation(self, noise: Noise, out: Floats) -> Floats | None:
        """``scale * noise``, in an array that is given; None if nothing varies."""
        if self.scale is None or noise.values is None:
            return None
        values = _taken(noise.values[self.name].reshape(self.shape), self.indices)
        return np.multiply(self.scale, values, out=out)

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the part in every draw: shape (n_draws, ...)."""
        at = 0
        for noise in noises:
            of_noise = out[at : at + len(noise.draws)]
            at += len(noise.draws)
            if self.scale is None or noise.values is None:
                of_noise[...] = self.loc
                continue
            values = _taken(noise.values[self.name].reshape(self.shape), self.indices)
            for rows in self._blocks():
                deviation = self.scale[rows] * values[rows]
                for draw, weights in zip(noise.draws, of_noise, strict=True):
                    add = np.add if draw.sign > 0 else np.subtract
                    add(self.loc[rows], deviation, out=weights[rows])

    def _blocks(self) -> Iterator[slice]:
        """Parts along the first axis, of about so many numbers where its steps are not larger."""
        step = max(1, _BLOCK_NUMBERS * len(self.loc) // max(1, self.loc.size))
        for start in range(0, len(self.loc), step):
            yield slice(start, start + step)


def _taken(values: Floats, indices: Sequence[Indices | None]) -> Floats:
    """The numbers with some indices along each axis; whole rows first, which is the fastest."""
    for axis, index in enumerate(indices):
        if index is not None:
            values = np.take(values, index, axis=axis, mode="clip")
    return values
