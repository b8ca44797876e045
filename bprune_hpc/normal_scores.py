"""What a Normal says of a number: log-density, PIT, distances. Pure closed forms, in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LOG2_ROOT_2PI = 0.5 * math.log2(2 * math.pi)
_HALF_LOG2_E = 0.5 * math.log2(math.e)


def log2_density(error: Floats, scale: Floats) -> Floats:
    """Logarithm, to base 2, of the density of N(loc, scale²) at ``loc - error``.

    Parameters
    ----------
    error, scale : float64 array, shape (...)
        The scale is positive.
    """
    ratio = error / scale
    return -_HALF_LOG2_E * ratio * ratio - np.log2(scale) - _LOG2_ROOT_2PI


def probability_below(error: Floats, scale: Floats) -> Floats:
    """Φ(-error / scale): probability that N(loc, scale²) gives less than ``loc - error``."""
    from scipy import special

    return np.asarray(special.ndtr(-error / scale))


def expected_distance(error: Floats, scale: Floats) -> Floats:
    """Mean of |Y| for Y ~ N(error, scale²): how far draws of a Normal lie from a number.

    With the difference of two independent Normals (their locs subtracted, their scales' squares
    added) it is the mean distance of their draws. Both are what CRPS is made of.

    Parameters
    ----------
    error, scale : float64 array, shape (...)
        The scale is positive.

    References
    ----------
    T. Gneiting, A. Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 102
    (2007) 359, eq. 21: CRPS = E|Y - y| - E|Y - Y'| / 2; the folded Normal's mean is F. Leone et
    al., Technometrics 3 (1961) 543.
    """
    from scipy import special

    ratio = error / scale
    with np.errstate(over="ignore"):  # a square that is infinite leaves exp at its limit, 0
        bell = np.exp(-0.5 * ratio * ratio)
    near = math.sqrt(2 / math.pi) * scale * bell
    return near + np.asarray(error * special.erf(ratio / math.sqrt(2)))
