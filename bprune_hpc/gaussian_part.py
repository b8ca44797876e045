"""A part of a tensor of weights: what is left of it, and its value in every draw. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alive import Indices
from .evaluators import Noise

Floats = NDArray[np.float32]


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
    index : object or None
        Which numbers of the tensor; None for all.
    """

    name: str
    loc: Floats
    scale: Floats | None
    shape: tuple[int, ...]
    index: Any

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
        loc = loc.reshape(shape)
        is_whole = all(
            np.array_equal(index, np.arange(size))
            for index, size in zip(indices, shape, strict=True)
        )
        if is_whole:
            return cls(name, loc, None if scale is None else scale.reshape(shape), shape, None)
        index = np.ix_(*indices)
        chosen = None if scale is None else scale.reshape(shape)[index]
        return cls(name, loc[index], chosen, shape, index)

    def deviation(self, noise: Noise, out: Floats | None = None) -> Floats | None:
        """``scale * noise``, where asked for in an array that is given; None if nothing varies."""
        if self.scale is None or noise.values is None:
            return None
        values = noise.values[self.name].reshape(self.shape)
        return np.multiply(
            self.scale, values if self.index is None else values[self.index], out=out
        )

    def draws(self, noises: Sequence[Noise], out: Floats) -> None:
        """Fill in the part in every draw: shape (n_draws, ...)."""
        at = 0
        for noise in noises:
            deviation = self.deviation(noise)
            for draw in noise.draws:
                if deviation is None:
                    out[at] = self.loc
                elif draw.sign > 0:
                    np.add(self.loc, deviation, out=out[at])
                else:
                    np.subtract(self.loc, deviation, out=out[at])
                at += 1
