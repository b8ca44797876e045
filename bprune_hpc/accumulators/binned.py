"""Order-free sums of numbers of any size: the terms of a sum are digits in bins of 40 bits.

Fixed point serves what is bounded (``accumulators.classification``). Errors of a regression are
not, and densities span thousands of powers of two. Here the bins' edges are fixed powers of two,
and each sum keeps the three bins below the highest that any of its terms reached, as integers. A
term's digits depend on the term alone, a bin that is among the last three has never been let go,
and integers add without rounding: so the sum is the same in any order and at any place. Of the
largest term no bit is lost (a float64 has 53, three bins at least 80), and nothing is out of range.

References ---------- J. Demmel, H. D. Nguyen, "Parallel reproducible summation", IEEE Transactions
on Computers 64 (2015) 2060: bins at fixed exponents, of which the highest few are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._typing import BoolArray, Float64Array, Int64Array

BIN_BITS = 40
N_BINS = 3
EMPTY = -(2**56)
"""Top bin of a sum without terms, or of zeros alone."""
INTEGERS_PER_SUM = N_BINS + 1

_ONE = 2.0**BIN_BITS
_NOTHING = -1000


class BinnedSums:
    """An array of sums, of up to 2**22 terms each: with these no bin's 64 bits can overflow.

    Attributes
    ----------
    top : int64 array, shape (...)
        Highest bin in use: its unit is 2**(40 top).
    bins : int64 array, shape (..., 3)
        Integers in the units of the bins ``top``, ``top - 1``, ``top - 2``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.top = np.full(shape, EMPTY, np.int64)
        self.bins = np.zeros((*shape, N_BINS), np.int64)

    def clear(self) -> None:
        """Begin again without terms."""
        self.top.fill(EMPTY)
        self.bins.fill(0)

    def add(self, index: Any, value: Float64Array) -> None:
        """Add one finite term to each of the sums at ``index``."""
        mantissa, exponent = np.frexp(value)
        self.add_scaled(index, mantissa, exponent.astype(np.int64))

    def add_scaled(self, index: Any, mantissa: Float64Array, exponent: Int64Array) -> None:
        """Add ``mantissa * 2**exponent``, which float64 need not be able to hold.

        Parameters
        ----------
        index : slice, int or tuple of these, from the first axis on
        mantissa : float64 array, shape of ``top[index]``
            Below 2 in magnitude.
        exponent : int64 array of the same shape
        """
        bin_of = exponent // BIN_BITS
        old = self.top[index]
        new = np.maximum(old, np.where(mantissa == 0, EMPTY, bin_of))
        if (new > old).any():
            self.bins[index] = _lowered(self.bins[index], new - old)
            self.top[index] = new
        bins = self.bins[index]  # a view
        # Seen from the top bin: what is far below it comes to nothing.
        rest = np.ldexp(mantissa, np.maximum(exponent - new * BIN_BITS, _NOTHING).astype(np.int32))
        for place in range(N_BINS):
            whole = np.trunc(rest)
            bins[..., place] += whole.astype(np.int64)
            rest = (rest - whole) * _ONE

    @property
    def arrays(self) -> tuple[Int64Array, Int64Array]:
        """Views of ``top`` and ``bins`` with the sums along one axis: (n_sums,), (n_sums, 3).

        Raises
        ------
        ValueError
            If the arrays are not contiguous, so that there are no such views.
        """
        if not (self.top.flags.c_contiguous and self.bins.flags.c_contiguous):
            raise ValueError("sums that are not contiguous cannot be added to in place")
        return self.top.reshape(-1), self.bins.reshape(-1, N_BINS)

    def add_sums(self, at: slice, top: Int64Array, bins: Int64Array) -> None:
        """Add other sums to some of these.

        Parameters
        ----------
        at : slice
            Which of the sums, along one axis.
        top, bins : int64 array
            As in ``arrays``.
        """
        own_top, own_bins = (array[at] for array in self.arrays)  # views
        highest = np.maximum(own_top, top)
        own_bins[...] = _lowered(own_bins, highest - own_top) + _lowered(bins, highest - top)
        own_top[...] = highest

    def value(self) -> Float64Array:
        """The sums, rounded to float64."""
        head = _rounded(self.bins)
        # Two steps, since the exponent of an intermediate factor may be out of float64's range.
        exponent = np.clip(self.top, -60, 60).astype(np.int32) * BIN_BITS
        half = exponent // 2
        return np.ldexp(np.ldexp(head, half), exponent - half)

    def is_negative(self, index: Any) -> BoolArray:
        """Which of the sums at ``index`` are below zero."""
        return _carried(self.bins[index])[0] < 0

    def log(self, index: Any) -> Float64Array:
        """Natural logarithms of sums of positive terms, also where float64 cannot hold the sum.

        Parameters
        ----------
        index : slice, int or tuple of these, from the first axis on
            Which of the sums.
        """
        with np.errstate(divide="ignore"):
            return np.log(_rounded(self.bins[index])) + self.top[index] * (BIN_BITS * math.log(2))


def _rounded(bins: Int64Array) -> Float64Array:
    """Sums in units of their top bins."""
    # Carried first, since the same sum could otherwise stand in two ways that round apart.
    sign = np.where(_carried(bins)[0] < 0, -1, 1)
    high, middle, low = _carried(bins * sign[..., None])
    return sign * (high + (middle + low / _ONE) / _ONE)


def _carried(bins: Int64Array) -> tuple[Int64Array, ...]:
    """The same sums with all bins but the first between 0 and 2**40."""
    high, middle, low = (bins[..., place] for place in range(N_BINS))
    middle = middle + (low >> BIN_BITS)
    high = high + (middle >> BIN_BITS)
    return high, middle & (2**BIN_BITS - 1), low & (2**BIN_BITS - 1)


def _lowered(bins: Int64Array, places: Int64Array) -> Int64Array:
    """Bins seen from a top that is some places higher; what falls out below is let go."""
    if not places.any():
        return bins
    out = np.zeros_like(bins)
    for by in range(N_BINS):
        moved = places == by
        out[moved, by:] = bins[moved, : N_BINS - by]
    return out
